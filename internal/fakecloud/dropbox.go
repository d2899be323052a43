package fakecloud

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/unicode/norm"
)

// dropboxFiles is what an account has in the app's folder in Dropbox.
type dropboxFiles struct {
	entries  map[string]*dropboxEntry // by path in lower case
	sessions map[string]*dropboxSession
	cursors  map[string]*dropboxCursor
	made     int // entries and revisions until now
}

// dropboxEntry is a file or a folder. Dropbox tells names apart without case, and keeps
// the case of the one that came first.
type dropboxEntry struct {
	id, rev  string
	made     int
	folder   bool
	path     string // as it was written
	data     []byte
	modified time.Time
}

// dropboxSession is an upload in parts.
type dropboxSession struct {
	data   []byte
	closed bool
}

// dropboxCursor is how far a listing has come.
type dropboxCursor struct {
	below string
	rest  []string          // paths that were there when it began
	given map[string]string // revisions by path
	left  map[string]bool   // what lags
}

const dropboxMaxPart = 255 // characters

// dropbox registers the routes. All of them are on one host here.
func (c *Cloud) dropbox() {
	rpc := func(route, op string, do func(http.ResponseWriter, *http.Request, *Account, []byte)) {
		c.handle("POST /2/"+route, "dropbox."+op, false, dropboxWords{"path"}, do)
	}
	rpc("users/get_current_account", "account", func(w http.ResponseWriter, _ *http.Request, a *Account, _ []byte) {
		answer(w, http.StatusOK, map[string]any{"account_id": "dbid:" + a.ID, "email": a.Email, "email_verified": true})
	})
	rpc("files/get_metadata", "metadata", c.dropboxMetadata)
	rpc("files/list_folder", "list", c.dropboxList)
	rpc("files/list_folder/continue", "continue", c.dropboxContinue)
	rpc("files/delete_v2", "delete", c.dropboxDelete)
	rpc("files/download", "download", c.dropboxDownload)
	rpc("files/upload_session/start", "start", c.dropboxStart)
	rpc("files/upload_session/append_v2", "append", c.dropboxAppend)
	c.handle("POST /2/files/upload", "dropbox.upload", true, dropboxWords{"reason"}, c.dropboxUpload)
	c.handle("POST /2/files/upload_session/finish", "dropbox.finish", true, dropboxWords{"path"}, c.dropboxFinish)
}

// dropboxWords says what goes wrong. Its text is where the error of a path stands.
type dropboxWords struct{ at string }

func (dropboxWords) unauthorized(w http.ResponseWriter) {
	answer(w, http.StatusUnauthorized, map[string]any{"error_summary": "expired_access_token/..", "error": map[string]any{".tag": "expired_access_token"}})
}

func (dropboxWords) rateLimited(w http.ResponseWriter) {
	answer(w, http.StatusTooManyRequests, map[string]any{
		"error_summary": "too_many_requests/..", "error": map[string]any{"reason": map[string]any{".tag": "too_many_requests"}, "retry_after": 1},
	})
}

func (d dropboxWords) full(w http.ResponseWriter) { dropboxPathError(w, d.at, "insufficient_space") }

// dropboxSay answers with an error of a route. Tags stand in each other.
func dropboxSay(w http.ResponseWriter, body map[string]any, tags ...string) {
	body["error_summary"] = strings.Join(tags, "/") + "/.."
	answer(w, http.StatusConflict, body)
}

// dropboxError answers with a tag alone, or tags in each other.
func dropboxError(w http.ResponseWriter, tags ...string) {
	var in any
	for _, tag := range slices.Backward(tags) {
		e := map[string]any{".tag": tag}
		if in != nil {
			e[tag] = in
		}
		in = e
	}
	dropboxSay(w, map[string]any{"error": in}, tags...)
}

// dropboxPathError answers with what is wrong with a path, at "path" or at "reason".
func dropboxPathError(w http.ResponseWriter, at string, tags ...string) {
	var in any
	for _, tag := range slices.Backward(tags) {
		e := map[string]any{".tag": tag}
		if in != nil {
			e[tag] = in
		}
		in = e
	}
	dropboxSay(w, map[string]any{"error": map[string]any{".tag": "path", at: in}}, append([]string{"path"}, tags...)...)
}

