// Package dropbox keeps a store in the folder that Dropbox gives to an app.
//
//	s, err := dropbox.New(dropbox.Config{Tokens: signedIn, Owner: accountID})
//
// It speaks Dropbox's HTTP interface itself, by package web: what is needed is nine
// routes. Requests, when nothing goes wrong: a Put is one, or for an object over 8 MiB
// one for each 8 MiB and one to see whether it is there already; a Get is one; a List is
// one for each thousand files and folders; a Delete is one. A new access token costs one
// more, which asks whose it is.
//
// Dropbox never replaces a file here: it refuses other bytes under a name that is taken,
// and takes the same bytes again without a second file. It tells names apart without
// case and in Unicode normal form C: of two names that differ in case alone, only one
// can be an object, and either finds it. What Dropbox refuses in names is escaped as
// package escape says: characters outside the basic plane (emoji), and the first
// character of names that it keeps for itself (desktop.ini, thumbs.db, ~$x, ~x.tmp).
// An element may have 255 characters after that; Put says so where it has more.
// Folders stay when they become empty.
//
// It was written from Dropbox's documentation and tested against a fake. The tests in
// live_test.go, for the owner of an account, have not been run against Dropbox itself.
package dropbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf16"

	"github.com/satchel-backup/satchel/internal/escape"
	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/store"
)

// Where a user signs in, and where codes and refresh tokens are exchanged. The first
// takes token_access_type=offline, without which there is no refresh token.
const (
	AuthURL  = "https://www.dropbox.com/oauth2/authorize"
	TokenURL = "https://api.dropboxapi.com/oauth2/token"
)

const (
	apiURL     = "https://api.dropboxapi.com"
	contentURL = "https://content.dropboxapi.com"

	// chunk is what one request of an upload in parts carries, and what an upload in one
	// part carries at most. Dropbox wants multiples of 4 MiB.
	chunk      = 8 << 20
	pageSize   = 1000
	maxPage    = 8 << 20 // bytes of a page
	maxEntries = 1 << 20 // of a listing
	maxPages   = 1 << 16
	maxUploads = 8 // remembered, to go on with
)

// Scopes returns what a program asks the user for.
func Scopes() []string {
	return []string{"account_info.read", "files.metadata.read", "files.content.read", "files.content.write"}
}

// Config says whose folder it is.
type Config struct {
	// Tokens are the sign-in.
	Tokens web.Tokens
	// Owner is the account's id, as Account returned it when the user chose the place.
	// Another account's token is then never used: store.ErrWrongAccount. "" means not
	// to ask.
	Owner string
	// Folder is where in the app's folder the objects are, a name by store.CheckName.
	// "" means the app's folder itself.
	Folder string
	// Transport carries the requests. Nil means that of package web.
	Transport http.RoundTripper

	// API and Content are the addresses of Dropbox's hosts, without a slash at the end.
	// "" means Dropbox's own; tests have others.
	API, Content string
}

// Store is a [store.Store] in Dropbox.
type Store struct {
	cfg    Config
	web    *web.Client
	folder string // as a path: "" or "/Folder"
	chunk  int

	mu      sync.Mutex
	uploads map[string]upload // begun and not finished, by path and hash; guarded by mu
}

var _ store.Store = (*Store)(nil)

// upload is how far an upload in parts has come.
type upload struct {
	session string
	offset  int
}

// errForeign says that an answer is not one of Dropbox's: a hotel's network, or one that
// was cut.
var errForeign = fmt.Errorf("%w: an answer that is not Dropbox's", store.ErrUnreachable)

// New returns the store. It makes no request.
func New(c Config) (*Store, error) {
	if c.Tokens == nil {
		return nil, errors.New("opening Dropbox: no sign-in given")
	}
	s := &Store{cfg: c, chunk: chunk, uploads: map[string]upload{}}
	if c.Folder != "" {
		if err := store.CheckName(c.Folder); err != nil {
			return nil, fmt.Errorf("opening Dropbox: %w", err)
		}
		s.folder = "/" + escape.Name(c.Folder, rule)
	}
	if s.cfg.API == "" {
		s.cfg.API = apiURL
	}
	if s.cfg.Content == "" {
		s.cfg.Content = contentURL
	}
	s.web = web.New(web.Config{
		Transport: c.Transport, Tokens: c.Tokens, Owner: c.Owner, Later: later,
		Account: func(ctx context.Context, w *web.Client) (string, error) {
			id, _, err := s.account(ctx, w)
			return id, err
		},
	})
	return s, nil
}

