// Package onedrive keeps a store in the folder that OneDrive gives to an app.
//
//	s, err := onedrive.New(onedrive.Config{Tokens: signedIn, Owner: accountID})
//
// It speaks Microsoft Graph itself, by package web. Requests, when nothing goes wrong: a
// Put is one, or for an object over 4 MB one for each 10 MiB and two more; a Get is two,
// of which the second is for the bytes; a Delete is one; a List is one for each folder,
// several at once, and one more for each further thousand in a folder. A new access token
// costs one more, which asks whose it is.
//
// OneDrive never replaces a file here: every upload says that it is to fail where one is
// there, and Put then compares hashes. Names are told apart without case (and a few
// letters alike, such as æ and ae): of two names that differ in nothing else, only one
// can be an object, and either finds it. What OneDrive refuses in names, or is known to
// get wrong, is escaped as package escape says: the signs # % ', a space or ~ at the
// beginning, the first character of names that Windows keeps for itself (CON, COM1,
// desktop.ini), and _vti_. OneDrive has room for 400 characters of a path, its own
// folders included; Put says so where that is not enough. Folders stay when they become
// empty, and what is deleted lies in the recycle bin for a while.
//
// It was written from Microsoft's documentation and tested against a fake. The tests in
// live_test.go, for the owner of an account, have not been run against OneDrive itself.
// Some accounts of organisations may know no folder of an app.
package onedrive

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/satchel-backup/satchel/internal/escape"
	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/store"
)

// Where a user signs in, and where codes and refresh tokens are exchanged, with a
// personal account or one of an organisation.
const (
	AuthURL  = "https://login.microsoftonline.com/common/oauth2/v2.0/authorize"
	TokenURL = "https://login.microsoftonline.com/common/oauth2/v2.0/token"
)

const (
	graphURL = "https://graph.microsoft.com/v1.0"

	// single is what is uploaded in one request at most: all kinds of accounts took 4 MB
	// at all times.
	single = 4_000_000
	// chunk is what one request of an upload in parts carries: a multiple of 320 KiB,
	// as Microsoft demands, and its advice for fast lines.
	chunk      = 32 * 320 << 10
	pageSize   = 1000
	maxPage    = 8 << 20 // bytes of a page
	maxPages   = 1 << 16 // of a listing
	maxEntries = 1 << 20
	atOnce     = 6 // folders that are read at a time
	maxUploads = 8 // remembered, to go on with
)

// Scopes returns what a program asks the user for.
func Scopes() []string { return []string{"Files.ReadWrite.AppFolder", "User.Read", "offline_access"} }

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

	// Graph is the address of Microsoft Graph, without a slash at the end. "" means
	// Microsoft's own; tests have others.
	Graph string
}

// Store is a [store.Store] in OneDrive.
type Store struct {
	graph  string
	web    *web.Client
	folder string // as a name: "" or "Folder/"
	single int
	chunk  int

	mu      sync.Mutex
	uploads map[string]upload // begun and not finished, by name and hash; guarded by mu
}

var _ store.Store = (*Store)(nil)

// upload is how far an upload in parts has come. Its address is the permission.
type upload struct {
	url    string
	offset int
}

// errForeign says that an answer is not one of OneDrive's: a hotel's network, or one that
// was cut.
var errForeign = fmt.Errorf("%w: an answer that is not OneDrive's", store.ErrUnreachable)

// errAddress says that the bytes of a file are not at the address that OneDrive gave.
var errAddress = fmt.Errorf("%w: the file's bytes are not where they should be", store.ErrUnreachable)

// New returns the store. It makes no request.
func New(c Config) (*Store, error) {
	if c.Tokens == nil {
		return nil, errors.New("opening OneDrive: no sign-in given")
	}
	s := &Store{graph: c.Graph, single: single, chunk: chunk, uploads: map[string]upload{}}
	if c.Folder != "" {
		if err := store.CheckName(c.Folder); err != nil {
			return nil, fmt.Errorf("opening OneDrive: %w", err)
		}
		s.folder = c.Folder + "/"
	}
	if s.graph == "" {
		s.graph = graphURL
	}
	s.web = web.New(web.Config{
		Transport: c.Transport, Tokens: c.Tokens, Owner: c.Owner, Later: later,
		Account: func(ctx context.Context, w *web.Client) (string, error) { return drive(ctx, w, s.graph) },
	})
	return s, nil
}

