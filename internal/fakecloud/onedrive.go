package fakecloud

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// onedriveFiles is what an account has in the app's folder in OneDrive.
type onedriveFiles struct {
	items map[string]*onedriveItem // by id
	made  int
}

// onedriveItem is a file or a folder. OneDrive tells names apart without case.
type onedriveItem struct {
	id, parent, name string
	made, change     int // change counts the changes of the bytes
	folder           bool
	data             []byte
	hash             string
	modified         time.Time
}

// onedriveSession is an upload in parts.
type onedriveSession struct {
	account *Account
	at      []string
	data    []byte
	total   int
}

// onedriveTickets are addresses that are themselves the permission.
type onedriveTickets struct {
	uploads   map[string]*onedriveSession
	downloads map[string]onedriveDownload
}

type onedriveDownload struct {
	account *Account
	data    []byte
}

const (
	onedriveRoot  = "ROOT"
	onedrivePart  = 320 << 10
	onedrivePages = 200
)

// onedrive registers the routes. Uploads and downloads are on the same host here.
func (c *Cloud) onedrive() {
	c.tickets = onedriveTickets{uploads: map[string]*onedriveSession{}, downloads: map[string]onedriveDownload{}}
	c.handle("GET /v1.0/me", "onedrive.me", false, onedriveWords{}, func(w http.ResponseWriter, _ *http.Request, a *Account, _ []byte) {
		answer(w, http.StatusOK, map[string]any{"id": "user-" + a.ID, "displayName": "Somebody", "userPrincipalName": a.Email})
	})
	c.mux.HandleFunc("/v1.0/me/drive/", c.onedriveRoute)
	anybody := func(*http.Request) (*Account, bool) { return nil, true }
	c.mux.HandleFunc("/up/{ticket}", func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPut:
			c.act(w, r, "onedrive.part", true, onedriveWords{}, anybody, c.onedriveUploadPart)
		case http.MethodGet:
			c.act(w, r, "onedrive.status", false, onedriveWords{}, anybody, c.onedriveStatus)
		default:
			http.Error(w, "not allowed", http.StatusMethodNotAllowed)
		}
	})
	c.mux.HandleFunc("GET /dl/{ticket}", func(w http.ResponseWriter, r *http.Request) {
		c.act(w, r, "onedrive.download", false, onedriveWords{}, anybody, c.onedriveDownload)
	})
}

// onedriveWords says what goes wrong.
type onedriveWords struct{}

func onedriveError(w http.ResponseWriter, status int, code string) {
	answer(w, status, map[string]any{"error": map[string]any{"code": code, "message": "It is so.", "innerError": map[string]any{"request-id": "1"}}})
}

func (onedriveWords) unauthorized(w http.ResponseWriter) {
	onedriveError(w, http.StatusUnauthorized, "InvalidAuthenticationToken")
}

func (onedriveWords) rateLimited(w http.ResponseWriter) {
	onedriveError(w, http.StatusTooManyRequests, "activityLimitReached")
}

func (onedriveWords) full(w http.ResponseWriter) {
	onedriveError(w, http.StatusInsufficientStorage, "quotaLimitReached")
}

