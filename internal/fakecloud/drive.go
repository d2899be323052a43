package fakecloud

import (
	"bytes"
	"cmp"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The scopes of Google Drive that are known here. A token without any scope may do
// everything.
const (
	driveScopeAll     = "https://www.googleapis.com/auth/drive"         // every file; not the hidden folder
	driveScopeFile    = "https://www.googleapis.com/auth/drive.file"    // files that the program made
	driveScopeAppData = "https://www.googleapis.com/auth/drive.appdata" // the hidden folder
)

const (
	driveFolder    = "application/vnd.google-apps.folder"
	driveSpace     = "drive"
	driveHidden    = "appDataFolder"
	driveChunk     = 256 << 10 // chunks of an upload are multiples of this, but for the last one
	driveMultipart = 8 << 20   // more is to be uploaded in chunks; Google promises 5 MB, and rclone sends so much
)

// driveFiles is what an account has in Google Drive.
type driveFiles struct {
	files   []*driveFile            // as they were made
	ids     map[string]bool         // that generateIds gave
	uploads map[string]*driveUpload // by name of the session
	pages   map[string][]*driveFile // what is still to be listed, by token
}

type driveFile struct {
	id, name, mime    string
	parent            string // "" for the two roots
	space             string
	data              []byte
	sums              []string // of data: MD5, SHA-1, SHA-256; nil until they are asked for
	created, modified time.Time
	trashed           bool // itself; what is in a trashed folder is trashed too
	made              bool // by a program, not by hand
	properties        map[string]string
}

// driveUpload is an upload that takes several requests.
type driveUpload struct {
	meta   driveMeta
	file   string // that gets the bytes; "" for a new one
	total  int64  // -1 while it is unknown
	data   []byte
	fields string
	done   *driveFile
}

// driveMeta is what a client says of a file.
type driveMeta struct {
	ID            string            `json:"id"`
	Name          string            `json:"name"`
	MimeType      string            `json:"mimeType"`
	Parents       []string          `json:"parents"`
	AppProperties map[string]string `json:"appProperties"`
	CreatedTime   time.Time         `json:"createdTime"`
	ModifiedTime  time.Time         `json:"modifiedTime"`
	Trashed       *bool             `json:"trashed"`
}

// DriveFile is a file or folder in Google Drive as tests see it.
type DriveFile struct {
	ID, Name, Parent string
	Folder           bool
	Hidden           bool // in the space of the program's own data
	Trashed          bool // itself or by a folder above it
	Data             []byte
}

// DriveToken returns a new access token that allows only the scopes, as after a sign-in.
func (c *Cloud) DriveToken(a *Account, scopes ...string) string {
	t := c.Token(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.access[t].scope = strings.Join(scopes, " ")
	return t
}

// DriveFiles returns all files and folders of an account, as they were made.
func (c *Cloud) DriveFiles(a *Account) []DriveFile {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []DriveFile
	for _, f := range a.drive.files {
		if f.parent == "" {
			continue
		}
		list = append(list, DriveFile{f.id, f.name, f.parent, f.mime == driveFolder, f.space == driveHidden, a.drive.inTrash(f), bytes.Clone(f.data)})
	}
	return list
}

// DriveAdd makes a file, or with nil data a folder, as a person does at the browser:
// what is there already does not matter. The parent is an id, "root" or "appDataFolder".
// With made it counts as made by the program.
func (c *Cloud) DriveAdd(a *Account, parent, name string, data []byte, made bool) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.driveOf(a)
	f := &driveFile{id: rand.Text(), name: name, mime: "application/octet-stream", data: bytes.Clone(data), made: made, created: c.now(), modified: c.now()}
	if data == nil {
		f.mime = driveFolder
	}
	up := d.find(parent)
	f.parent, f.space = up.id, up.space
	d.files = append(d.files, f)
	return f.id
}

// DriveTrash moves a file or folder to the trash, or back.
func (c *Cloud) DriveTrash(a *Account, id string, trashed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.driveOf(a).find(id).trashed = trashed
}

// DriveMove gives a file or folder another name or, if it is not "", another parent.
func (c *Cloud) DriveMove(a *Account, id, name, parent string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.driveOf(a)
	f := d.find(id)
	f.name = name
	if parent != "" {
		f.parent = d.find(parent).id
	}
}

// DriveForget ends all listings that are under way, or all uploads.
func (c *Cloud) DriveForget(a *Account, pages, uploads bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if pages {
		clear(a.drive.pages)
	}
	if uploads {
		clear(a.drive.uploads)
	}
}

// driveOf returns an account's files. The caller holds mu.
func (c *Cloud) driveOf(a *Account) *driveFiles {
	d := &a.drive
	if d.ids == nil {
		*d = driveFiles{ids: map[string]bool{}, uploads: map[string]*driveUpload{}, pages: map[string][]*driveFile{}}
		for space, name := range map[string]string{driveSpace: "My Drive", driveHidden: "appDataFolder"} {
			d.files = append(d.files, &driveFile{id: "0A" + rand.Text()[:17], name: name, mime: driveFolder, space: space, created: c.now(), modified: c.now()})
		}
	}
	return d
}

// find returns a file, by its id or an alias, or nil.
func (d *driveFiles) find(id string) *driveFile {
	for _, f := range d.files {
		if f.id == id || f.parent == "" && (id == "root" && f.space == driveSpace || id == driveHidden && f.space == driveHidden) {
			return f
		}
	}
	return nil
}

// inTrash reports whether a file is trashed, itself or by a folder above it.
func (d *driveFiles) inTrash(f *driveFile) bool {
	for ; f != nil; f = d.find(f.parent) {
		if f.trashed {
			return true
		}
		if f.parent == "" {
			return false
		}
	}
	return false
}

func (d *driveFiles) used() int64 {
	var n int64
	for _, f := range d.files {
		n += int64(len(f.data))
	}
	return n
}

// may reports what a scope allows: files of a space at all, and those that the program
// did not make.
func may(scope, space string) (some, all bool) {
	if scope == "" {
		return true, true
	}
	for s := range strings.FieldsSeq(scope) {
		switch {
		case s == driveScopeAll && space == driveSpace, s == driveScopeAppData && space == driveHidden:
			return true, true
		case s == driveScopeFile && space == driveSpace:
			some = true
		}
	}
	return some, false
}

func visible(scope string, f *driveFile) bool {
	some, all := may(scope, f.space)
	return all || some && f.made
}

// google is how Google Drive says what goes wrong.
type google struct{}

func (google) fail(w http.ResponseWriter, code int, domain, reason, message string) {
	answer(w, code, map[string]any{"error": map[string]any{
		"code": code, "message": message,
		"errors": []map[string]string{{"domain": domain, "reason": reason, "message": message}},
	}})
}

func (g google) unauthorized(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="https://accounts.google.com/", error="invalid_token"`)
	g.fail(w, http.StatusUnauthorized, "global", "authError", "Invalid Credentials")
}

func (g google) rateLimited(w http.ResponseWriter) {
	w.Header().Del("Retry-After") // Google sends none with this.
	g.fail(w, http.StatusForbidden, "usageLimits", "userRateLimitExceeded", "User Rate Limit Exceeded. Rate of requests for user exceed configured project quota.")
}

func (g google) full(w http.ResponseWriter) {
	g.fail(w, http.StatusForbidden, "usageLimits", "storageQuotaExceeded", "The user's Drive storage quota has been exceeded.")
}

func (g google) missing(w http.ResponseWriter, id string) {
	g.fail(w, http.StatusNotFound, "global", "notFound", "File not found: "+id+".")
}

func (g google) invalid(w http.ResponseWriter, what string) {
	g.fail(w, http.StatusBadRequest, "global", "invalid", "Invalid Value: "+what)
}

func (g google) lacking(w http.ResponseWriter) {
	g.fail(w, http.StatusForbidden, "global", "insufficientPermissions", "Insufficient Permission: Request had insufficient authentication scopes.")
}

// driveCall is one request to Google Drive.
type driveCall struct {
	google
	c     *Cloud
	w     http.ResponseWriter
	r     *http.Request
	a     *Account
	d     *driveFiles
	scope string
	body  []byte
}

// drive registers Google Drive, version 3.
func (c *Cloud) drive() {
	on := func(pattern, op string, upload bool, do func(*driveCall)) {
		c.handle(pattern, op, upload, google{}, func(w http.ResponseWriter, r *http.Request, a *Account, body []byte) {
			do(&driveCall{google{}, c, w, r, a, c.driveOf(a), c.access[bearer(r)].scope, body})
		})
	}
	on("GET /drive/v3/about", "drive.about", false, (*driveCall).about)
	on("GET /drive/v3/files", "drive.list", false, (*driveCall).list)
	on("GET /drive/v3/files/generateIds", "drive.ids", false, (*driveCall).generate)
	on("GET /drive/v3/files/{id}", "drive.get", false, (*driveCall).get)
	on("POST /drive/v3/files", "drive.folder", false, func(k *driveCall) {
		var m driveMeta
		if k.decode(k.body, &m) {
			k.create(m, "", nil, k.r.FormValue("fields"))
		}
	})
	on("POST /upload/drive/v3/files", "drive.create", true, (*driveCall).upload)
	on("PATCH /drive/v3/files/{id}", "drive.update", false, (*driveCall).update)
	on("PATCH /upload/drive/v3/files/{id}", "drive.replace", true, (*driveCall).upload)
	on("DELETE /drive/v3/files/{id}", "drive.delete", false, (*driveCall).remove)
	// Where the bytes of a large upload go is Google's affair: clients take the address
	// as it is given. The documents say PUT, Google's own library says POST.
	on("PUT /upload/drive/v3/sessions/{session}", "drive.chunk", true, (*driveCall).chunk)
	on("POST /upload/drive/v3/sessions/{session}", "drive.chunk", true, (*driveCall).chunk)
}

func (k *driveCall) decode(data []byte, v any) bool {
	if len(data) == 0 {
		return true
	}
	if err := json.Unmarshal(data, v); err != nil {
		k.fail(k.w, http.StatusBadRequest, "global", "parseError", "Parse Error")
		return false
	}
	return true
}

// known returns a file that the program can see.
func (k *driveCall) known(id string) *driveFile {
	f := k.d.find(id)
	if f == nil || !visible(k.scope, f) {
		k.missing(k.w, id)
		return nil
	}
	return f
}

func (k *driveCall) about() {
	fields := k.r.FormValue("fields")
	if fields == "" {
		k.fail(k.w, http.StatusBadRequest, "global", "required", "The 'fields' parameter is required for this method.")
		return
	}
	used := strconv.FormatInt(k.d.used(), 10)
	quota := map[string]any{"usage": used, "usageInDrive": used, "usageInDriveTrash": "0"}
	if k.a.Quota > 0 {
		quota["limit"] = strconv.FormatInt(k.a.Quota, 10)
	}
	k.reply(map[string]any{"kind": "drive#about", "user": k.user(), "storageQuota": quota}, fields, nil)
}

func (k *driveCall) user() map[string]any {
	return map[string]any{"kind": "drive#user", "displayName": k.a.Email, "me": true, "permissionId": k.a.ID, "emailAddress": k.a.Email}
}

func (k *driveCall) generate() {
	n := 10
	if s := k.r.FormValue("count"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 1 || n > 1000 {
			k.invalid(k.w, "count")
			return
		}
	}
	space := cmp.Or(k.r.FormValue("space"), driveSpace)
	if some, _ := may(k.scope, space); !some {
		k.lacking(k.w)
		return
	}
	ids := []string{}
	for range n {
		id := "1" + rand.Text()
		k.d.ids[id] = true
		ids = append(ids, id)
	}
	k.reply(map[string]any{"kind": "drive#generatedIds", "space": space, "ids": ids}, cmp.Or(k.r.FormValue("fields"), "*"), nil)
}

const driveTime = "2006-01-02T15:04:05.000Z"

// describe returns all that is known of a file.
func (k *driveCall) describe(f *driveFile) map[string]any {
	m := map[string]any{
		"kind": "drive#file", "id": f.id, "name": f.name, "mimeType": f.mime, "spaces": []string{f.space}, "ownedByMe": true, "owners": []any{k.user()},
		"trashed": k.d.inTrash(f), "explicitlyTrashed": f.trashed, "version": "1", "starred": false, "shared": false, "isAppAuthorized": f.made,
		"createdTime": f.created.UTC().Format(driveTime), "modifiedTime": f.modified.UTC().Format(driveTime),
	}
	if f.parent != "" {
		m["parents"] = []string{f.parent}
	}
	if len(f.properties) > 0 {
		m["appProperties"] = f.properties
	}
	if f.mime != driveFolder {
		if f.sums == nil {
			m5, s1, s256 := md5.Sum(f.data), sha1.Sum(f.data), sha256.Sum256(f.data)
			f.sums = []string{hex.EncodeToString(m5[:]), hex.EncodeToString(s1[:]), hex.EncodeToString(s256[:])}
		}
		m["md5Checksum"], m["sha1Checksum"], m["sha256Checksum"] = f.sums[0], f.sums[1], f.sums[2]
		m["size"], m["quotaBytesUsed"] = strconv.Itoa(len(f.data)), strconv.Itoa(len(f.data))
		m["originalFilename"], m["headRevisionId"] = f.name, "r"+f.id
	}
	return m
}

const driveDefault = "kind,id,name,mimeType"

// driveKnown are the fields of a file; a client that asks for another made a mistake.
var driveKnown = strings.Fields(`appProperties capabilities contentHints contentRestrictions copyRequiresWriterPermission createdTime description driveId
	explicitlyTrashed exportLinks fileExtension folderColorRgb fullFileExtension hasThumbnail headRevisionId iconLink id imageMediaMetadata isAppAuthorized
	kind lastModifyingUser md5Checksum mimeType modifiedByMe modifiedByMeTime modifiedTime name originalFilename ownedByMe owners parents permissionIds
	permissions properties quotaBytesUsed resourceKey sha1Checksum sha256Checksum shared sharedWithMeTime sharingUser shortcutDetails size spaces starred
	thumbnailLink trashed trashedTime trashingUser version videoMediaMetadata viewedByMe viewedByMeTime webContentLink webViewLink writersCanShare`)

// reply answers with those fields of v that the client asked for. known are the names
// that exist at the top; nil means those of v.
func (k *driveCall) reply(v map[string]any, fields string, known []string) {
	mask, rest, ok := parseFields(fields)
	if ok && rest == "" && known != nil {
		for name := range mask {
			ok = ok && (name == "*" || slices.Contains(known, name))
		}
	}
	if !ok || rest != "" {
		k.fail(k.w, http.StatusBadRequest, "global", "invalidParameter", "Invalid field selection "+fields)
		return
	}
	answer(k.w, http.StatusOK, mask.apply(v))
}

// fieldMask is what a client wants to see, by name; nil means all below.
type fieldMask map[string]fieldMask

// parseFields reads "a,b/c,d(e,f)" up to a closing bracket.
func parseFields(s string) (m fieldMask, rest string, ok bool) {
	m = fieldMask{}
	for {
		i := strings.IndexAny(s, ",/()")
		if i < 0 {
			i = len(s)
		}
		name := s[:i]
		if name == "" {
			return nil, "", false
		}
		s = s[i:]
		var sub fieldMask
		switch {
		case strings.HasPrefix(s, "("):
			if sub, s, ok = parseFields(s[1:]); !ok || !strings.HasPrefix(s, ")") {
				return nil, "", false
			}
			s = s[1:]
		case strings.HasPrefix(s, "/"):
			// The rest up to the next comma is one path.
			j := strings.IndexAny(s, ",)")
			if j < 0 {
				j = len(s)
			}
			if sub, _, ok = parseFields(s[1:j]); !ok {
				return nil, "", false
			}
			s = s[j:]
		}
		m[name] = sub
		if !strings.HasPrefix(s, ",") {
			return m, s, true
		}
		s = s[1:]
	}
}

func (m fieldMask) apply(v any) any {
	if _, all := m["*"]; all || m == nil {
		return v
	}
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, sub := range m {
			if inner, ok := v[name]; ok {
				out[name] = sub.apply(inner)
			}
		}
		return out
	case []any:
		out := []any{}
		for _, e := range v {
			out = append(out, m.apply(e))
		}
		return out
	}
	return v
}

func (k *driveCall) get() {
	id := k.r.PathValue("id")
	f := k.known(id)
	if f == nil {
		return
	}
	if f.parent == "" && f.space == driveSpace {
		if _, all := may(k.scope, driveSpace); !all {
			k.missing(k.w, id)
			return
		}
	}
	if k.r.FormValue("alt") != "media" {
		k.reply(k.describe(f), cmp.Or(k.r.FormValue("fields"), driveDefault), driveKnown)
		return
	}
	if f.mime == driveFolder {
		k.fail(k.w, http.StatusForbidden, "global", "fileNotDownloadable", "Only files with binary content can be downloaded. Use Export with Docs Editors files.")
		return
	}
	k.w.Header().Set("Content-Type", f.mime)
	http.ServeContent(k.w, k.r, "", time.Time{}, bytes.NewReader(f.data))
}

func (k *driveCall) list() {
	fields := cmp.Or(k.r.FormValue("fields"), "kind,incompleteSearch,nextPageToken,files("+driveDefault+")")
	size := 100
	if s := k.r.FormValue("pageSize"); s != "" {
		var err error
		if size, err = strconv.Atoi(s); err != nil || size < 1 || size > 1000 {
			k.invalid(k.w, "pageSize")
			return
		}
	}
	if k.c.PageSize > 0 {
		size = min(size, k.c.PageSize)
	}
	var found []*driveFile
	if token := k.r.FormValue("pageToken"); token != "" {
		var ok bool
		if found, ok = k.d.pages[token]; !ok {
			k.fail(k.w, http.StatusBadRequest, "global", "invalid", "Invalid Value")
			return
		}
	} else {
		match, err := parseQuery(k.r.FormValue("q"))
		if err != nil {
			k.invalid(k.w, err.Error())
			return
		}
		spaces := strings.Split(cmp.Or(k.r.FormValue("spaces"), driveSpace), ",")
		for _, s := range spaces {
			if s != driveSpace && s != driveHidden {
				k.invalid(k.w, "spaces")
				return
			}
			if some, _ := may(k.scope, s); !some {
				k.lacking(k.w)
				return
			}
		}
		// The newest come first, but for those that the listing does not know yet.
		lag := k.c.Lag
		for _, f := range slices.Backward(k.d.files) {
			switch {
			case f.parent == "" || !slices.Contains(spaces, f.space):
			case lag > 0:
				lag--
			case visible(k.scope, f) && match(k.d, f):
				found = append(found, f)
			}
		}
	}
	reply := map[string]any{"kind": "drive#fileList", "incompleteSearch": false}
	if len(found) > size {
		token := "~!!~" + rand.Text()
		k.d.pages[token] = found[size:]
		reply["nextPageToken"] = token
		found = found[:size]
	}
	files := []any{}
	for _, f := range found {
		if k.d.find(f.id) != nil { // Else it was deleted since the page before.
			files = append(files, k.describe(f))
		}
	}
	reply["files"] = files
	if mask, _, ok := parseFields(fields); ok {
		for name := range mask["files"] {
			if name != "*" && !slices.Contains(driveKnown, name) {
				k.fail(k.w, http.StatusBadRequest, "global", "invalidParameter", "Invalid field selection "+name)
				return
			}
		}
	}
	k.reply(reply, fields, []string{"kind", "incompleteSearch", "nextPageToken", "files"})
}

// create makes a file. With "" for the type of its content it is what meta says.
func (k *driveCall) create(m driveMeta, kind string, data []byte, fields string) *driveFile {
	up := k.parent(m)
	if up == nil {
		return nil
	}
	if !k.fresh(m.ID) {
		return nil
	}
	if k.a.Quota > 0 && len(data) > 0 && k.d.used()+int64(len(data)) > k.a.Quota {
		k.full(k.w)
		return nil
	}
	f := &driveFile{
		id: cmp.Or(m.ID, "1"+rand.Text()), name: cmp.Or(m.Name, "Untitled"), mime: cmp.Or(m.MimeType, kind, "application/octet-stream"),
		parent: up.id, space: up.space, data: data, made: true, properties: m.AppProperties, created: k.c.now(), modified: k.c.now(),
	}
	if !m.ModifiedTime.IsZero() {
		f.modified = m.ModifiedTime
	}
	k.d.files = append(k.d.files, f)
	k.reply(k.describe(f), cmp.Or(fields, driveDefault), driveKnown)
	return f
}

// parent returns the folder that a new file is to be in.
func (k *driveCall) parent(m driveMeta) *driveFile {
	if len(m.Parents) > 1 {
		k.fail(k.w, http.StatusBadRequest, "global", "invalid", "A file cannot have several parents.")
		return nil
	}
	id := "root"
	if len(m.Parents) == 1 {
		id = m.Parents[0]
	}
	up := k.d.find(id)
	if up == nil || !visible(k.scope, up) && up.parent != "" {
		k.missing(k.w, id)
		return nil
	}
	if some, _ := may(k.scope, up.space); !some {
		k.lacking(k.w)
		return nil
	}
	if up.mime != driveFolder {
		k.fail(k.w, http.StatusForbidden, "global", "parentNotAFolder", "The specified parent is not a folder.")
		return nil
	}
	return up
}

// fresh checks an id that a client wants for a new file.
func (k *driveCall) fresh(id string) bool {
	switch {
	case id == "":
	case k.d.find(id) != nil:
		k.fail(k.w, http.StatusConflict, "global", "fileIdInUse", "A file already exists with the provided ID.")
		return false
	case !k.d.ids[id]:
		k.fail(k.w, http.StatusBadRequest, "global", "invalid", "The provided file ID is not usable.")
		return false
	}
	return true
}

// upload makes a file, or gives one other bytes: in one request, or it begins to.
func (k *driveCall) upload() {
	id, fields := k.r.PathValue("id"), k.r.FormValue("fields")
	if id != "" && k.known(id) == nil {
		return
	}
	kind, params, _ := mime.ParseMediaType(k.r.Header.Get("Content-Type"))
	var m driveMeta
	switch k.r.FormValue("uploadType") {
	case "media", "":
		k.store(m, id, kind, k.body, fields)
	case "multipart":
		if len(k.body) > driveMultipart+(64<<10) {
			k.fail(k.w, http.StatusRequestEntityTooLarge, "global", "uploadTooLarge", "Multipart uploads are for small files.")
			return
		}
		if kind != "multipart/related" {
			k.fail(k.w, http.StatusBadRequest, "global", "badContent", "Unsupported content with type: "+kind)
			return
		}
		parts := multipart.NewReader(bytes.NewReader(k.body), params["boundary"])
		head, err := parts.NextRawPart()
		var text, data []byte
		if err == nil {
			text, err = io.ReadAll(head)
		}
		if err == nil {
			if head, err = parts.NextRawPart(); err == nil {
				kind, _, _ = mime.ParseMediaType(head.Header.Get("Content-Type"))
				data, err = io.ReadAll(head)
			}
		}
		if err == nil {
			_, err = parts.NextRawPart()
		}
		if err != io.EOF {
			k.fail(k.w, http.StatusBadRequest, "global", "malformedMultipart", "Malformed multipart body.")
			return
		}
		if k.decode(text, &m) {
			k.store(m, id, kind, data, fields)
		}
	case "resumable":
		if !k.decode(k.body, &m) || id == "" && (k.parent(m) == nil || !k.fresh(m.ID)) {
			return
		}
		u := &driveUpload{meta: m, file: id, total: -1, fields: fields}
		if m.MimeType == "" {
			u.meta.MimeType = k.r.Header.Get("X-Upload-Content-Type")
		}
		if s := k.r.Header.Get("X-Upload-Content-Length"); s != "" {
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil || n < 0 {
				k.invalid(k.w, "X-Upload-Content-Length")
				return
			}
			u.total = n
			if k.a.Quota > 0 && k.d.used()+n > k.a.Quota {
				k.full(k.w)
				return
			}
		}
		session := rand.Text()
		k.d.uploads[session] = u
		scheme, host := cmp.Or(k.r.URL.Scheme, "http"), cmp.Or(k.r.Host, k.r.URL.Host)
		if k.r.TLS != nil {
			scheme = "https"
		}
		k.w.Header().Set("Location", scheme+"://"+host+"/upload/drive/v3/sessions/"+session+"?upload_id="+session)
		k.w.WriteHeader(http.StatusOK)
	default:
		k.invalid(k.w, "uploadType")
	}
}

// store makes a file, or gives the one with this id other bytes.
func (k *driveCall) store(m driveMeta, id, kind string, data []byte, fields string) *driveFile {
	if id == "" {
		return k.create(m, kind, append([]byte{}, data...), fields)
	}
	f := k.d.find(id)
	if f == nil {
		k.missing(k.w, id)
		return nil
	}
	if k.a.Quota > 0 && k.d.used()-int64(len(f.data))+int64(len(data)) > k.a.Quota {
		k.full(k.w)
		return nil
	}
	f.data, f.sums, f.name, f.modified = append([]byte{}, data...), nil, cmp.Or(m.Name, f.name), k.c.now()
	if !m.ModifiedTime.IsZero() {
		f.modified = m.ModifiedTime
	}
	k.reply(k.describe(f), cmp.Or(fields, driveDefault), driveKnown)
	return f
}

// chunk takes a part of a large upload, or tells how much is there.
func (k *driveCall) chunk() {
	u := k.d.uploads[k.r.PathValue("session")]
	if u == nil {
		k.missing(k.w, "upload")
		return
	}
	if u.done != nil {
		k.reply(k.describe(u.done), cmp.Or(u.fields, driveDefault), driveKnown)
		return
	}
	from, to, total, ok := parseRange(k.r.Header.Get("Content-Range"), int64(len(k.body)))
	if !ok || total >= 0 && u.total >= 0 && total != u.total || from > int64(len(u.data)) {
		k.invalid(k.w, "Content-Range")
		return
	}
	if total >= 0 {
		u.total = total
	}
	if n := to - from; n > 0 {
		last := u.total >= 0 && to == u.total
		if !last && n%driveChunk != 0 {
			k.invalid(k.w, "size of the chunk")
			return
		}
		// What is there already stays; of a torn chunk there is less than it says.
		if have := int64(len(u.data)) - from; have < int64(len(k.body)) {
			u.data = append(u.data, k.body[have:]...)
		}
	}
	if u.total >= 0 && int64(len(u.data)) == u.total {
		u.done = k.store(u.meta, u.file, "", u.data, u.fields)
		return
	}
	if len(u.data) > 0 {
		k.w.Header().Set("Range", fmt.Sprintf("bytes=0-%d", len(u.data)-1))
	}
	if k.r.Header.Get("X-GUploader-No-308") == "yes" {
		k.w.Header().Set("X-Http-Status-Code-Override", "308")
		k.w.WriteHeader(http.StatusOK)
		return
	}
	k.w.WriteHeader(http.StatusPermanentRedirect)
}

// parseRange reads "bytes 0-9/20", "bytes 0-9/*" and "bytes */20"; to is behind the
// last byte, total -1 if it is unknown. Without a header there are n bytes in all.
func parseRange(s string, n int64) (from, to, total int64, ok bool) {
	if s == "" {
		return 0, n, n, true
	}
	span, all, ok := strings.Cut(strings.TrimPrefix(s, "bytes "), "/")
	if !ok {
		return 0, 0, 0, false
	}
	total = -1
	if all != "*" {
		var err error
		if total, err = strconv.ParseInt(all, 10, 64); err != nil || total < 0 {
			return 0, 0, 0, false
		}
	}
	if span == "*" {
		return 0, 0, total, true
	}
	a, b, ok := strings.Cut(span, "-")
	from, err1 := strconv.ParseInt(a, 10, 64)
	to, err2 := strconv.ParseInt(b, 10, 64)
	if !ok || err1 != nil || err2 != nil || from < 0 || to < from || total >= 0 && to >= total {
		return 0, 0, 0, false
	}
	return from, to + 1, total, true
}

func (k *driveCall) update() {
	f := k.known(k.r.PathValue("id"))
	if f == nil {
		return
	}
	var m driveMeta
	if !k.decode(k.body, &m) {
		return
	}
	if up := k.r.FormValue("addParents"); up != "" {
		to := k.known(up)
		if to == nil {
			return
		}
		f.parent = to.id
	}
	f.name = cmp.Or(m.Name, f.name)
	if m.Trashed != nil {
		f.trashed = *m.Trashed
	}
	if m.AppProperties != nil {
		f.properties = m.AppProperties
	}
	if !m.ModifiedTime.IsZero() {
		f.modified = m.ModifiedTime
	}
	k.reply(k.describe(f), cmp.Or(k.r.FormValue("fields"), driveDefault), driveKnown)
}

// remove deletes a file for good, and with a folder what is in it.
func (k *driveCall) remove() {
	f := k.known(k.r.PathValue("id"))
	if f == nil {
		return
	}
	if f.parent == "" {
		k.fail(k.w, http.StatusForbidden, "global", "insufficientFilePermissions", "The user does not have sufficient permissions for this file.")
		return
	}
	gone := map[string]bool{f.id: true}
	for again := true; again; {
		again = false
		for _, f := range k.d.files {
			if gone[f.parent] && !gone[f.id] {
				gone[f.id], again = true, true
			}
		}
	}
	k.d.files = slices.DeleteFunc(k.d.files, func(f *driveFile) bool { return gone[f.id] })
	k.w.WriteHeader(http.StatusNoContent)
}