// dropboxArg reads the argument, from the body or from the header.
func dropboxArg(w http.ResponseWriter, r *http.Request, body []byte, arg any) bool {
	text := body
	if h := r.Header.Get("Dropbox-API-Arg"); h != "" {
		text = []byte(h)
		if slices.ContainsFunc(text, func(b byte) bool { return b < ' ' || b > '~' }) {
			http.Error(w, "could not decode input as JSON: the header is not ASCII", http.StatusBadRequest)
			return false
		}
		if ct := r.Header.Get("Content-Type"); ct != "" && ct != "application/octet-stream" {
			http.Error(w, "bad Content-Type", http.StatusBadRequest)
			return false
		}
	} else if r.Header.Get("Content-Type") != "application/json" {
		http.Error(w, "bad Content-Type", http.StatusBadRequest)
		return false
	}
	if err := json.Unmarshal(text, arg); err != nil {
		http.Error(w, "could not decode input as JSON", http.StatusBadRequest)
		return false
	}
	return true
}

// dropboxKey returns a path as names are told apart, or why it is none.
func dropboxKey(p string) (key, bad string) {
	if p == "" {
		return "", ""
	}
	if p[0] != '/' || strings.HasSuffix(p, "/") {
		return "", "malformed_path"
	}
	p = norm.NFC.String(p)
	for part := range strings.SplitSeq(p[1:], "/") {
		n := 0
		for _, r := range part {
			n++
			if r < ' ' || r == '\\' || r > 0xffff {
				return "", "malformed_path"
			}
		}
		if part == "" || part == "." || part == ".." || n > dropboxMaxPart || strings.HasSuffix(part, " ") {
			return "", "malformed_path"
		}
		switch low := strings.ToLower(part); {
		case low == "desktop.ini", low == "thumbs.db", low == ".ds_store", low == "icon\r", low == ".dropbox", low == ".dropbox.attr",
			strings.HasPrefix(low, "~$"), strings.HasPrefix(low, ".~"), strings.HasPrefix(low, "~") && strings.HasSuffix(low, ".tmp"):
			return "", "disallowed_name"
		}
	}
	return strings.ToLower(p), ""
}

func dropboxHash(data []byte) string {
	whole := sha256.New()
	for block := range slices.Chunk(data, 4<<20) {
		h := sha256.Sum256(block)
		whole.Write(h[:])
	}
	return hex.EncodeToString(whole.Sum(nil))
}

func (e *dropboxEntry) json(key string) map[string]any {
	m := map[string]any{".tag": "folder", "id": e.id, "name": path.Base(e.path), "path_lower": key, "path_display": e.path}
	if !e.folder {
		when := e.modified.UTC().Format(time.RFC3339)
		m[".tag"], m["rev"], m["size"], m["content_hash"] = "file", e.rev, len(e.data), dropboxHash(e.data)
		m["client_modified"], m["server_modified"], m["is_downloadable"] = when, when, true
	}
	return m
}

// find returns the entry at a path or of an id.
func (f *dropboxFiles) find(p string) (key string, e *dropboxEntry, bad string) {
	if strings.HasPrefix(p, "id:") {
		for key, e := range f.entries {
			if e.id == p {
				return key, e, ""
			}
		}
		return "", nil, "not_found"
	}
	key, bad = dropboxKey(p)
	if bad == "" && f.entries[key] == nil {
		bad = "not_found"
	}
	return key, f.entries[key], bad
}

// add makes an entry.
func (f *dropboxFiles) add(key, p string, now time.Time) *dropboxEntry {
	if f.entries == nil {
		f.entries = map[string]*dropboxEntry{}
	}
	f.made++
	e := &dropboxEntry{id: fmt.Sprintf("id:%022d", f.made), rev: fmt.Sprintf("%015x", f.made), made: f.made, path: p, modified: now}
	f.entries[key] = e
	return e
}

