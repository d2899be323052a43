// Package gdrive keeps a store in a user's Google Drive.
//
//	s, err := gdrive.New(gdrive.Config{Tokens: signedIn, Owner: permissionID})
//
// Objects are files in My Drive, in folders that a person can see; or, if the user
// wants that, in the hidden folder of the program's own data, which Google deletes when
// the user disconnects the program. The scopes asked for show the program only the
// files that it made itself. A person may move the backup's folder to another place in
// Drive: it is found there too.
//
// In Drive files have ids, and names are labels: several files and several folders of
// one name are normal, as after two devices made them at the same time. Folders of one
// path count as one, what is in the trash is not there, and deleting goes by the id. An
// object that is sent again after a fault keeps the id that it was first sent with, so
// that there is no second file.
//
// What a call costs, in requests, once the folders are known to the process:
//
//	Put     2: a search for the name, and the upload. Over 5 MB one more, and one for
//	        each 8 MiB; after a fault one that asks how much is there.
//	Get     2: a search for the name, and the download.
//	List    1 for each 1000 files and folders below the prefix, or of all that the
//	        program made in the account if there are many folders below it.
//	Delete  1.
//
// A process asks besides, once: whose account it is; for new ids, one request for 100 of
// them; for each folder that it puts into a search, and a create if there is none; for
// each folder that it only reads from a look at it, unless a listing showed it. While a
// search does not show yet what was put, a look at each such object. An object that is
// not there costs no more than one that is.
//
// A folder that a person gives another name is another folder; a process that runs at
// that moment notices when it lists the folder itself.
//
// It was written from Google's documentation and tried with a fake, which Google's own
// library and rclone understand. It was never run against Google Drive itself by those
// who wrote it; the tests with the build tag live do that for whoever has an account.
package gdrive

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/store"
)

// Where Google's users sign in, and where programs get tokens.
const (
	AuthURL  = "https://accounts.google.com/o/oauth2/v2/auth"
	TokenURL = "https://oauth2.googleapis.com/token"
	Endpoint = "https://www.googleapis.com"
)

// Scopes returns what a sign-in must ask the user for.
func Scopes(appData bool) []string {
	if appData {
		return []string{"https://www.googleapis.com/auth/drive.appdata"}
	}
	return []string{"https://www.googleapis.com/auth/drive.file"}
}

// Account asks whose account the client's tokens are of. The id never changes; name is
// for people.
func Account(ctx context.Context, c *web.Client) (id, name string, err error) {
	return AccountAt(ctx, c, Endpoint)
}

// AccountAt is Account for a service that is not Google's own.
func AccountAt(ctx context.Context, c *web.Client, endpoint string) (id, name string, err error) {
	var about struct {
		User struct {
			PermissionID string `json:"permissionId"`
			Email        string `json:"emailAddress"`
			Name         string `json:"displayName"`
		} `json:"user"`
	}
	a, err := c.Do(ctx, web.Request{Method: http.MethodGet, URL: endpoint + "/drive/v3/about?fields=user(permissionId,emailAddress,displayName)"})
	if err == nil {
		err = decode(a, &about)
	}
	if err == nil && about.User.PermissionID == "" {
		err = errStrange
	}
	if err != nil {
		return "", "", fmt.Errorf("asking Google whose account it is: %w", err)
	}
	return about.User.PermissionID, cmp.Or(about.User.Email, about.User.Name), nil
}

// Config says where a store is.
type Config struct {
	// Tokens are of a sign-in with Scopes(AppData).
	Tokens web.Tokens
	// Owner is the id of the account, as Account returned it when the user signed in.
	// Another account is store.ErrWrongAccount. "" means that it is not compared.
	Owner string
	// Folder is the path of a folder in which the backups' folders are, such as
	// "Backups/Bitcoin". "" means My Drive itself.
	Folder string
	// AppData keeps everything in the hidden folder of the program's own data.
	AppData bool
	// Transport carries requests; nil means web.NewTransport(nil).
	Transport http.RoundTripper
	// Endpoint is where the service is; "" means Google's own.
	Endpoint string
}

// Store is a store.Store in Google Drive.
type Store struct {
	endpoint string
	folder   string // of Config
	top      string // the alias of the folder that everything is in
	space    string
	c        *web.Client

	small, chunk int // the constants, but for tests

	making chan struct{} // holds an element while somebody makes a folder

	mu      sync.Mutex
	names   map[string]*nameLock // of names that are being put; guarded by mu
	ids     []string             // that Google gave for new files; guarded by mu
	rootID  string               // what top stands for; guarded by mu
	rooted  bool                 // whether rootID is known; it stays "" where the scope hides it; guarded by mu
	folders map[string]node      // by id; guarded by mu
	homes   map[string]home      // where new files go, by path; guarded by mu
	tries   memory[[]try]        // what was sent lately, by name; guarded by mu
	gone    memory[bool]         // ids that were deleted lately: listings may still show them; guarded by mu
}