// onedriveRoute finds out what a request is for: special/approot, special/approot:/a/b,
// or items/ID, and then perhaps /children, /content or /createUploadSession.
func (c *Cloud) onedriveRoute(w http.ResponseWriter, r *http.Request) {
	rest := strings.TrimPrefix(r.URL.EscapedPath(), "/v1.0/me/drive/")
	var id, verb string
	var at []string
	bad := ""
	switch {
	case strings.HasPrefix(rest, "special/approot:/"):
		id = onedriveRoot
		p, v, _ := strings.Cut(strings.TrimPrefix(rest, "special/approot:/"), ":")
		verb = v
		for part := range strings.SplitSeq(p, "/") {
			// It unescapes twice: https://github.com/abraunegg/onedrive/issues/1342.
			part, err := url.PathUnescape(part)
			if err == nil {
				part, err = url.PathUnescape(part)
			}
			if err != nil || !onedriveNameFits(part) {
				bad = "invalidRequest"
			}
			at = append(at, part)
		}
	case strings.HasPrefix(rest, "special/approot"):
		id, verb = onedriveRoot, strings.TrimPrefix(rest, "special/approot")
	case strings.HasPrefix(rest, "items/"):
		i, v, _ := strings.Cut(strings.TrimPrefix(rest, "items/"), "/")
		id, _ = url.PathUnescape(i) // What cannot be is no id.
		if v != "" {
			verb = "/" + v
		}
	}
	op, upload := map[string]string{
		"GET ": "item", "GET /children": "children", "PUT /content": "upload", "POST /createUploadSession": "session", "DELETE ": "delete",
	}[r.Method+" "+verb], verb == "/content"
	if id == "" || op == "" {
		http.NotFound(w, r)
		return
	}
	c.act(w, r, "onedrive."+op, upload, onedriveWords{}, c.whose, func(w http.ResponseWriter, r *http.Request, a *Account, body []byte) {
		f := &a.onedrive
		f.begin()
		it := f.find(id, at)
		switch {
		case bad != "":
			onedriveError(w, http.StatusBadRequest, bad)
		case op == "upload":
			if int64(len(body)) != r.ContentLength {
				onedriveError(w, http.StatusBadRequest, "invalidRequest") // Not all of it came.
				return
			}
			c.onedriveCommit(w, a, at, body, r.URL.Query().Get("@microsoft.graph.conflictBehavior"))
		case op == "session":
			if it != nil {
				onedriveError(w, http.StatusConflict, "nameAlreadyExists")
				return
			}
			ticket := rand.Text()
			c.tickets.uploads[ticket] = &onedriveSession{account: a, at: at}
			answer(w, http.StatusOK, map[string]any{"uploadUrl": onedriveBase(r) + "/up/" + ticket, "expirationDateTime": "2099-01-01T00:00:00Z"})
		case it == nil:
			onedriveError(w, http.StatusNotFound, "itemNotFound")
		case op == "item":
			answer(w, http.StatusOK, c.onedriveJSON(r, a, it))
		case op == "children":
			c.onedriveChildren(w, r, a, it)
		case op == "delete":
			if tag := r.Header.Get("If-Match"); tag != "" && tag != it.cTag() {
				onedriveError(w, http.StatusPreconditionFailed, "resourceModified")
				return
			}
			f.remove(it)
			w.WriteHeader(http.StatusNoContent)
		}
	})
}

func onedriveBase(r *http.Request) string {
	scheme := r.URL.Scheme
	switch {
	case scheme != "":
	case r.TLS != nil:
		scheme = "https"
	default:
		scheme = "http"
	}
	return scheme + "://" + r.Host
}

// onedriveNameFits reports whether OneDrive takes a name.
func onedriveNameFits(name string) bool {
	low := strings.ToLower(name)
	switch low {
	case "", ".", "..", ".lock", "con", "prn", "aux", "nul", "desktop.ini":
		return false
	}
	if len(low) == 4 && (strings.HasPrefix(low, "com") || strings.HasPrefix(low, "lpt")) && low[3] >= '0' && low[3] <= '9' {
		return false
	}
	return !strings.ContainsAny(name, `"*:<>?/\|`) && !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) &&
		strings.TrimSpace(name) == name && !strings.HasSuffix(name, ".") && !strings.HasPrefix(name, "~") && !strings.Contains(low, "_vti_")
}

// onedriveFold is a name as names are told apart:
// https://github.com/OneDrive/onedrive-api-docs/issues/856.
func onedriveFold(name string) string {
	return strings.ReplaceAll(strings.ToLower(name), "æ", "ae")
}

func (f *onedriveFiles) begin() {
	if f.items == nil {
		f.items = map[string]*onedriveItem{onedriveRoot: {id: onedriveRoot, name: "Satchel", folder: true}}
	}
}

// find returns the item at a path below another, or nil.
func (f *onedriveFiles) find(id string, at []string) *onedriveItem {
	it := f.items[id]
	for _, part := range at {
		it = f.child(it, part)
	}
	return it
}

func (f *onedriveFiles) child(of *onedriveItem, name string) *onedriveItem {
	if of == nil {
		return nil
	}
	for _, it := range f.items {
		if it.parent == of.id && onedriveFold(it.name) == onedriveFold(name) {
			return it
		}
	}
	return nil
}