// Account returns the stable id of the account that a client is signed in to, and the
// address of its owner, to show.
func Account(ctx context.Context, c *web.Client) (id, name string, err error) {
	return (&Store{cfg: Config{API: apiURL}}).account(ctx, c)
}

// AccountAt is Account at another address than Dropbox's, for tests.
func AccountAt(ctx context.Context, c *web.Client, api string) (id, name string, err error) {
	return (&Store{cfg: Config{API: api}}).account(ctx, c)
}

func (s *Store) account(ctx context.Context, c *web.Client) (id, name string, err error) {
	var me struct {
		AccountID string `json:"account_id"`
		Email     string `json:"email"`
	}
	if err := s.ask(ctx, c, "users/get_current_account", nil, &me); err != nil {
		return "", "", fmt.Errorf("asking Dropbox for the account: %w", err)
	}
	if me.AccountID == "" {
		return "", "", fmt.Errorf("asking Dropbox for the account: %w", errForeign)
	}
	return me.AccountID, me.Email, nil
}

// rule says what Dropbox refuses in a name.
func rule(part string, i int, r rune) bool {
	if r > 0xffff {
		return true
	}
	if i > 0 {
		return false
	}
	low := strings.ToLower(part)
	return low == "desktop.ini" || low == "thumbs.db" || strings.HasPrefix(low, "~$") ||
		strings.HasPrefix(low, "~") && strings.HasSuffix(low, ".tmp")
}

func (s *Store) path(name string) string { return s.folder + "/" + escape.Name(name, rule) }

// contentHash is Dropbox's: the SHA-256 of the SHA-256s of blocks of 4 MiB.
func contentHash(data []byte) string {
	whole := sha256.New()
	for block := range slices.Chunk(data, 4<<20) {
		h := sha256.Sum256(block)
		whole.Write(h[:])
	}
	return hex.EncodeToString(whole.Sum(nil))
}

// metadata is what Dropbox tells of a file or folder.
type metadata struct {
	Tag            string `json:".tag"` // file, folder, deleted; missing where only a file can be
	ID             string `json:"id"`
	Rev            string `json:"rev"`
	Name           string `json:"name"`
	PathLower      string `json:"path_lower"`
	PathDisplay    string `json:"path_display"`
	Size           int64  `json:"size"`
	ContentHash    string `json:"content_hash"`
	ServerModified string `json:"server_modified"`
	Downloadable   *bool  `json:"is_downloadable"`
}

// refusal is an error of a route. It holds no text but tags.
type refusal struct {
	tags   string // such as path/conflict/file
	offset int    // correct_offset, where told
}

func (r *refusal) Error() string { return "Dropbox refuses it (" + r.tags + ")" }

// is reports whether one of the tags, in the order of a path, is the refusal's end.
func (r *refusal) is(ends ...string) bool {
	return slices.ContainsFunc(ends, func(end string) bool {
		return r.tags == end || strings.HasSuffix(r.tags, "/"+end)
	})
}

// refused returns the refusal in an error, or one without tags.
func refused(err error) *refusal {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	return &refusal{}
}

// parseRefusal reads the body of a 409. Tags stand in each other, under their own name
// or, for uploads, under reason.
func parseRefusal(body []byte) *refusal {
	var outer struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(body, &outer) != nil {
		return nil
	}
	r := &refusal{}
	for at := outer.Error; len(at) > 0; {
		var fields map[string]json.RawMessage
		var tag string
		if json.Unmarshal(at, &fields) != nil {
			// A tag alone may stand there as a text.
			if json.Unmarshal(at, &tag) == nil {
				r.add(tag)
			}
			break
		}
		if json.Unmarshal(fields[".tag"], &tag) != nil {
			break
		}
		r.add(tag)
		if n, ok := fields["correct_offset"]; ok && json.Unmarshal(n, &r.offset) != nil {
			return nil
		}
		if next, ok := fields[tag]; ok {
			at = next
		} else {
			at = fields["reason"]
		}
		if strings.Count(r.tags, "/") > 8 {
			return nil
		}
	}
	if r.tags == "" {
		return nil
	}
	return r
}