var _ store.Store = (*Store)(nil)

// node is a folder as it was last seen.
type node struct {
	name, parent string
	top          bool // what is in it has no folder: it is the root, or hidden from us
}

// home is a folder that new files of a path go to.
type home struct {
	id   string
	sure bool // else it is looked at before it is used
}

// try is a file that was sent, and may be there.
type try struct {
	id   string
	sums sums
	done bool // Google said so
}

// sums tell bytes apart.
type sums struct {
	size        int64
	md5, sha256 string
}

func sumsOf(data []byte) sums {
	m, s := md5.Sum(data), sha256.Sum256(data)
	return sums{int64(len(data)), hex.EncodeToString(m[:]), hex.EncodeToString(s[:])}
}

// file is what Google tells of a file or folder.
type file struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Type     string    `json:"mimeType"`
	Parents  []string  `json:"parents"`
	Size     *int64    `json:"size,string"`
	MD5      string    `json:"md5Checksum"`
	SHA256   string    `json:"sha256Checksum"`
	Created  time.Time `json:"createdTime"`
	Modified time.Time `json:"modifiedTime"`
	Trashed  bool      `json:"trashed"`
	Owned    *bool     `json:"ownedByMe"`
}

const (
	fileFields = "id,name,mimeType,parents,size,md5Checksum,sha256Checksum,createdTime,modifiedTime,trashed,ownedByMe"
	folderType = "application/vnd.google-apps.folder"
	googleType = "application/vnd.google-apps." // documents and the like, which have no bytes
)

// sums reports false if Google did not tell them.
func (f file) sums() (sums, bool) {
	if f.Size == nil {
		return sums{}, false
	}
	return sums{*f.Size, f.MD5, f.SHA256}, f.MD5 != "" || f.SHA256 != ""
}

// same reports whether a file has these bytes, as far as Google tells.
func (f file) same(want sums) bool {
	has, ok := f.sums()
	return ok && has.size == want.size && (has.sha256 == "" || has.sha256 == want.sha256) && (has.md5 == "" || has.md5 == want.md5)
}

// isObject reports whether a file can be an object: not a folder or document, and the
// user's own.
func (f file) isObject() bool {
	return f.ID != "" && !f.Trashed && f.Size != nil && !strings.HasPrefix(f.Type, googleType) && f.own()
}

func (f file) own() bool { return f.Owned == nil || *f.Owned }

const (
	remembered = 4096 // names and ids at most that a process remembers
	idsAtOnce  = 100
	maxHops    = 64 // folders in each other at most
	restarts   = 2  // of a listing whose pages Google forgot
	maxParents = 40 // folders at most that one search names
	maxPages   = 1 << 12
	maxEntries = 1 << 20 // files and folders that one search finds
)

var (
	errStrange = fmt.Errorf("%w: the answer is not Google's; is there a sign-in page of the network in between", store.ErrUnreachable)
	errChanged = fmt.Errorf("%w: the bytes that came are not those that Google tells of", store.ErrUnreachable)
	errUnsure  = fmt.Errorf("%w: Google does not show yet what became of an upload", store.ErrUnreachable)
	errPages   = fmt.Errorf("%w: Google did not go on with it", store.ErrListing)
	errParent  = errors.New("the folder went away")
)

// New returns the store. It makes no request.
func New(cfg Config) (*Store, error) {
	if cfg.Tokens == nil {
		return nil, errors.New("opening Google Drive: no tokens")
	}
	if cfg.Folder != "" {
		if err := store.CheckName(cfg.Folder); err != nil {
			return nil, fmt.Errorf("opening Google Drive: folder: %w", err)
		}
	}
	s := &Store{
		endpoint: cmp.Or(cfg.Endpoint, Endpoint), folder: cfg.Folder, top: "root", space: "drive", making: make(chan struct{}, 1), small: small, chunk: chunk,
		names: map[string]*nameLock{}, folders: map[string]node{}, homes: map[string]home{},
	}
	if cfg.AppData {
		s.top, s.space = "appDataFolder", "appDataFolder"
	}
	s.c = web.New(web.Config{
		Transport: cfg.Transport, Tokens: cfg.Tokens, Owner: cfg.Owner, Later: isLater,
		Account: func(ctx context.Context, c *web.Client) (string, error) {
			id, _, err := AccountAt(ctx, c, s.endpoint)
			return id, err
		},
	})
	return s, nil
}