// write stores a file, and says what prevents it.
func (c *Cloud) dropboxWrite(a *Account, p, mode string, autorename, strict bool, data []byte) (key string, tags []string) {
	f := &a.dropbox
	if mode != "" && mode != "add" || autorename {
		panic("fakecloud: only mode add without autorename is there")
	}
	key, bad := dropboxKey(p)
	if bad != "" || key == "" {
		return "", []string{bad}
	}
	if e := f.entries[key]; e != nil {
		switch {
		case e.folder:
			return "", []string{"conflict", "folder"}
		case strict || string(e.data) != string(data):
			return "", []string{"conflict", "file"}
		}
		return key, nil
	}
	if a.Quota > 0 {
		used := int64(len(data))
		for _, e := range f.entries {
			used += int64(len(e.data))
		}
		if used > a.Quota {
			return "", []string{"insufficient_space"}
		}
	}
	p = norm.NFC.String(p)
	for i, r := range p {
		if i == 0 || r != '/' {
			continue
		}
		above, _ := dropboxKey(p[:i])
		if e := f.entries[above]; e == nil {
			f.add(above, p[:i], c.now()).folder = true
		} else if !e.folder {
			return "", []string{"conflict", "file_ancestor"}
		}
	}
	f.add(key, p, c.now()).data = slices.Clone(data)
	return key, nil
}

func dropboxHashFits(w http.ResponseWriter, want string, data []byte) bool {
	if want != "" && want != dropboxHash(data) {
		dropboxError(w, "content_hash_mismatch")
		return false
	}
	return true
}

type dropboxCommit struct {
	Path           string `json:"path"`
	Mode           string `json:"mode"`
	Autorename     bool   `json:"autorename"`
	StrictConflict bool   `json:"strict_conflict"`
}

func (c *Cloud) dropboxUpload(w http.ResponseWriter, r *http.Request, a *Account, body []byte) {
	var arg struct {
		dropboxCommit
		ContentHash string `json:"content_hash"`
	}
	if !dropboxArg(w, r, body, &arg) || !dropboxHashFits(w, arg.ContentHash, body) {
		return
	}
	key, tags := c.dropboxWrite(a, arg.Path, arg.Mode, arg.Autorename, arg.StrictConflict, body)
	if tags != nil {
		dropboxPathError(w, "reason", tags...)
		return
	}
	answer(w, http.StatusOK, a.dropbox.entries[key].json(key))
}

func (c *Cloud) dropboxStart(w http.ResponseWriter, r *http.Request, a *Account, body []byte) {
	var arg struct {
		ContentHash string `json:"content_hash"`
	}
	if !dropboxArg(w, r, body, &arg) || !dropboxHashFits(w, arg.ContentHash, body) {
		return
	}
	if a.dropbox.sessions == nil {
		a.dropbox.sessions = map[string]*dropboxSession{}
	}
	id := rand.Text()
	a.dropbox.sessions[id] = &dropboxSession{data: slices.Clone(body)}
	answer(w, http.StatusOK, map[string]string{"session_id": id})
}

type dropboxPlace struct {
	SessionID string `json:"session_id"`
	Offset    int    `json:"offset"`
}

// extend adds to a session, and says what prevents it.
func (f *dropboxFiles) extend(at dropboxPlace, body []byte) (s *dropboxSession, say map[string]any, tag string) {
	s = f.sessions[at.SessionID]
	switch {
	case s == nil:
		tag = "not_found"
	case s.closed:
		tag = "closed"
	case at.Offset != len(s.data):
		tag = "incorrect_offset"
		return nil, map[string]any{".tag": tag, "correct_offset": len(s.data)}, tag
	default:
		s.data = append(s.data, body...)
		return s, nil, ""
	}
	return nil, map[string]any{".tag": tag}, tag
}