// Account returns the stable id of the account that a client is signed in to, which is
// that of its drive, and the name of its owner, to show; "" where that is not told.
func Account(ctx context.Context, c *web.Client) (id, name string, err error) {
	return AccountAt(ctx, c, graphURL)
}

// AccountAt is Account at another address than Microsoft's, for tests.
func AccountAt(ctx context.Context, c *web.Client, graph string) (id, name string, err error) {
	if id, err = drive(ctx, c, graph); err != nil {
		return "", "", err
	}
	var me struct {
		UserPrincipalName string `json:"userPrincipalName"`
		Mail              string `json:"mail"`
	}
	err = ask(ctx, c, web.Request{Method: http.MethodGet, URL: graph + "/me"}, &me)
	if refused(err).status == http.StatusForbidden {
		return id, "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("asking OneDrive for the account: %w", err)
	}
	if me.UserPrincipalName == "" {
		me.UserPrincipalName = me.Mail
	}
	return id, me.UserPrincipalName, nil
}

// drive returns the id of the drive that the app's folder is in. The folder is what
// the permission is for; reading it makes it, where it is missing.
func drive(ctx context.Context, c *web.Client, graph string) (string, error) {
	var it item
	err := ask(ctx, c, web.Request{Method: http.MethodGet, URL: graph + "/me/drive/special/approot"}, &it)
	// The id of a personal drive is told with and without zeros before it, and in either
	// case: https://github.com/abraunegg/onedrive knows of both.
	id := strings.TrimLeft(strings.ToLower(it.Parent.DriveID), "0")
	if err == nil && id == "" {
		err = errForeign
	}
	if err != nil {
		return "", fmt.Errorf("asking OneDrive for the account: %w", err)
	}
	return id, nil
}

// rule says what OneDrive refuses in a name, or gets wrong.
func rule(part string, i int, r rune) bool {
	switch r {
	case '#', '%', '\'':
		return true
	case '_':
		return len(part) >= i+5 && strings.EqualFold(part[i:i+5], "_vti_")
	}
	if i > 0 {
		return false
	}
	if r == ' ' || r == '~' {
		return true
	}
	low := strings.ToLower(part)
	if low == "desktop.ini" {
		return true
	}
	base, _, _ := strings.Cut(low, ".")
	switch base {
	case "con", "prn", "aux", "nul":
		return true
	}
	return len(base) == 4 && (strings.HasPrefix(base, "com") || strings.HasPrefix(base, "lpt")) && base[3] >= '0' && base[3] <= '9'
}

// at returns the address of what is called name, "" for the store's folder, and verb,
// "" or /content or the like.
func (s *Store) at(name, verb string) string {
	p := strings.TrimSuffix(s.folder+name, "/")
	if p == "" {
		return s.graph + "/me/drive/special/approot" + verb
	}
	parts := strings.Split(escape.Name(p, rule), "/")
	for i := range parts {
		// Brackets and the like confuse what reads the address, unless they are escaped.
		parts[i] = strings.ReplaceAll(url.QueryEscape(parts[i]), "+", "%20")
	}
	a := s.graph + "/me/drive/special/approot:/" + strings.Join(parts, "/")
	if verb != "" {
		a += ":" + verb
	}
	return a
}

func (s *Store) byID(id, verb string) string {
	return s.graph + "/me/drive/items/" + url.PathEscape(id) + verb
}

// item is what OneDrive tells of a file or folder.
type item struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	Size     int64      `json:"size"`
	ETag     string     `json:"eTag"`
	CTag     string     `json:"cTag"` // changes with the bytes only
	Modified *time.Time `json:"lastModifiedDateTime"`
	File     *struct {
		Hashes struct {
			QuickXor string `json:"quickXorHash"`
			SHA1     string `json:"sha1Hash"`
			SHA256   string `json:"sha256Hash"`
		} `json:"hashes"`
	} `json:"file"`
	Folder *struct{} `json:"folder"`
	Parent struct {
		DriveID string `json:"driveId"`
	} `json:"parentReference"`
	Download string `json:"@microsoft.graph.downloadUrl"`
}