// ---- what Google says

// reason returns Google's word for what went wrong, "" if the answer is not Google's.
func reason(a *web.Answer) string {
	var body struct {
		Error struct {
			Errors []struct {
				Reason string `json:"reason"`
			} `json:"errors"`
		} `json:"error"`
	}
	if json.Unmarshal(a.Body, &body) != nil || len(body.Error.Errors) == 0 {
		return ""
	}
	return body.Error.Errors[0].Reason
}

// isLater reports whether Google wants a request later.
func isLater(a *web.Answer) bool {
	if a.Status != http.StatusForbidden {
		return false
	}
	switch reason(a) {
	case "rateLimitExceeded", "userRateLimitExceeded":
		return true
	}
	return false
}

// refusal is an answer that says no.
type refusal struct {
	status int
	reason string
	err    error // the sentinel, if there is one
}

func (r *refusal) Error() string {
	if r.err != nil {
		return r.err.Error()
	}
	return fmt.Sprintf("Google refuses it (status %d)", r.status)
}

func (r *refusal) Unwrap() error { return r.err }

// decode reads an answer into v, nil if there is nothing to read.
func decode(a *web.Answer, v any) error {
	switch {
	case v == nil && a.Status == http.StatusNoContent:
		return nil
	case v != nil && (a.Status == http.StatusOK || a.Status == http.StatusCreated):
		if json.Unmarshal(a.Body, v) != nil {
			return errStrange
		}
		return nil
	case a.Status < 400:
		return errStrange
	}
	r := &refusal{status: a.Status, reason: reason(a)}
	if r.reason == "" {
		return errStrange
	}
	switch r.reason {
	case "storageQuotaExceeded", "quotaExceeded", "activeItemCreationLimitExceeded", "numChildrenInNonRootLimitExceeded":
		r.err = store.ErrFull
	case "insufficientPermissions", "insufficientScopes", "authError":
		// The user left out a permission when signing in.
		r.err = fmt.Errorf("%w: the permission for Google Drive is missing", store.ErrSignIn)
	case "dailyLimitExceeded":
		r.err = fmt.Errorf("%w: this program may make no more requests today", store.ErrUnreachable)
	case "accessNotConfigured":
		r.err = errors.New("the client id may not use Google Drive: its owner must enable the Drive API")
	case "domainPolicy":
		r.err = errors.New("the administrator of this account does not allow programs to use Google Drive")
	case "uploadTooLarge":
		r.err = store.ErrTooLarge
	}
	return r
}

// refused reports whether err is an answer of this status.
func refused(err error, status int) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && r.status == status
}

// call makes a request and reads the answer into v.
func (s *Store) call(ctx context.Context, method, path string, q url.Values, v any) error {
	u := s.endpoint + path
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	a, err := s.c.Do(ctx, web.Request{Method: method, URL: u, Limit: 8 << 20})
	if errors.Is(err, store.ErrTooLarge) {
		return errStrange
	}
	if err != nil {
		return err
	}
	return decode(a, v)
}

// look asks for a file by its id. Unlike searches this is never behind.
func (s *Store) look(ctx context.Context, id string) (file, error) {
	var f file
	err := s.call(ctx, http.MethodGet, "/drive/v3/files/"+url.PathEscape(id), url.Values{"fields": {fileFields}}, &f)
	if err == nil && f.ID == "" {
		err = errStrange
	}
	return f, err
}