func (r *refusal) add(tag string) {
	if len(tag) > 64 || strings.ContainsFunc(tag, func(c rune) bool { return (c < 'a' || c > 'z') && c != '_' }) {
		tag = "other" // It is some text of the server's.
	}
	if r.tags != "" {
		r.tags += "/"
	}
	r.tags += tag
}

// later reports whether a refusal passes: others write to the account at this moment.
func later(a *web.Answer) bool {
	if a.Status != http.StatusConflict {
		return false
	}
	r := parseRefusal(a.Body)
	return r != nil && r.is("too_many_write_operations", "too_many_requests")
}

// check returns what an answer means, nil if it was done.
func check(a *web.Answer) error {
	switch a.Status {
	case http.StatusOK:
		return nil
	case http.StatusConflict:
		r := parseRefusal(a.Body)
		switch {
		case r == nil:
			return errForeign
		case r.is("insufficient_space"):
			return fmt.Errorf("%w: %w", store.ErrFull, r)
		}
		return r
	case http.StatusBadRequest:
		return errors.New("the request was not understood (status 400)")
	case http.StatusForbidden:
		return errors.New("the account is not allowed to do it (status 403)")
	}
	return fmt.Errorf("%w (status %d)", errForeign, a.Status)
}

// ask calls a route whose argument and answer are JSON.
func (s *Store) ask(ctx context.Context, c *web.Client, route string, arg, result any) error {
	body, err := json.Marshal(arg)
	if err != nil {
		return err
	}
	a, err := c.Do(ctx, web.Request{
		Method: http.MethodPost, URL: s.cfg.API + "/2/" + route, Body: body, Limit: maxPage,
		Header: http.Header{"Content-Type": {"application/json"}},
	})
	if err == nil {
		err = check(a)
	}
	if errors.Is(err, store.ErrTooLarge) {
		return errForeign // No answer is so long.
	}
	if err == nil && json.Unmarshal(a.Body, result) != nil {
		return errForeign
	}
	return err
}

// send calls a route that takes bytes.
func (s *Store) send(ctx context.Context, route string, arg any, body []byte, result any) error {
	header, err := asciiJSON(arg)
	if err != nil {
		return err
	}
	if body == nil {
		body = []byte{}
	}
	a, err := s.web.Do(ctx, web.Request{
		Method: http.MethodPost, URL: s.cfg.Content + "/2/" + route, Body: body,
		Header: http.Header{"Content-Type": {"application/octet-stream"}, "Dropbox-Api-Arg": {header}},
	})
	if err == nil {
		err = check(a)
	}
	if errors.Is(err, store.ErrTooLarge) {
		return errForeign
	}
	if err == nil && json.Unmarshal(a.Body, result) != nil {
		return errForeign
	}
	return err
}