// same reports whether the file has these bytes, as far as its hashes tell, and whether
// they tell.
func (it *item) same(data []byte) (same, known bool) {
	if it.Size != int64(len(data)) {
		return false, true
	}
	h := it.File.Hashes
	switch {
	case h.SHA256 != "":
		sum := sha256.Sum256(data)
		return strings.EqualFold(h.SHA256, hex.EncodeToString(sum[:])), true
	case h.SHA1 != "":
		sum := sha1.Sum(data)
		return strings.EqualFold(h.SHA1, hex.EncodeToString(sum[:])), true
	case h.QuickXor != "":
		return h.QuickXor == quickXor(data), true
	}
	return len(data) == 0, len(data) == 0
}

// refusal is an error of Microsoft Graph's. It holds no text but the code.
type refusal struct {
	status int
	code   string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("OneDrive refuses it (status %d, %s)", r.status, r.code)
}

// refused returns the refusal in an error, or an empty one.
func refused(err error) *refusal {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	return &refusal{}
}

// parseRefusal reads the body of an error; nil if it is not Microsoft Graph's.
func parseRefusal(a *web.Answer) *refusal {
	var body struct {
		Error struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	if json.Unmarshal(a.Body, &body) != nil || body.Error.Code == "" {
		return nil
	}
	code := body.Error.Code
	if len(code) > 64 || strings.ContainsFunc(code, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '_'
	}) {
		code = "other" // It is some text of the server's.
	}
	return &refusal{a.Status, code}
}

// later reports whether a refusal passes: others write at this moment, or it is busy in
// words of its own.
func later(a *web.Answer) bool {
	switch a.Status {
	case http.StatusLocked, 509: // The second is what Microsoft says of bandwidth.
		return true
	case http.StatusConflict, http.StatusForbidden:
		r := parseRefusal(a)
		return r != nil && (r.code == "resourceModified" || r.code == "activityLimitReached" || r.code == "serviceNotAvailable")
	}
	return false
}

// check returns what an answer means, nil if it was done.
func check(a *web.Answer) error {
	if a.Status >= 200 && a.Status < 300 {
		return nil
	}
	r := parseRefusal(a)
	switch {
	case a.Status == http.StatusInsufficientStorage:
		return fmt.Errorf("%w (status 507)", store.ErrFull)
	case r == nil:
		return fmt.Errorf("%w (status %d)", errForeign, a.Status)
	case r.code == "quotaLimitReached":
		return fmt.Errorf("%w: %w", store.ErrFull, r)
	case a.Status < 400 || a.Status > 499:
		return fmt.Errorf("%w: %w", store.ErrUnreachable, r)
	}
	return r
}