// search returns all that a query finds.
func (s *Store) search(ctx context.Context, query string) ([]file, error) {
	var list []file
	token, begun := "", 0
	for page := 0; ; page++ {
		q := url.Values{
			"q": {query}, "spaces": {s.space}, "pageSize": {"1000"}, "fields": {"incompleteSearch,nextPageToken,files(" + fileFields + ")"},
		}
		if token != "" {
			q.Set("pageToken", token)
		}
		var answer struct {
			Files      *[]file `json:"files"`
			Next       string  `json:"nextPageToken"`
			Incomplete bool    `json:"incompleteSearch"`
		}
		err := s.call(ctx, http.MethodGet, "/drive/v3/files", q, &answer)
		if refused(err, http.StatusBadRequest) && token != "" {
			// Google forgot where it was. From the start, then.
			if begun++; begun > restarts {
				return nil, errPages
			}
			list, token = nil, ""
			continue
		}
		switch {
		case err != nil:
			return nil, err
		case answer.Files == nil:
			return nil, errStrange
		case answer.Incomplete, answer.Next != "" && answer.Next == token:
			return nil, errPages
		}
		list = append(list, *answer.Files...)
		if token = answer.Next; token == "" {
			break
		}
		if page > maxPages || len(list) > maxEntries {
			return nil, errPages
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(list, func(f file) bool { _, gone := s.gone.get(f.ID); return gone }), nil
}

// quote writes a string of the query language.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// ---- folders

// path returns the path of what is in the folder with this id, and whether it has one.
func (s *Store) path(ctx context.Context, id string) (path string, ok bool, err error) {
	var parts []string
	for range maxHops {
		s.mu.Lock()
		n, known := s.folders[id]
		s.mu.Unlock()
		if !known {
			if n, known, err = s.meet(ctx, id); err != nil || !known {
				return "", false, err
			}
		}
		if n.top {
			slices.Reverse(parts)
			return strings.Join(parts, "/"), true, nil
		}
		if strings.Contains(n.name, "/") {
			return "", false, nil
		}
		parts = append(parts, n.name)
		if id = n.parent; id == "" {
			slices.Reverse(parts)
			return strings.Join(parts, "/"), true, nil
		}
	}
	return "", false, nil
}

// meet looks at a folder that no search showed. It reports false for one in the trash.
func (s *Store) meet(ctx context.Context, id string) (node, bool, error) {
	f, err := s.look(ctx, id)
	var n node
	switch {
	case refused(err, http.StatusNotFound):
		// The root, or a folder of the user's own: what is in it begins a path.
		n = node{top: true}
	case err != nil:
		return node{}, false, err
	case f.Trashed || f.Type != folderType:
		return node{}, false, nil
	default:
		if n = nodeOf(f); n.parent == "" {
			root, err := s.root(ctx)
			if err != nil {
				return node{}, false, err
			}
			n.top = id == root
		}
	}
	s.mu.Lock()
	s.folders[id] = n
	s.mu.Unlock()
	return n, true, nil
}

func nodeOf(f file) node {
	n := node{name: f.Name}
	if len(f.Parents) > 0 {
		n.parent = f.Parents[0]
	}
	return n
}

// root returns the id of the folder that everything is in, "" if it is hidden.
func (s *Store) root(ctx context.Context) (string, error) {
	s.mu.Lock()
	id, known := s.rootID, s.rooted
	s.mu.Unlock()
	if known {
		return id, nil
	}
	f, err := s.look(ctx, s.top)
	if err != nil && !refused(err, http.StatusNotFound) {
		return "", err
	}
	s.mu.Lock()
	s.rootID, s.rooted = f.ID, true
	s.mu.Unlock()
	return f.ID, nil
}

// pathOf returns the full path of a file or folder, and whether it has one.
func (s *Store) pathOf(ctx context.Context, f file) (string, bool, error) {
	if strings.Contains(f.Name, "/") {
		return "", false, nil
	}
	parent := nodeOf(f).parent
	if parent == "" {
		return f.Name, true, nil
	}
	dir, ok, err := s.path(ctx, parent)
	if err != nil || !ok {
		return "", false, err
	}
	return join(dir, f.Name), true, nil
}

func join(dir, name string) string {
	if dir == "" || name == "" {
		return dir + name
	}
	return dir + "/" + name
}

// split returns what is before the last slash of a path, and what is behind it.
func split(path string) (dir, leaf string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

// learn keeps what searches show of folders.
func (s *Store) learn(list []file) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range list {
		if f.Type == folderType && f.own() {
			s.folders[f.ID] = nodeOf(f)
		}
	}
}

// at returns those of a list that stand at a path.
func (s *Store) at(ctx context.Context, list []file, path string) ([]file, error) {
	var found []file
	_, leaf := split(path)
	for _, f := range list {
		if f.Name != leaf { // Searches do not mind the case.
			continue
		}
		p, ok, err := s.pathOf(ctx, f)
		if err != nil {
			return nil, err
		}
		if ok && p == path {
			found = append(found, f)
		}
	}
	return found, nil
}

// home returns the id of a folder for new files of a path, and makes it if need be.
func (s *Store) home(ctx context.Context, path string) (string, error) {
	if path == "" {
		return s.top, nil
	}
	if h, ok := s.homeAt(path); ok && h.sure {
		return h.id, nil
	}
	select {
	case s.making <- struct{}{}:
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	defer func() { <-s.making }()
	return s.makeHome(ctx, path)
}

func (s *Store) homeAt(path string) (home, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.homes[path]
	return h, ok
}

func (s *Store) setHome(path string, h home) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.homes[path] = h
}

// makeHome is home for those who hold making.
func (s *Store) makeHome(ctx context.Context, path string) (string, error) {
	if path == "" {
		return s.top, nil
	}
	h, known := s.homeAt(path)
	if known && h.sure {
		return h.id, nil
	}
	dir, leaf := split(path)
	found, err := s.search(ctx, "name = "+quote(leaf)+" and mimeType = '"+folderType+"' and trashed = false")
	if err != nil {
		return "", err
	}
	s.learn(found)
	if found, err = s.at(ctx, found, path); err != nil {
		return "", err
	}
	found = slices.DeleteFunc(found, func(f file) bool { return f.Type != folderType || !f.own() })
	// Of several, all take the oldest.
	slices.SortFunc(found, func(a, b file) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
	})
	for _, f := range found {
		if known { // The search showed one before that was no good.
			if f, err = s.look(ctx, f.ID); refused(err, http.StatusNotFound) || err == nil && f.Trashed {
				continue
			} else if err != nil {
				return "", err
			}
		}
		s.setHome(path, home{f.ID, true})
		return f.ID, nil
	}
	parent, err := s.makeHome(ctx, dir)
	if err != nil {
		return "", err
	}
	if known { // Made, or perhaps made, and the search does not know it yet.
		f, err := s.look(ctx, h.id)
		switch {
		case err == nil && !f.Trashed && f.Type == folderType && (nodeOf(f).parent == parent || dir == ""):
			s.learn([]file{f})
			s.setHome(path, home{f.ID, true})
			return f.ID, nil
		case err == nil:
			known = false
		case !refused(err, http.StatusNotFound):
			return "", err
		}
	}
	if !known {
		if h.id, err = s.newID(ctx); err != nil {
			return "", err
		}
	}
	s.setHome(path, home{h.id, false})
	f, err := s.makeFolder(ctx, h.id, leaf, parent)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := nodeOf(f)
	if s.folders[f.ID] = n; n.parent != "" && dir == "" {
		s.folders[n.parent] = node{top: true}
	}
	s.homes[path] = home{f.ID, true}
	return f.ID, nil
}

// makeFolder makes a folder with an id that Google gave for it.
func (s *Store) makeFolder(ctx context.Context, id, name, parent string) (file, error) {
	body, err := json.Marshal(map[string]any{"id": id, "name": name, "mimeType": folderType, "parents": []string{parent}})
	if err != nil {
		return file{}, err
	}
	a, err := s.c.Do(ctx, web.Request{
		Method: http.MethodPost, URL: s.endpoint + "/drive/v3/files?" + s.options(nil).Encode(), Body: body,
		Header: http.Header{"Content-Type": {"application/json; charset=UTF-8"}},
	})
	if err != nil {
		return file{}, err
	}
	var f file
	err = decode(a, &f)
	if refused(err, http.StatusConflict) { // An earlier attempt arrived.
		f, err = s.look(ctx, id)
		if refused(err, http.StatusNotFound) {
			return file{}, errUnsure
		}
	}
	switch {
	case refused(err, http.StatusNotFound):
		return file{}, errParent
	case err != nil:
		return file{}, err
	case f.ID != id || f.Type != folderType:
		return file{}, errStrange
	case f.Trashed:
		return file{}, errParent
	}
	return f, nil
}

// forget makes the folders of a path be looked for again.
func (s *Store) forget(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; path != ""; path, _ = split(path) {
		if h, ok := s.homes[path]; ok {
			delete(s.folders, h.id)
			s.homes[path] = home{id: h.id}
		}
	}
}

// options are what is asked for with every new file.
func (s *Store) options(more url.Values) url.Values {
	q := url.Values{"fields": {fileFields}}
	if s.space == "drive" {
		// A company may show new files to everybody in it unless told otherwise.
		q.Set("ignoreDefaultVisibility", "true")
	}
	for k, v := range more {
		q[k] = v
	}
	return q
}

// newID returns an id for a new file.
func (s *Store) newID(ctx context.Context) (string, error) {
	take := func() string {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.ids) == 0 {
			return ""
		}
		id := s.ids[0]
		s.ids = s.ids[1:]
		return id
	}
	if id := take(); id != "" {
		return id, nil
	}
	var given struct {
		IDs []string `json:"ids"`
	}
	q := url.Values{"count": {strconv.Itoa(idsAtOnce)}, "space": {s.space}, "fields": {"ids"}}
	if err := s.call(ctx, http.MethodGet, "/drive/v3/files/generateIds", q, &given); err != nil {
		return "", err
	}
	if len(given.IDs) == 0 || slices.Contains(given.IDs, "") {
		return "", errStrange
	}
	s.mu.Lock()
	s.ids = append(s.ids, given.IDs[1:]...)
	s.mu.Unlock()
	return given.IDs[0], nil
}

