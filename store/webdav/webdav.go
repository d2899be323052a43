// Package webdav keeps a store in a folder of a WebDAV server: Nextcloud, ownCloud,
// sabre/dav, Apache, nginx, rclone, the NAS at home.
//
//	c, err := webdav.Parse("webdav+https://ann@cloud.example.org/remote.php/dav/files/ann")
//	c.Password = asked
//	s, err := webdav.New(c)
//	err = s.Create(ctx) // only when the user chooses the place
//
// # How an object is put
//
// The bytes go to a temporary name beside the wanted one, and MOVE with "Overwrite: F"
// gives them theirs. So no reader sees half of an object, what broke off is never taken
// for one, and what stands there is not replaced. A PUT with a condition would be one
// request less, and safe on no server. This was seen, "both" counting how often two at
// the same moment were both told yes, of 60:
//
//	                            Apache 2.4  nginx 1.22  sabre/dav 1.8  rclone 1.60
//	PUT with If-None-Match: *   kept        IGNORED     kept           IGNORED
//	  both                      27          60          3              38
//	PUT that breaks off leaves  nothing     nothing     nothing        A PART, also
//	                                                                   over an object
//	MOVE with Overwrite: F      kept        kept        kept           kept
//	  both                      9           0           4              0
//
// (sabre/dav ran under a server that waits for the whole body.) Nextcloud and ownCloud
// stand on sabre/dav and, by their documents, write to a part file of their own first.
// As no server makes looking for the target and renaming one step, the store looks before
// it sends anything, and one process puts one name at a time. Two processes that put
// other bytes under one name within the same few milliseconds remain: names of a backup
// hold a hash of the bytes or the id of the device, and whoever put reads back.
//
// # What it costs
//
// Requests: Put of a new object 3 (look, PUT, MOVE), of one that is there already 1; Get 1;
// Delete 2; List 1 for each folder that is looked into, as many servers refuse to list a
// whole tree. A Put into a folder that no listing or Put of this process saw asks for 1
// more where it is new in a known one, 3 where it is there, and 2 for each one above that
// has to be made. "There is none" is 1 more than an object that is there, as the place is
// looked at too.
//
// # What it does not do
//
// It signs in by HTTP's Basic scheme, so with a password of an app where there are two
// factors; Digest is not spoken. It never deletes folders: WebDAV would delete what
// another device puts there in the same moment. They stay behind empty.
package webdav

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
)

// Config says which folder it is, and whose.
type Config struct {
	// URL is the folder's address, such as https://cloud.example.org/dav/ann. With http
	// instead of https it must be on this machine or in the local network.
	URL string
	// User and Password sign in. An empty User sends neither.
	User     string
	Password secret.Bytes
	// Transport carries one request. Nil means web.NewTransport(nil).
	Transport http.RoundTripper
}

// Store is a [store.Store] in a folder of a server. A server that knows the user and
// does not allow what was asked is fs.ErrPermission.
type Store struct {
	base     *url.URL // its path ends with a slash
	user     string
	password secret.Bytes
	web      *web.Client

	byPath atomic.Bool   // how MOVE's destination is told
	making chan struct{} // holds one token, taken by who makes folders

	turns web.Turns // of puts, by name

	mu   sync.Mutex
	seen map[string]bool // folders that were there, but the store's own; guarded by mu
}

var _ store.Store = (*Store)(nil)

// marker is a file that Create leaves in the folder, so that an emptied one is not taken
// for a disk that the server lost. It is that of package folder: a place may be both.
const (
	marker     = ".satchel-folder"
	markerText = "Satchel keeps backups in this folder. This file shows that its drive is connected; please leave it here.\n"
)

// A temporary name has no dot before it: nginx does not list such, and what a crash left
// would stay for ever.
const (
	tempPrefix = "satchel-upload-"
	tempSuffix = ".tmp"
)

func isTemp(name string) bool {
	name = path.Base(name)
	return strings.HasPrefix(name, tempPrefix) && strings.HasSuffix(name, tempSuffix)
}