func (c *Cloud) dropboxAppend(w http.ResponseWriter, r *http.Request, a *Account, body []byte) {
	var arg struct {
		Cursor      dropboxPlace `json:"cursor"`
		ContentHash string       `json:"content_hash"`
	}
	if !dropboxArg(w, r, body, &arg) || !dropboxHashFits(w, arg.ContentHash, body) {
		return
	}
	if _, say, tag := a.dropbox.extend(arg.Cursor, body); tag != "" {
		dropboxSay(w, map[string]any{"error": say}, tag)
		return
	}
	answer(w, http.StatusOK, nil)
}

func (c *Cloud) dropboxFinish(w http.ResponseWriter, r *http.Request, a *Account, body []byte) {
	var arg struct {
		Cursor      dropboxPlace  `json:"cursor"`
		Commit      dropboxCommit `json:"commit"`
		ContentHash string        `json:"content_hash"`
	}
	if !dropboxArg(w, r, body, &arg) || !dropboxHashFits(w, arg.ContentHash, body) {
		return
	}
	s, say, tag := a.dropbox.extend(arg.Cursor, body)
	if tag != "" {
		dropboxSay(w, map[string]any{"error": map[string]any{".tag": "lookup_failed", "lookup_failed": say}}, "lookup_failed", tag)
		return
	}
	key, tags := c.dropboxWrite(a, arg.Commit.Path, arg.Commit.Mode, arg.Commit.Autorename, arg.Commit.StrictConflict, s.data)
	if tags != nil {
		dropboxPathError(w, "path", tags...)
		return
	}
	s.closed = true
	answer(w, http.StatusOK, a.dropbox.entries[key].json(key))
}

func (c *Cloud) dropboxMetadata(w http.ResponseWriter, r *http.Request, a *Account, body []byte) {
	var arg struct {
		Path string `json:"path"`
	}
	if !dropboxArg(w, r, body, &arg) {
		return
	}
	key, e, bad := a.dropbox.find(arg.Path)
	if bad != "" {
		dropboxPathError(w, "path", bad)
		return
	}
	answer(w, http.StatusOK, e.json(key))
}

func (c *Cloud) dropboxDownload(w http.ResponseWriter, r *http.Request, a *Account, body []byte) {
	var arg struct {
		Path string `json:"path"`
	}
	if !dropboxArg(w, r, body, &arg) {
		return
	}
	key, e, bad := a.dropbox.find(arg.Path)
	if bad == "" && e.folder {
		bad = "not_file"
	}
	if bad != "" {
		dropboxPathError(w, "path", bad)
		return
	}
	result, err := json.Marshal(e.json(key))
	if err != nil {
		panic(err)
	}
	var ascii strings.Builder
	for _, r := range string(result) {
		if r > '~' {
			fmt.Fprintf(&ascii, `\u%04x`, r)
		} else {
			ascii.WriteRune(r)
		}
	}
	w.Header().Set("Dropbox-API-Result", ascii.String())
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(e.data)
}

func (c *Cloud) dropboxDelete(w http.ResponseWriter, r *http.Request, a *Account, body []byte) {
	var arg struct {
		Path      string `json:"path"`
		ParentRev string `json:"parent_rev"`
	}
	if !dropboxArg(w, r, body, &arg) {
		return
	}
	key, e, bad := a.dropbox.find(arg.Path)
	if bad != "" {
		dropboxError(w, "path_lookup", bad)
		return
	}
	if arg.ParentRev != "" && arg.ParentRev != e.rev {
		dropboxError(w, "path_write", "conflict", "file")
		return
	}
	gone := e.json(key)
	for k := range a.dropbox.entries {
		if k == key || strings.HasPrefix(k, key+"/") {
			delete(a.dropbox.entries, k)
		}
	}
	answer(w, http.StatusOK, map[string]any{"metadata": gone})
}

// below returns the paths of what is below a folder, in the order in which they were
// made, and the folder itself.
func (f *dropboxFiles) below(key string) []string {
	var keys []string
	for k := range f.entries {
		if k == key || strings.HasPrefix(k, key+"/") {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b string) int { return f.entries[a].made - f.entries[b].made })
	return keys
}