// ---- the store

// find returns the objects of a name, the oldest first.
func (s *Store) find(ctx context.Context, name string) ([]file, error) {
	path := join(s.folder, name)
	_, leaf := split(path)
	list, err := s.search(ctx, "name = "+quote(leaf)+" and trashed = false")
	if err != nil {
		return nil, err
	}
	s.learn(list)
	list = slices.DeleteFunc(list, func(f file) bool { return !f.isObject() })
	if list, err = s.at(ctx, list, path); err != nil {
		return nil, err
	}
	s.mu.Lock()
	tries, _ := s.tries.get(name)
	tries = slices.Clone(tries)
	s.mu.Unlock()
	for _, t := range tries {
		if slices.ContainsFunc(list, func(f file) bool { return f.ID == t.id }) {
			continue
		}
		// What was sent lately may be unknown to the search.
		f, err := s.look(ctx, t.id)
		switch {
		case refused(err, http.StatusNotFound):
			if t.done {
				s.untry(name, t.id)
			}
		case err != nil:
			return nil, err
		case f.Trashed:
			s.untry(name, t.id)
			dir, _ := split(path)
			s.forget(dir)
		case f.isObject():
			there, err := s.at(ctx, []file{f}, path)
			if err != nil {
				return nil, err
			}
			list = append(list, there...)
		}
	}
	slices.SortFunc(list, func(a, b file) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
	})
	return list, nil
}