const (
	leftover   = 24 * time.Hour // the age at which a temporary file is one that a crash left
	sweepMost  = 8              // of them that one listing removes
	spare      = 1 << 20        // bytes that an answer may have besides an object: a page that says why not
	maxAnswer  = 64 << 20       // bytes of one folder's listing, about 100,000 entries
	maxEntries = 1 << 20        // objects in a listing
	maxFolders = 1 << 17        // folders that a listing looks into
	walkers    = 4              // requests of one listing at a time
)

// ErrMissing and the like are facts behind store.ErrUnreachable.
var (
	ErrMissing  = errors.New("the folder is missing on the server; was it moved or deleted, or is a disk not connected there")
	ErrEmpty    = errors.New("the folder has nothing in it; is its disk connected at the server")
	ErrPage     = errors.New("a web page came instead of an answer; is this the address of a WebDAV folder, and is there a network that wants a sign-in first")
	ErrElse     = errors.New("the server sends elsewhere; the address may be wrong")
	ErrNotDAV   = errors.New("there is no WebDAV at this address")
	ErrPaths    = errors.New("the server names other paths than were asked for; a proxy before it must keep them")
	errAnswer   = errors.New("an answer cannot be read")
	errChanging = errors.New("folders keep changing")
	ErrFault    = errors.New("the server has a fault")
	errPart     = errors.New("the server sent another number of bytes than it says that the object has")
	errStands   = errors.New("something that is no object has this name on the server")
)

// New returns the store in the folder. It makes no request: one that is missing is
// store.ErrUnreachable at each call until it is there.
func New(c Config) (*Store, error) {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, errors.New("opening WebDAV folder: the address is not usable") // It may hold a password.
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("opening WebDAV folder: the address begins with neither https nor http")
	case u.Scheme == "http" && !web.Local(u.Hostname()):
		return nil, errors.New("opening WebDAV folder: without https everyone on the way could read the password")
	case strings.Contains(c.User, ":"):
		return nil, errors.New("opening WebDAV folder: the name of a user has no colon")
	case strings.Contains(u.Path, "//"):
		return nil, errors.New("opening WebDAV folder: the address has two slashes in a row")
	}
	for part := range strings.SplitSeq(u.Path, "/") {
		if part == "." || part == ".." {
			return nil, errors.New("opening WebDAV folder: the address has a . or .. in it")
		}
	}
	if !strings.HasSuffix(u.Path, "/") {
		u = u.JoinPath("/")
	}
	s := &Store{
		base: u, user: c.User, password: c.Password, web: web.New(web.Config{Transport: c.Transport, Later: locked}),
		making: make(chan struct{}, 1), seen: map[string]bool{},
	}
	s.making <- struct{}{}
	return s, nil
}

// locked reports whether another is at the file just now, as Nextcloud says it.
func locked(a *web.Answer) bool { return a.Status == http.StatusLocked }

// Parse reads an address such as webdav+https://ann@cloud.example.org/dav/ann. A
// password does not belong in it.
func Parse(address string) (Config, error) {
	rest, ok := strings.CutPrefix(address, "webdav+")
	u, err := url.Parse(rest)
	if !ok || err != nil {
		return Config{}, errors.New("not an address of a WebDAV folder")
	}
	if _, set := u.User.Password(); set {
		return Config{}, errors.New("a password does not belong in an address")
	}
	c := Config{User: u.User.Username()}
	u.User = nil
	c.URL = u.String()
	return c, nil
}

// Address returns the folder's address, as [Parse] reads it.
func (s *Store) Address() string {
	u := *s.base
	u.Path = strings.TrimSuffix(u.Path, "/")
	u.RawPath = strings.TrimSuffix(u.RawPath, "/")
	if s.user != "" {
		u.User = url.User(s.user)
	}
	return "webdav+" + u.String()
}