func (c *Cloud) dropboxList(w http.ResponseWriter, r *http.Request, a *Account, body []byte) {
	var arg struct {
		Path      string `json:"path"`
		Recursive bool   `json:"recursive"`
		Limit     int    `json:"limit"`
	}
	if !dropboxArg(w, r, body, &arg) {
		return
	}
	if !arg.Recursive || arg.Path == "/" || arg.Limit > 2000 {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	f := &a.dropbox
	key := ""
	if arg.Path != "" {
		k, e, bad := f.find(arg.Path)
		if bad == "" && !e.folder {
			bad = "not_folder"
		}
		if bad != "" {
			dropboxPathError(w, "path", bad)
			return
		}
		key = k
	}
	cur := &dropboxCursor{below: key, rest: f.below(key), given: map[string]string{}, left: map[string]bool{}}
	lag := c.Lag
	for _, k := range slices.Backward(cur.rest) {
		if lag > 0 && !f.entries[k].folder {
			cur.left[k] = true
			lag--
		}
	}
	c.dropboxPage(w, f, cur)
}

func (c *Cloud) dropboxContinue(w http.ResponseWriter, r *http.Request, a *Account, body []byte) {
	var arg struct {
		Cursor string `json:"cursor"`
	}
	if !dropboxArg(w, r, body, &arg) {
		return
	}
	cur := a.dropbox.cursors[arg.Cursor]
	if cur == nil {
		dropboxError(w, "reset")
		return
	}
	copied := *cur // A cursor can be asked for again.
	c.dropboxPage(w, &a.dropbox, &copied)
}

// dropboxPage answers with the next page. The last one also has what changed since the
// listing began.
func (c *Cloud) dropboxPage(w http.ResponseWriter, f *dropboxFiles, cur *dropboxCursor) {
	size := c.PageSize
	if size == 0 {
		size = 1000
	}
	page := cur.rest[:min(size, len(cur.rest))]
	cur.rest = cur.rest[len(page):]
	given := map[string]string{}
	for k, rev := range cur.given {
		given[k] = rev
	}
	cur.given = given
	list := []any{}
	gone := func(k string) {
		list = append(list, map[string]any{".tag": "deleted", "name": path.Base(k), "path_lower": k, "path_display": k})
	}
	for _, k := range page {
		e := f.entries[k]
		switch {
		case cur.left[k]:
		case e == nil:
			gone(k)
		default:
			list = append(list, e.json(k))
			given[k] = e.rev
		}
	}
	if len(cur.rest) == 0 {
		dead := map[string]bool{}
		for k := range given {
			dead[k] = f.entries[k] == nil
		}
		for k := range given {
			if dead[k] {
				delete(given, k)
				if !dead[path.Dir(k)] { // Of a folder with all that was in it, only the folder is told.
					gone(k)
				}
			}
		}
		for _, k := range f.below(cur.below) {
			if e := f.entries[k]; given[k] != e.rev && !cur.left[k] {
				list = append(list, e.json(k))
				given[k] = e.rev
			}
		}
	}
	if f.cursors == nil {
		f.cursors = map[string]*dropboxCursor{}
	}
	id := rand.Text()
	f.cursors[id] = cur
	answer(w, http.StatusOK, map[string]any{"entries": list, "cursor": id, "has_more": len(cur.rest) > 0})
}

// DropboxOverwrite is another program that writes over a file: it is another revision
// of the same file.
func (c *Cloud) DropboxOverwrite(a *Account, p string, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, e, bad := a.dropbox.find(p)
	if bad != "" {
		panic("fakecloud: " + bad)
	}
	a.dropbox.made++
	e.rev, e.data, e.modified = fmt.Sprintf("%015x", a.dropbox.made), slices.Clone(data), c.now()
}

// ForgetListings ends the listings that have begun: asking for their next page is an
// error.
func (c *Cloud) ForgetListings(a *Account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(a.dropbox.cursors)
}

// ForgetUploads ends the uploads in parts that have begun.
func (c *Cloud) ForgetUploads(a *Account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(a.dropbox.sessions)
	maps.DeleteFunc(c.tickets.uploads, func(_ string, s *onedriveSession) bool { return s.account == a })
}