// remember keeps that a file is being sent, or was.
func (s *Store) remember(name string, t try) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, _ := s.tries.get(name)
	old = slices.DeleteFunc(slices.Clone(old), func(o try) bool { return o.id == t.id })
	s.tries.set(name, append(old, t))
}

func (s *Store) untry(name, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, _ := s.tries.get(name)
	if rest := slices.DeleteFunc(slices.Clone(old), func(o try) bool { return o.id == id }); len(rest) > 0 {
		s.tries.set(name, rest)
	} else {
		s.tries.remove(name)
	}
}

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	err := store.CheckPut(name, data)
	if err == nil {
		err = s.put(ctx, name, data)
	}
	if err != nil {
		return fmt.Errorf("putting object: %w", err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, name string, data []byte) error {
	unlock, err := s.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	want := sumsOf(data)
	dir, _ := split(join(s.folder, name))
	for range 2 {
		there, err := s.find(ctx, name)
		if err != nil {
			return err
		}
		taken := false
		for _, f := range there {
			// The search can be behind: what it shows may be gone.
			f, err := s.look(ctx, f.ID)
			switch {
			case refused(err, http.StatusNotFound) || err == nil && f.Trashed:
				continue
			case err != nil:
				return err
			case f.same(want):
				return nil
			}
			taken = true
		}
		if taken {
			return store.ErrExist
		}
		var parent string
		if parent, err = s.home(ctx, dir); err == nil {
			err = s.create(ctx, name, parent, data, want)
		}
		if !errors.Is(err, errParent) {
			return err
		}
		s.forget(dir)
	}
	return fmt.Errorf("%w: the folder in Google Drive went away", store.ErrUnreachable)
}

// create makes the file of an object.
func (s *Store) create(ctx context.Context, name, parent string, data []byte, want sums) error {
	t := try{sums: want}
	s.mu.Lock()
	tries, _ := s.tries.get(name)
	for _, old := range tries {
		if !old.done && old.sums == want {
			t = old // An attempt before may still arrive.
		}
	}
	s.mu.Unlock()
	if t.id == "" {
		var err error
		if t.id, err = s.newID(ctx); err != nil {
			return err
		}
	}
	s.remember(name, t)
	_, leaf := split(name)
	meta, err := json.Marshal(map[string]any{"id": t.id, "name": leaf, "parents": []string{parent}, "mimeType": mimeType(leaf)})
	if err != nil {
		return err
	}
	f, err := s.upload(ctx, meta, data)
	if refused(err, http.StatusConflict) { // An earlier attempt arrived.
		if f, err = s.look(ctx, t.id); refused(err, http.StatusNotFound) {
			s.untry(name, t.id) // It was deleted since; the id is used up.
			return errUnsure
		}
	}
	switch {
	case refused(err, http.StatusNotFound):
		return errParent
	case err != nil:
		if r, ok := errors.AsType[*refusal](err); ok && r.reason == "parentNotAFolder" {
			return errParent
		}
		return err
	case f.ID != t.id:
		return errStrange
	case f.Trashed:
		// So is its folder. There it would be lost with it.
		if err := s.remove(ctx, f.ID); err != nil {
			return err
		}
		s.untry(name, f.ID)
		return errParent
	case !f.same(want):
		return errUnsure
	}
	t.done = true
	s.remember(name, t)
	return nil
}

// mimeType lets a person read in the browser what is for people.
func mimeType(leaf string) string {
	switch {
	case strings.HasSuffix(leaf, ".txt"):
		return "text/plain"
	case strings.HasSuffix(leaf, ".json"):
		return "application/json"
	}
	return "application/octet-stream"
}

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	err := store.CheckName(name)
	var data []byte
	if err == nil {
		data, err = s.get(ctx, name, want, limit)
	}
	if err != nil {
		return nil, fmt.Errorf("getting object: %w", err)
	}
	return data, nil
}