// Create makes the folder, if the one above it exists, and takes it for a place to
// begin in, also where it is empty. It is meant for the moment in which a user chooses
// a new place. Creating again is fine.
func (s *Store) Create(ctx context.Context) error {
	if err := s.create(ctx); err != nil {
		return fmt.Errorf("making WebDAV folder: %w", err)
	}
	return nil
}

func (s *Store) create(ctx context.Context) error {
	e, err := s.stat(ctx, "")
	switch {
	case errors.Is(err, store.ErrNotExist):
		a, err := s.do(ctx, "MKCOL", "", nil, nil, 0)
		if err != nil {
			return err
		}
		if a.Status == http.StatusConflict || a.Status == http.StatusNotFound {
			return fmt.Errorf("%w: the folder above it is missing on the server", store.ErrUnreachable)
		}
		if a.Status != http.StatusCreated && a.Status != http.StatusMethodNotAllowed {
			return refused(a)
		}
	case err != nil:
		return err
	case !e.folder:
		return errStands
	}
	a, err := s.do(ctx, http.MethodPut, marker, http.Header{"If-None-Match": {"*"}}, []byte(markerText), 0)
	switch {
	case err != nil:
		return err
	case a.Status != http.StatusPreconditionFailed && a.Status/100 != 2:
		return refused(a)
	}
	// A page that says yes to everything has no such file.
	if _, err = s.stat(ctx, marker); errors.Is(err, store.ErrNotExist) {
		return fmt.Errorf("%w: %w", store.ErrUnreachable, ErrNotDAV)
	}
	return err
}

// ---- requests

// path returns what the server knows the file or folder by, escaped. A folder's ends
// with a slash, and "" is the store's own.
func (s *Store) path(rel string) string {
	var b strings.Builder
	b.WriteString(s.base.EscapedPath())
	for i, part := range strings.Split(rel, "/") {
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(url.PathEscape(part))
	}
	return b.String()
}

func (s *Store) do(ctx context.Context, method, rel string, header http.Header, body []byte, limit int64) (*web.Answer, error) {
	if header == nil {
		header = http.Header{}
	}
	if s.user != "" {
		header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString(append([]byte(s.user+":"), s.password.Open()...)))
	}
	if method == http.MethodPut {
		header.Set("Content-Type", "application/octet-stream")
		if body == nil {
			body = []byte{}
		}
	}
	return s.web.Do(ctx, web.Request{
		Method: method, URL: s.base.Scheme + "://" + s.base.Host + s.path(rel), Header: header, Body: body, Limit: limit + spare,
	})
}

// refused says what an answer means that is not the one hoped for.
func refused(a *web.Answer) error {
	status := func(err error) error { return fmt.Errorf("%w (status %d)", err, a.Status) }
	unreachable := func(err error) error { return fmt.Errorf("%w: %w", store.ErrUnreachable, status(err)) }
	switch a.Status {
	case http.StatusUnauthorized:
		return status(store.ErrSignIn)
	case http.StatusForbidden:
		return status(fmt.Errorf("the server forbids it to this user: %w", fs.ErrPermission))
	case http.StatusNotFound, http.StatusGone:
		return unreachable(ErrMissing)
	case http.StatusInsufficientStorage, http.StatusRequestEntityTooLarge:
		return status(store.ErrFull)
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return unreachable(ErrNotDAV)
	}
	switch {
	case a.Status/100 == 3:
		return unreachable(ErrElse)
	case isPage(a):
		return unreachable(ErrPage)
	case a.Status/100 == 5:
		return unreachable(ErrFault)
	}
	return status(errors.New("the server refused"))
}