func (f *onedriveFiles) children(of *onedriveItem) []*onedriveItem {
	var all []*onedriveItem
	for _, it := range f.items {
		if it.parent == of.id {
			all = append(all, it)
		}
	}
	slices.SortFunc(all, func(a, b *onedriveItem) int { return a.made - b.made })
	return all
}

func (f *onedriveFiles) remove(it *onedriveItem) {
	for _, below := range f.children(it) {
		f.remove(below)
	}
	delete(f.items, it.id)
}

func (f *onedriveFiles) add(parent *onedriveItem, name string, now time.Time) *onedriveItem {
	f.made++
	it := &onedriveItem{id: fmt.Sprintf("A1B2!%d", f.made), parent: parent.id, name: name, made: f.made, modified: now}
	f.items[it.id] = it
	return it
}

func (it *onedriveItem) cTag() string { return fmt.Sprintf(`"c:{%s},%d"`, it.id, it.change) }

func (it *onedriveItem) write(data []byte) {
	it.data, it.change = slices.Clone(data), it.change+1
	it.hash = quickXor(data)
}

// quickXor is Microsoft's QuickXorHash: each byte is turned by eleven bits more than the
// one before it.
func quickXor(data []byte) string {
	var h [20]byte
	at := 0 // bits
	for _, b := range data {
		v := uint16(b) << (at % 8)
		h[at/8] ^= byte(v)
		h[(at/8+1)%20] ^= byte(v >> 8)
		at = (at + 11) % 160
	}
	n := binary.LittleEndian.Uint64(h[12:]) ^ uint64(len(data))
	binary.LittleEndian.PutUint64(h[12:], n)
	return base64.StdEncoding.EncodeToString(h[:])
}

// onedriveCommit makes a file, or answers why not. Folders on the way are made.
func (c *Cloud) onedriveCommit(w http.ResponseWriter, a *Account, at []string, data []byte, conflict string) bool {
	f := &a.onedrive
	it := f.find(onedriveRoot, at)
	if it != nil && (it.folder || conflict == "fail") {
		onedriveError(w, http.StatusConflict, "nameAlreadyExists")
		return false
	}
	if a.Quota > 0 {
		used := int64(len(data))
		for _, it := range f.items {
			used += int64(len(it.data))
		}
		if used > a.Quota {
			onedriveWords{}.full(w)
			return false
		}
	}
	dir := f.items[onedriveRoot]
	for _, part := range at[:len(at)-1] {
		next := f.child(dir, part)
		if next == nil {
			next = f.add(dir, part, c.now())
			next.folder = true
		}
		if !next.folder {
			onedriveError(w, http.StatusConflict, "nameAlreadyExists")
			return false
		}
		dir = next
	}
	status := http.StatusOK
	if it == nil {
		it, status = f.add(dir, at[len(at)-1], c.now()), http.StatusCreated
	}
	it.write(data)
	answer(w, status, it.json(a, f))
	return true
}

func (it *onedriveItem) json(a *Account, f *onedriveFiles) map[string]any {
	m := map[string]any{
		"id": it.id, "name": it.name, "size": len(it.data), "eTag": `"` + it.id + `,9"`,
		"lastModifiedDateTime": it.modified.UTC().Format(time.RFC3339), "parentReference": map[string]any{"driveId": "0d" + a.ID, "id": it.parent},
	}
	if it.folder {
		m["folder"] = map[string]any{"childCount": len(f.children(it))}
	} else {
		m["cTag"] = it.cTag()
		m["file"] = map[string]any{"mimeType": "application/octet-stream", "hashes": map[string]any{"quickXorHash": it.hash}}
	}
	return m
}

// onedriveJSON also has the address of the bytes.
func (c *Cloud) onedriveJSON(r *http.Request, a *Account, it *onedriveItem) map[string]any {
	m := it.json(a, &a.onedrive)
	if !it.folder {
		ticket := rand.Text()
		c.tickets.downloads[ticket] = onedriveDownload{a, it.data}
		m["@microsoft.graph.downloadUrl"] = onedriveBase(r) + "/dl/" + ticket
	}
	return m
}