func (s *Store) get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	list, err := s.find(ctx, name)
	if err != nil {
		return nil, err
	}
	result := store.ErrNotExist
	for _, f := range list {
		switch {
		case *f.Size > limit:
			result = store.ErrTooLarge
			continue
		case want != "" && f.SHA256 != "" && !strings.HasPrefix(f.SHA256, string(want)):
			if result == store.ErrNotExist {
				result = store.ErrDamaged
			}
			continue
		}
		data, err := s.download(ctx, f)
		switch {
		case refused(err, http.StatusNotFound):
			continue // Gone, which the search did not know yet.
		case err != nil:
			return nil, err
		case want.Matches(data):
			return data, nil
		case result == store.ErrNotExist:
			result = store.ErrDamaged
		}
	}
	return nil, result
}

// download returns the bytes of a file as Google tells of them.
func (s *Store) download(ctx context.Context, f file) ([]byte, error) {
	a, err := s.c.Do(ctx, web.Request{
		Method: http.MethodGet, URL: s.endpoint + "/drive/v3/files/" + url.PathEscape(f.ID) + "?alt=media", Limit: max(*f.Size, 64<<10), // an error has room
	})
	switch {
	case errors.Is(err, store.ErrTooLarge):
		return nil, errChanged
	case err != nil:
		return nil, err
	case a.Status != http.StatusOK:
		if err := decode(a, nil); err != nil {
			return nil, err
		}
		return nil, errStrange
	case int64(len(a.Body)) != *f.Size:
		return nil, errChanged
	}
	if _, ok := f.sums(); ok && !f.same(sumsOf(a.Body)) {
		return nil, errChanged
	}
	return bytes.Clone(a.Body), nil
}

// List implements [store.Store].
func (s *Store) List(ctx context.Context, prefix string) ([]store.Object, error) {
	list, err := s.list(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("listing objects: %w", err)
	}
	return list, nil
}

func (s *Store) list(ctx context.Context, prefix string) ([]store.Object, error) {
	dir := s.folder
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir = join(dir, prefix[:i])
	}
	files, ok, err := s.below(ctx, dir)
	if err == nil && !ok {
		if files, err = s.search(ctx, "trashed = false"); err == nil {
			s.learn(files)
			s.doubt(files)
		}
	}
	if err != nil {
		return nil, err
	}
	var list []store.Object
	for _, f := range files {
		if !f.isObject() {
			continue
		}
		path, ok, err := s.pathOf(ctx, f)
		if err != nil {
			return nil, err
		}
		name := path
		if s.folder != "" {
			var below bool
			if name, below = strings.CutPrefix(path, s.folder+"/"); !below {
				continue
			}
		}
		if ok && strings.HasPrefix(name, prefix) && store.CheckName(name) == nil {
			list = append(list, store.Object{Name: name, Size: *f.Size, Modified: f.Modified, ID: f.ID})
		}
	}
	return list, nil
}