// asciiJSON writes JSON that can stand in a header.
func asciiJSON(v any) (string, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, r := range string(text) {
		switch {
		case r < 0x7f:
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String(), nil
}

// look returns what stands at a path, or of an id; nil if the answer is that nothing does.
func (s *Store) look(ctx context.Context, path string) (*metadata, error) {
	var m metadata
	err := s.ask(ctx, s.web, "files/get_metadata", map[string]string{"path": path}, &m)
	if refused(err).is("path/not_found", "path/not_folder", "path/not_file") {
		return nil, nil
	}
	if err == nil && m.Tag == "" {
		err = errForeign
	}
	if err != nil {
		return nil, err
	}
	return &m, nil
}

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	err := store.CheckPut(name, data)
	if err == nil {
		err = s.put(ctx, s.path(name), data)
	}
	if err != nil {
		return fmt.Errorf("putting object in Dropbox: %w", err)
	}
	return nil
}

// commit says where a file goes. Dropbox answers with a conflict if something else
// stands there, and takes the same bytes again as done.
type commit struct {
	Path           string `json:"path"`
	Mode           string `json:"mode"`
	Autorename     bool   `json:"autorename"`
	StrictConflict bool   `json:"strict_conflict"`
	Mute           bool   `json:"mute"`
}

func commitTo(path string) commit { return commit{Path: path, Mode: "add", Mute: true} }

func (s *Store) put(ctx context.Context, path string, data []byte) error {
	hash := contentHash(data)
	if len(data) > s.chunk {
		return s.putLarge(ctx, path, data, hash)
	}
	arg := struct {
		commit
		ContentHash string `json:"content_hash"` // Dropbox refuses bytes that changed on the way.
	}{commitTo(path), hash}
	var m metadata
	err := s.send(ctx, "files/upload", arg, data, &m)
	return s.placed(ctx, path, hash, &m, err)
}

// placed returns what an answer to the last request of an upload means.
func (s *Store) placed(ctx context.Context, path, hash string, m *metadata, err error) error {
	switch r := refused(err); {
	case r.is("conflict/file"):
		// With the same bytes it is no conflict; but who comes second may be told so.
		there, lookErr := s.look(ctx, path)
		switch {
		case lookErr != nil:
			return lookErr
		case there == nil:
			return fmt.Errorf("%w: the file changes at this moment", store.ErrUnreachable)
		case there.Tag == "file" && there.ContentHash == hash:
			return nil
		}
		return store.ErrExist
	case r.is("conflict/folder"):
		return fmt.Errorf("%w: a folder", store.ErrExist)
	case r.is("conflict/file_ancestor"):
		return errors.New("a file stands where a folder is needed")
	case r.is("malformed_path", "disallowed_name"):
		return fmt.Errorf("the name is not usable there: %w", err)
	case err != nil:
		return err
	case m.ContentHash != hash:
		return fmt.Errorf("%w: it says that it stored something else", store.ErrUnreachable)
	}
	return nil
}

// cursor is a place in an upload in parts.
type cursor struct {
	SessionID string `json:"session_id"`
	Offset    int    `json:"offset"`
}

// putLarge uploads in parts. How far it came is remembered: the next Put of the same
// bytes goes on there.
func (s *Store) putLarge(ctx context.Context, path string, data []byte, hash string) error {
	switch there, err := s.look(ctx, path); {
	case err != nil:
		return err
	case there != nil && there.Tag == "file" && there.ContentHash == hash:
		return nil
	case there != nil:
		return store.ErrExist
	}
	key := hash + path
	for range 3 { // Dropbox may have forgotten a session.
		done, err := s.parts(ctx, path, key, data, hash)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: it forgets uploads", store.ErrUnreachable)
}

// parts uploads in one session. It reports false if the session is gone.
func (s *Store) parts(ctx context.Context, path, key string, data []byte, hash string) (done bool, err error) {
	s.mu.Lock()
	u := s.uploads[key]
	s.mu.Unlock()
	if u.session == "" {
		var begun struct {
			SessionID string `json:"session_id"`
		}
		part := data[:s.chunk]
		if err := s.send(ctx, "files/upload_session/start", map[string]any{"content_hash": contentHash(part)}, part, &begun); err != nil {
			return false, err
		}
		if begun.SessionID == "" {
			return false, errForeign
		}
		u = upload{begun.SessionID, len(part)}
		s.remember(key, u)
	}
	for range 4 * (len(data)/s.chunk + 1) { // A server that corrects for ever gets no more.
		last := len(data)-u.offset <= s.chunk
		part := data[u.offset:min(u.offset+s.chunk, len(data))]
		at := cursor{u.session, u.offset}
		if last {
			var m metadata
			arg := struct {
				Cursor      cursor `json:"cursor"`
				Commit      commit `json:"commit"`
				ContentHash string `json:"content_hash"`
			}{at, commitTo(path), contentHash(part)}
			err = s.send(ctx, "files/upload_session/finish", arg, part, &m)
			if err == nil || strings.HasPrefix(refused(err).tags, "path") {
				err = s.placed(ctx, path, hash, &m, err)
				if err == nil || errors.Is(err, store.ErrExist) {
					s.forget(key)
				} else {
					s.remember(key, upload{u.session, len(data)}) // The bytes are there; the place is not.
				}
				return true, err
			}
		} else {
			arg := struct {
				Cursor      cursor `json:"cursor"`
				ContentHash string `json:"content_hash"`
			}{at, contentHash(part)}
			var none any // It answers null.
			err = s.send(ctx, "files/upload_session/append_v2", arg, part, &none)
		}
		switch r := refused(err); {
		case err == nil:
			u.offset += len(part)
		case r.is("incorrect_offset"):
			// An answer was lost: Dropbox has more than we knew.
			if r.offset < 0 || r.offset > len(data) {
				s.forget(key)
				return false, nil
			}
			u.offset = r.offset
		case r.is("not_found", "closed"):
			s.forget(key)
			// It may have been finished, and the answer lost.
			there, err := s.look(ctx, path)
			if err != nil {
				return false, err
			}
			return there != nil && there.Tag == "file" && there.ContentHash == hash, nil
		default:
			return false, err
		}
		s.remember(key, u)
	}
	s.forget(key)
	return false, nil
}

func (s *Store) remember(key string, u upload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.uploads[key]; !ok && len(s.uploads) >= maxUploads {
		clear(s.uploads) // Dropbox forgets them after a week.
	}
	s.uploads[key] = u
}

func (s *Store) forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.uploads, key)
}

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	err := store.CheckName(name)
	var data []byte
	if err == nil {
		data, err = s.get(ctx, s.path(name), limit)
	}
	if err == nil && !want.Matches(data) {
		err = store.ErrDamaged
	}
	if err != nil {
		return nil, fmt.Errorf("getting object from Dropbox: %w", err)
	}
	return data, nil
}