// isPage reports whether an answer is a page for people.
func isPage(a *web.Answer) bool {
	kind, _, _ := strings.Cut(a.Header.Get("Content-Type"), ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	return kind == "text/html" || kind == "application/xhtml+xml"
}

// standing returns an error unless the folder is there with something in it. "There is
// none" is said only of a folder that is: a server that lost its disk may well answer.
func (s *Store) standing(ctx context.Context) error {
	_, err := s.stat(ctx, marker)
	if !errors.Is(err, store.ErrNotExist) {
		return err
	}
	l, err := s.propfind(ctx, "", "1")
	if errors.Is(err, store.ErrNotExist) {
		return fmt.Errorf("%w: %w", store.ErrUnreachable, ErrMissing)
	}
	if err == nil && len(l.entries) == 0 {
		return fmt.Errorf("%w: %w", store.ErrUnreachable, ErrEmpty)
	}
	return unknown(err)
}

// absent returns store.ErrNotExist, or why nothing can be said.
func (s *Store) absent(ctx context.Context) error {
	if err := s.standing(ctx); err != nil {
		return err
	}
	return store.ErrNotExist
}

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	err := store.CheckName(name)
	var data []byte
	if err == nil {
		data, err = s.get(ctx, name, want, limit)
	}
	if errors.Is(err, store.ErrNotExist) {
		err = s.absent(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("getting object: %w", err)
	}
	return data, nil
}

// get does not look whether the folder stands when it says store.ErrNotExist.
func (s *Store) get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	a, err := s.do(ctx, http.MethodGet, name, http.Header{"Accept-Encoding": {"identity"}}, nil, limit)
	if errors.Is(err, store.ErrTooLarge) {
		a, err = &web.Answer{Status: http.StatusOK}, nil // Whose answer it is shows below.
	}
	switch {
	case err != nil:
		return nil, err
	case a.Status == http.StatusNotFound || a.Status == http.StatusGone:
		return nil, store.ErrNotExist
	case a.Status == http.StatusUnauthorized:
		return nil, refused(a)
	}
	whole := a.Status == http.StatusOK && a.Header.Get("Content-Encoding") == "" && !isPage(a)
	sized := want != "" || a.Header.Get("Content-Length") != ""
	if whole && sized && int64(len(a.Body)) <= limit && want.Matches(a.Body) {
		return a.Body, nil
	}
	// It may be a folder, which servers answer in many ways, or a page in the place of
	// an object, or bytes that are not all of it. The server's own word decides.
	e, err := s.stat(ctx, name)
	switch {
	case err != nil:
		return nil, err
	case e.folder:
		return nil, store.ErrNotExist
	case a.Status != http.StatusOK:
		return nil, refused(a)
	case e.size > limit:
		return nil, store.ErrTooLarge
	case e.size != int64(len(a.Body)) && isPage(a):
		return nil, fmt.Errorf("%w: %w", store.ErrUnreachable, ErrPage)
	case e.size != int64(len(a.Body)):
		return nil, fmt.Errorf("%w: %w", store.ErrUnreachable, errPart)
	case !want.Matches(a.Body):
		return nil, store.ErrDamaged
	}
	return a.Body, nil
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, o store.Object) error {
	name := o.ID
	if name == "" {
		name = o.Name
	}
	err := store.CheckName(name)
	if err == nil {
		err = s.delete(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("deleting object: %w", err)
	}
	return nil
}

func (s *Store) delete(ctx context.Context, name string) error {
	// A folder would go with all that is in it.
	e, err := s.stat(ctx, name)
	if errors.Is(err, store.ErrNotExist) || err == nil && e.folder {
		return s.standing(ctx)
	}
	if err != nil {
		return err
	}
	a, err := s.do(ctx, http.MethodDelete, name, nil, nil, 0)
	switch {
	case err != nil:
		return err
	case a.Status == http.StatusNoContent:
		return nil
	case a.Status != http.StatusOK && a.Status != http.StatusAccepted && a.Status != http.StatusNotFound && a.Status != http.StatusGone:
		return refused(a)
	}
	// It was there a moment ago, the standard allows the first two, and a page for people
	// says 200 to everything.
	if _, err = s.stat(ctx, name); errors.Is(err, store.ErrNotExist) {
		return s.standing(ctx)
	}
	if err == nil {
		err = fmt.Errorf("%w: the server says it deleted, and has it still (status %s)", store.ErrUnreachable, strconv.Itoa(a.Status))
	}
	return err
}