// below returns the files in the folders of a path and in those below them. It reports
// false where listing everything is cheaper: if no such folder is known, or very many.
func (s *Store) below(ctx context.Context, dir string) ([]file, bool, error) {
	here, under := s.known(dir)
	if dir == "" || len(here) == 0 {
		return nil, false, nil
	}
	_, leaf := split(dir)
	// Others may have made a folder of this name.
	clauses := []string{"mimeType = '" + folderType + "' and name = " + quote(leaf)}
	found := map[string]file{}
	asked := map[string]bool{}
	for ask := slices.Concat(here, under); len(ask) > 0; {
		if len(asked)+len(ask) > maxParents {
			return nil, false, nil
		}
		for _, id := range ask {
			asked[id] = true
			clauses = append(clauses, quote(id)+" in parents")
		}
		list, err := s.search(ctx, "trashed = false and ("+strings.Join(clauses, " or ")+")")
		if err != nil {
			return nil, false, err
		}
		s.learn(list)
		for _, f := range list {
			found[f.ID] = f
		}
		for _, id := range here {
			if _, ok := found[id]; ok {
				continue
			}
			// Very new, or gone, or it has another name now.
			f, err := s.look(ctx, id)
			if err != nil && !refused(err, http.StatusNotFound) {
				return nil, false, err
			}
			if err == nil && !f.Trashed {
				s.learn([]file{f})
				continue
			}
			s.mu.Lock()
			delete(s.folders, id)
			s.mu.Unlock()
		}
		here, clauses, ask = nil, nil, nil
		for _, f := range list {
			if f.Type != folderType || asked[f.ID] || !f.own() {
				continue
			}
			path, ok, err := s.pathOf(ctx, f)
			if err != nil {
				return nil, false, err
			}
			if ok && (path == dir || strings.HasPrefix(path, dir+"/")) {
				ask = append(ask, f.ID)
			}
		}
	}
	return slices.Collect(maps.Values(found)), true, nil
}

// known returns the ids of folders that were seen at a path, and below it.
func (s *Store) known(dir string) (here, under []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, n := range s.folders {
		path := n.name
		for hops := 0; !n.top && n.parent != "" && hops < maxHops; hops++ {
			up, ok := s.folders[n.parent]
			if !ok {
				path = ""
				break
			}
			if !up.top {
				path = join(up.name, path)
			}
			n = up
		}
		switch {
		case s.folders[id].top:
		case path == dir:
			here = append(here, id)
		case strings.HasPrefix(path, dir+"/"):
			under = append(under, id)
		}
	}
	return here, under
}

// doubt makes folders for new files be looked at again that a whole listing does not
// show: they are very new, or went to the trash.
func (s *Store) doubt(list []file) {
	shown := map[string]bool{}
	for _, f := range list {
		shown[f.ID] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for path, h := range s.homes {
		if !shown[h.id] {
			s.homes[path] = home{id: h.id}
		}
	}
}

// Delete implements [store.Store]. It goes by the object's ID alone, and not by way of
// the trash.
func (s *Store) Delete(ctx context.Context, o store.Object) error {
	err := errors.New("no such id")
	if o.ID != "" {
		err = s.remove(ctx, o.ID)
	}
	if err != nil {
		return fmt.Errorf("deleting object: %w", err)
	}
	s.untry(o.Name, o.ID)
	return nil
}

func (s *Store) remove(ctx context.Context, id string) error {
	err := s.call(ctx, http.MethodDelete, "/drive/v3/files/"+url.PathEscape(id), nil, nil)
	if err != nil && !refused(err, http.StatusNotFound) {
		return err
	}
	s.mu.Lock()
	s.gone.set(id, true)
	s.mu.Unlock()
	return nil
}

// ---- what a process remembers

// nameLock is held by whoever puts a name.
type nameLock struct {
	held  chan struct{}
	users int // who hold it or wait for it
}

// lock waits until nobody else of this process puts the name.
func (s *Store) lock(ctx context.Context, name string) (unlock func(), err error) {
	s.mu.Lock()
	l := s.names[name]
	if l == nil {
		l = &nameLock{held: make(chan struct{}, 1)}
		s.names[name] = l
	}
	l.users++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(s.names, name)
		}
	}
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

// memory is a map that forgets the oldest.
type memory[V any] struct {
	m     map[string]V
	order []string
}

func (m *memory[V]) get(key string) (V, bool) {
	v, ok := m.m[key]
	return v, ok
}

func (m *memory[V]) set(key string, v V) {
	if m.m == nil {
		m.m = map[string]V{}
	}
	if _, ok := m.m[key]; !ok {
		m.order = append(m.order, key)
	}
	m.m[key] = v
	for len(m.m) > remembered || len(m.order) > 2*remembered {
		delete(m.m, m.order[0])
		m.order = m.order[1:]
	}
}

func (m *memory[V]) remove(key string) { delete(m.m, key) }