func (s *Store) get(ctx context.Context, path string, limit int64) ([]byte, error) {
	header, err := asciiJSON(map[string]string{"path": path})
	if err != nil {
		return nil, err
	}
	a, err := s.web.Do(ctx, web.Request{
		Method: http.MethodPost, URL: s.cfg.Content + "/2/files/download",
		Header: http.Header{"Dropbox-Api-Arg": {header}}, Limit: max(limit, 1<<20), // An error needs room too.
	})
	if err == nil {
		err = check(a)
	}
	if refused(err).is("path/not_found", "path/not_file", "path/not_folder") {
		return nil, store.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	var m metadata
	if json.Unmarshal([]byte(a.Header.Get("Dropbox-Api-Result")), &m) != nil || m.ContentHash == "" {
		return nil, errForeign
	}
	switch {
	case m.Size > limit:
		return nil, store.ErrTooLarge
	case m.Size != int64(len(a.Body)):
		return nil, fmt.Errorf("%w: a part of the bytes came", store.ErrUnreachable)
	case m.ContentHash != contentHash(a.Body):
		return nil, store.ErrDamaged
	}
	return a.Body, nil
}

// List implements [store.Store].
func (s *Store) List(ctx context.Context, prefix string) ([]store.Object, error) {
	list, err := s.list(ctx, prefix)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, store.ErrUnreachable) && !errors.Is(err, store.ErrSignIn) && !errors.Is(err, store.ErrWrongAccount) {
			err = fmt.Errorf("%w: %w", store.ErrListing, err)
		}
		return nil, fmt.Errorf("listing objects in Dropbox: %w", err)
	}
	return list, nil
}

func (s *Store) list(ctx context.Context, prefix string) ([]store.Object, error) {
	dir := "" // the deepest folder that all names with the prefix are in
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir = prefix[:i]
		if store.CheckName(dir) != nil {
			return nil, ctx.Err() // No object has such a name.
		}
	}
	at := s.folder
	if dir != "" {
		at = s.path(dir)
	}
	for range 3 {
		entries, err := s.pages(ctx, at)
		switch r := refused(err); {
		case r.is("path/not_found", "path/not_folder"):
			return nil, nil
		case r.is("reset"):
			continue // Dropbox lost its place in the list.
		case err != nil:
			return nil, err
		}
		return objects(entries, at, dir, prefix), nil
	}
	return nil, errors.New("the place in the list is lost again and again")
}