// ask makes a request whose answer is JSON.
func ask(ctx context.Context, c *web.Client, r web.Request, result any) error {
	r.Limit = maxPage
	a, err := c.Do(ctx, r)
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

func isNotFound(err error) bool {
	r := refused(err)
	return r.status == http.StatusNotFound && r.code == "itemNotFound"
}

func isTaken(err error) bool {
	r := refused(err)
	return r.status == http.StatusConflict && (r.code == "nameAlreadyExists" || r.code == "upload_name_conflict")
}

// look returns what is called name; nil if the answer is that nothing is.
func (s *Store) look(ctx context.Context, name string) (*item, error) {
	var it item
	err := ask(ctx, s.web, web.Request{Method: http.MethodGet, URL: s.at(name, "")}, &it)
	switch {
	case isNotFound(err):
		return nil, nil
	case err != nil:
		return nil, err
	case it.ID == "":
		return nil, errForeign
	}
	return &it, nil
}

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	err := store.CheckPut(name, data)
	if err == nil {
		if len(data) > s.single {
			err = s.putLarge(ctx, name, data)
		} else {
			err = s.put(ctx, name, data)
		}
	}
	if refused(err).status == http.StatusBadRequest {
		err = fmt.Errorf("the name is perhaps not usable there: %w", err)
	}
	if err != nil {
		return fmt.Errorf("putting object in OneDrive: %w", err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, name string, data []byte) error {
	if data == nil {
		data = []byte{}
	}
	for range 3 {
		var it item
		err := ask(ctx, s.web, web.Request{
			Method: http.MethodPut, URL: s.at(name, "/content") + "?@microsoft.graph.conflictBehavior=fail", Body: data,
			Header: http.Header{"Content-Type": {"application/octet-stream"}},
		}, &it)
		if !isTaken(err) {
			return placed(&it, data, err)
		}
		if there, err := s.taken(ctx, name, data); there || err != nil {
			return err
		}
		// It may have been a folder on the way, which two made at once.
	}
	return fmt.Errorf("%w: the file changes at this moment", store.ErrUnreachable)
}

// placed returns what the answer to the last request of an upload means.
func placed(it *item, data []byte, err error) error {
	if err != nil {
		return err
	}
	if it.ID == "" || it.File == nil {
		return errForeign
	}
	if same, known := it.same(data); known && !same {
		return fmt.Errorf("%w: it says that it stored something else", store.ErrUnreachable)
	}
	return nil
}

// taken looks at what is there under a name: it reports true if it is this object, false
// if nothing is there, and store.ErrExist if it is something else.
func (s *Store) taken(ctx context.Context, name string, data []byte) (bool, error) {
	it, err := s.look(ctx, name)
	if err != nil || it == nil {
		return false, err
	}
	if it.File == nil {
		return false, fmt.Errorf("%w: a folder", store.ErrExist)
	}
	same, known := it.same(data)
	if !known {
		there, err := s.bytes(ctx, it, int64(len(data)))
		if err != nil {
			return false, err
		}
		same = string(there) == string(data)
	}
	if !same {
		return false, store.ErrExist
	}
	return true, nil
}

// putLarge uploads in parts. How far it came is remembered: the next Put of the same
// bytes goes on there.
func (s *Store) putLarge(ctx context.Context, name string, data []byte) error {
	if there, err := s.taken(ctx, name, data); there || err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	key := string(sum[:]) + name
	for range 3 { // OneDrive may have forgotten a session.
		done, err := s.parts(ctx, name, key, data)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: it forgets uploads", store.ErrUnreachable)
}

// progress is what OneDrive tells of an upload in parts, and of the file that it becomes.
type progress struct {
	item
	URL  string   `json:"uploadUrl"`
	Next []string `json:"nextExpectedRanges"`
}

// offset returns where the first range that is missing begins.
func (p *progress) offset(size int) (int, bool) {
	if len(p.Next) == 0 {
		return 0, false
	}
	first, _, _ := strings.Cut(p.Next[0], "-")
	n, err := strconv.Atoi(first)
	return n, err == nil && n >= 0 && n < size
}

// parts uploads in one session. It reports false if the session is gone.
func (s *Store) parts(ctx context.Context, name, key string, data []byte) (done bool, err error) {
	s.mu.Lock()
	u := s.uploads[key]
	s.mu.Unlock()
	if u.url == "" {
		var p progress
		err := ask(ctx, s.web, web.Request{
			Method: http.MethodPost, URL: s.at(name, "/createUploadSession"), Header: http.Header{"Content-Type": {"application/json"}},
			Body: []byte(`{"item":{"@microsoft.graph.conflictBehavior":"fail"}}`),
		}, &p)
		if isTaken(err) {
			return s.taken(ctx, name, data)
		}
		if err != nil {
			return false, err
		}
		if !s.isOurs(p.URL, false) {
			return false, errForeign
		}
		u = upload{url: p.URL}
		s.remember(key, u)
	}
	for range 4 * (len(data)/s.chunk + 1) { // A server that corrects for ever gets no more.
		end := min(u.offset+s.chunk, len(data))
		var p progress
		err := ask(ctx, s.web, web.Request{
			Method: http.MethodPut, URL: u.url, Plain: true, Body: data[u.offset:end],
			Header: http.Header{"Content-Range": {fmt.Sprintf("bytes %d-%d/%d", u.offset, end-1, len(data))}},
		}, &p)
		if err == nil && p.ID != "" {
			s.forget(key)
			return true, placed(&p.item, data, nil)
		}
		switch r := refused(err); {
		case err == nil:
			next, ok := p.offset(len(data))
			if !ok {
				return false, errForeign
			}
			u.offset = next
		case r.status == http.StatusRequestedRangeNotSatisfiable:
			// An answer was lost: OneDrive has more than we knew.
			var now progress
			err := ask(ctx, s.web, web.Request{Method: http.MethodGet, URL: u.url, Plain: true}, &now)
			next, ok := now.offset(len(data))
			if err == nil && ok {
				u.offset = next
				break
			}
			if err != nil && refused(err).status == 0 {
				return false, err
			}
			fallthrough
		case r.status == http.StatusNotFound, r.status == http.StatusGone, r.status == http.StatusUnauthorized, isTaken(err):
			s.forget(key)
			// It may have been finished, and the answer lost.
			return s.taken(ctx, name, data)
		case errors.Is(err, store.ErrFull):
			s.forget(key) // It has all bytes, and cannot be asked again to keep them.
			return false, err
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
		clear(s.uploads) // OneDrive forgets them after some days.
	}
	s.uploads[key] = u
}

func (s *Store) forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.uploads, key)
}

// isOurs reports whether an address that OneDrive gave can be used: over TLS like Graph,
// and where the token goes along, at Graph itself.
func (s *Store) isOurs(address string, withToken bool) bool {
	u, err := url.Parse(address)
	graph, graphErr := url.Parse(s.graph)
	if err != nil || graphErr != nil || u.Host == "" || u.User != nil || u.Scheme != graph.Scheme {
		return false
	}
	return !withToken || u.Host == graph.Host && strings.HasPrefix(u.Path, graph.Path+"/")
}

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	err := store.CheckName(name)
	var data []byte
	if err == nil {
		data, err = s.get(ctx, name, limit)
	}
	if err == nil && !want.Matches(data) {
		err = store.ErrDamaged
	}
	if err != nil {
		return nil, fmt.Errorf("getting object from OneDrive: %w", err)
	}
	return data, nil
}

func (s *Store) get(ctx context.Context, name string, limit int64) ([]byte, error) {
	var data []byte
	for range 2 {
		it, err := s.look(ctx, name)
		if err == nil && (it == nil || it.File == nil) {
			err = store.ErrNotExist
		}
		if err != nil {
			return nil, err
		}
		if data, err = s.bytes(ctx, it, limit); !errors.Is(err, errAddress) {
			return data, err
		}
	}
	return nil, errAddress
}

// bytes returns the bytes of a file.
func (s *Store) bytes(ctx context.Context, it *item, limit int64) ([]byte, error) {
	switch {
	case it.Size > limit:
		return nil, store.ErrTooLarge
	case it.Size == 0:
		return []byte{}, nil
	case !s.isOurs(it.Download, false):
		return nil, errForeign
	}
	// The address is the permission, and not Graph's: it must not get the token.
	a, err := s.web.Do(ctx, web.Request{Method: http.MethodGet, URL: it.Download, Plain: true, Limit: max(it.Size, 1<<20)})
	switch {
	case errors.Is(err, store.ErrTooLarge):
		return nil, errForeign // It is not the file of which we were told.
	case err != nil:
		return nil, err
	case a.Status == http.StatusUnauthorized, a.Status == http.StatusForbidden, a.Status == http.StatusNotFound, a.Status == http.StatusGone:
		return nil, errAddress // Addresses count for a while only.
	case a.Status != http.StatusOK:
		return nil, fmt.Errorf("%w (status %d)", errForeign, a.Status)
	case int64(len(a.Body)) != it.Size:
		return nil, fmt.Errorf("%w: a part of the bytes came", store.ErrUnreachable)
	}
	if same, known := it.same(a.Body); known && !same {
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
		return nil, fmt.Errorf("listing objects in OneDrive: %w", err)
	}
	return list, nil
}

// directory is a folder that is to be read.
type directory struct {
	name string // "" or ending in a slash
	url  string // of its children
	more bool   // this is not its first page
}

func (s *Store) list(ctx context.Context, prefix string) ([]store.Object, error) {
	dir := "" // the deepest folder that all names with the prefix are in
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir = prefix[:i+1]
		if store.CheckName(prefix[:i]) != nil {
			return nil, ctx.Err() // No object has such a name.
		}
	}
	var list []store.Object
	left := maxPages
	todo := []directory{{name: dir, url: s.at(dir, "/children") + "?$top=" + strconv.Itoa(pageSize)}}
	for len(todo) > 0 {
		now := todo[:min(atOnce, len(todo))]
		todo = todo[len(now):]
		pages := make([]page, len(now))
		errs := make([]error, len(now))
		var wg sync.WaitGroup
		for i, d := range now {
			wg.Go(func() { pages[i], errs[i] = s.children(ctx, d) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return nil, errs[slices.IndexFunc(errs, func(err error) bool { return err != nil })]
		}
		for i, p := range pages {
			d := now[i]
			if p.Next != "" {
				todo = append(todo, directory{d.name, p.Next, true})
			}
			for _, it := range p.Value {
				part, ok := escape.Read(it.Name, rule)
				name := d.name + part
				if !ok || store.CheckName(name) != nil {
					continue
				}
				// Its childCount is not relied upon: a count that lags would hide what is there.
				if it.Folder != nil && (strings.HasPrefix(name+"/", prefix) || strings.HasPrefix(prefix, name+"/")) {
					todo = append(todo, directory{name: name + "/", url: s.byID(it.ID, "/children") + "?$top=" + strconv.Itoa(pageSize)})
				}
				if it.File == nil || !strings.HasPrefix(name, prefix) {
					continue
				}
				o := store.Object{Name: name, Size: it.Size, ID: it.ID + " " + it.CTag}
				if it.Modified != nil {
					o.Modified = *it.Modified
				}
				list = append(list, o)
			}
		}
		if left -= len(now); left < 0 || len(list) > maxEntries || len(todo) > maxEntries {
			return nil, errors.New("too many files")
		}
	}
	return list, nil
}

// page is a page of a folder.
type page struct {
	Value []item `json:"value"`
	Next  string `json:"@odata.nextLink"`
}

func (s *Store) children(ctx context.Context, d directory) (page, error) {
	var p page
	err := ask(ctx, s.web, web.Request{Method: http.MethodGet, URL: d.url}, &p)
	switch {
	case isNotFound(err) && d.more:
		// The page is gone, or the folder: what the first pages told is no whole list.
		return page{}, errors.New("the next page is gone")
	case isNotFound(err):
		return page{}, nil // It is gone, with all that was in it.
	case err != nil:
		return page{}, err
	case p.Value == nil:
		return page{}, errForeign
	case p.Next != "" && !s.isOurs(p.Next, true):
		return page{}, errors.New("the next page is said to be elsewhere")
	}
	return p, nil
}

// Delete implements [store.Store]. What was changed since it was listed stays.
func (s *Store) Delete(ctx context.Context, o store.Object) error {
	if err := s.delete(ctx, o); err != nil {
		return fmt.Errorf("deleting object in OneDrive: %w", err)
	}
	return nil
}

func (s *Store) delete(ctx context.Context, o store.Object) error {
	id, tag, ok := strings.Cut(o.ID, " ")
	if !ok || id == "" {
		// Whoever knows only a name must not delete a folder with all that is in it.
		if err := store.CheckName(o.Name); err != nil {
			return err
		}
		it, err := s.look(ctx, o.Name)
		if err != nil || it == nil || it.File == nil {
			return err
		}
		id, tag = it.ID, it.CTag
	}
	r := web.Request{Method: http.MethodDelete, URL: s.byID(id, "")}
	if tag != "" {
		r.Header = http.Header{"If-Match": {tag}}
	}
	a, err := s.web.Do(ctx, r)
	if err == nil {
		err = check(a)
	}
	switch {
	case isNotFound(err), refused(err).status == http.StatusPreconditionFailed:
		return nil // Other bytes are there by now: what was listed is gone.
	case errors.Is(err, store.ErrTooLarge), err == nil && a.Status != http.StatusNoContent:
		return errForeign
	}
	return err
}