func (c *Cloud) onedriveChildren(w http.ResponseWriter, r *http.Request, a *Account, of *onedriveItem) {
	f := &a.onedrive
	size := onedrivePages
	if c.PageSize > 0 {
		size = c.PageSize
	} else if top, err := strconv.Atoi(r.URL.Query().Get("$top")); err == nil {
		size = min(top, 1000)
	}
	var files []*onedriveItem
	for _, it := range f.items {
		if !it.folder {
			files = append(files, it)
		}
	}
	slices.SortFunc(files, func(a, b *onedriveItem) int { return b.made - a.made })
	lagging := files[:min(c.Lag, len(files))]
	after, _ := strconv.Atoi(r.URL.Query().Get("$skiptoken")) // Missing is from the beginning.
	list := []any{}
	more := false
	for _, it := range f.children(of) {
		switch {
		case it.made <= after || slices.Contains(lagging, it):
		case len(list) == size:
			more = true
		default:
			list = append(list, it.json(a, f))
			if len(list) == size {
				after = it.made
			}
		}
		if more {
			break
		}
	}
	page := map[string]any{"value": list}
	if more {
		page["@odata.nextLink"] = fmt.Sprintf("%s%s?$skiptoken=%d", onedriveBase(r), r.URL.EscapedPath(), after)
	}
	answer(w, http.StatusOK, page)
}

func (c *Cloud) onedriveDownload(w http.ResponseWriter, r *http.Request, _ *Account, _ []byte) {
	d, ok := c.tickets.downloads[r.PathValue("ticket")]
	if !ok || bearer(r) != "" {
		http.Error(w, "gone", http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(d.data)
}

func (s *onedriveSession) say(w http.ResponseWriter, status int) {
	next := []string{}
	if len(s.data) < s.total || s.total == 0 {
		next = append(next, fmt.Sprintf("%d-", len(s.data)))
	}
	answer(w, status, map[string]any{"expirationDateTime": "2099-01-01T00:00:00Z", "nextExpectedRanges": next})
}

func (c *Cloud) onedriveStatus(w http.ResponseWriter, r *http.Request, _ *Account, _ []byte) {
	s := c.tickets.uploads[r.PathValue("ticket")]
	if s == nil {
		onedriveError(w, http.StatusNotFound, "itemNotFound")
		return
	}
	s.say(w, http.StatusOK)
}

func (c *Cloud) onedriveUploadPart(w http.ResponseWriter, r *http.Request, _ *Account, body []byte) {
	ticket := r.PathValue("ticket")
	s := c.tickets.uploads[ticket]
	var first, last, total int
	unit := c.PartUnit
	if unit == 0 {
		unit = onedrivePart
	}
	n, err := fmt.Sscanf(r.Header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &total)
	switch {
	case bearer(r) != "":
		onedriveWords{}.unauthorized(w)
	case s == nil:
		onedriveError(w, http.StatusNotFound, "itemNotFound")
	case err != nil || n != 3 || last-first+1 != int(r.ContentLength) || total <= last || s.total != 0 && s.total != total:
		onedriveError(w, http.StatusBadRequest, "invalidRequest")
	case len(body) != int(r.ContentLength):
		onedriveError(w, http.StatusBadRequest, "invalidRequest") // Not all of it came, so it is ignored.
	case last+1 != total && len(body)%unit != 0:
		onedriveError(w, http.StatusBadRequest, "invalidRequest")
	case first != len(s.data):
		onedriveError(w, http.StatusRequestedRangeNotSatisfiable, "invalidRange")
	default:
		s.total = total
		s.data = append(s.data, body...)
		if len(s.data) < total {
			s.say(w, http.StatusAccepted)
		} else if c.onedriveCommit(w, s.account, s.at, s.data, "fail") {
			delete(c.tickets.uploads, ticket)
		}
	}
}

// OneDriveOverwrite is another program that writes over a file: its item stays the same.
func (c *Cloud) OneDriveOverwrite(a *Account, name string, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	it := a.onedrive.find(onedriveRoot, strings.Split(name, "/"))
	it.write(data)
}