// pages returns all entries below a folder, by path in lower case.
func (s *Store) pages(ctx context.Context, at string) (map[string]metadata, error) {
	type page struct {
		Entries []metadata `json:"entries"`
		Cursor  string     `json:"cursor"`
		HasMore *bool      `json:"has_more"`
	}
	var p page
	if err := s.ask(ctx, s.web, "files/list_folder", map[string]any{"path": at, "recursive": true, "limit": pageSize}, &p); err != nil {
		return nil, err
	}
	all := map[string]metadata{}
	for range maxPages {
		if p.Entries == nil || p.HasMore == nil {
			return nil, errForeign
		}
		for _, m := range p.Entries {
			// A listing tells what changes while it is read: a later word counts.
			all[m.PathLower] = m
			if m.Tag == "deleted" {
				for lower := range all {
					if lower == m.PathLower || strings.HasPrefix(lower, m.PathLower+"/") {
						delete(all, lower)
					}
				}
			}
		}
		if !*p.HasMore {
			return all, nil
		}
		if len(all) > maxEntries {
			break
		}
		cursor := p.Cursor
		p = page{}
		if err := s.ask(ctx, s.web, "files/list_folder/continue", map[string]string{"cursor": cursor}, &p); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("too many files")
}

// objects makes objects of entries below the folder at, which is called dir. Of
// path_display only the last element is told to be right, so the others are taken from
// the folders' own entries.
func objects(entries map[string]metadata, at, dir, prefix string) []store.Object {
	depth := strings.Count(at, "/")
	var list []store.Object
	for lower, m := range entries {
		if m.Tag != "file" || m.Downloadable != nil && !*m.Downloadable {
			continue // Dropbox's own documents have no bytes.
		}
		parts := strings.Split(strings.TrimPrefix(lower, "/"), "/")
		display := strings.Split(strings.TrimPrefix(m.PathDisplay, "/"), "/")
		if len(parts) <= depth {
			continue
		}
		if len(display) != len(parts) {
			display = slices.Clone(parts)
		}
		end := 0 // of the path of the folder
		for i := range parts[:len(parts)-1] {
			end += 1 + len(parts[i])
			if f, ok := entries[lower[:end]]; ok && f.Tag == "folder" {
				display[i] = f.Name
			}
		}
		display[len(display)-1] = m.Name
		name, ok := escape.Read(strings.Join(display[depth:], "/"), rule)
		if dir != "" {
			name = dir + "/" + name
		}
		if !ok || store.CheckName(name) != nil || !strings.HasPrefix(name, prefix) {
			continue
		}
		modified, _ := time.Parse(time.RFC3339, m.ServerModified) // Zero where it is none.
		list = append(list, store.Object{Name: name, Size: m.Size, Modified: modified, ID: m.ID + " " + m.Rev})
	}
	return list
}

// Delete implements [store.Store]. What was changed since it was listed stays.
func (s *Store) Delete(ctx context.Context, o store.Object) error {
	if err := s.delete(ctx, o); err != nil {
		return fmt.Errorf("deleting object in Dropbox: %w", err)
	}
	return nil
}

func (s *Store) delete(ctx context.Context, o store.Object) error {
	id, rev, ok := strings.Cut(o.ID, " ")
	if !ok || !strings.HasPrefix(id, "id:") {
		// Whoever knows only a name must not delete a folder with all that is in it.
		if err := store.CheckName(o.Name); err != nil {
			return err
		}
		m, err := s.look(ctx, s.path(o.Name))
		if err != nil || m == nil || m.Tag != "file" {
			return err
		}
		id, rev = m.ID, m.Rev
	}
	var gone struct {
		Metadata *metadata `json:"metadata"`
	}
	err := s.ask(ctx, s.web, "files/delete_v2", map[string]string{"path": id, "parent_rev": rev}, &gone)
	switch r := refused(err); {
	case r.is("path_lookup/not_found"):
		return nil
	case r.is("path_write/conflict/file"):
		return nil // Another file is there by now: what was listed is gone.
	case err == nil && gone.Metadata == nil:
		return errForeign
	}
	return err
}
