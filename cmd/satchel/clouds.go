package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/idna"

	"github.com/satchel-backup/satchel/internal/signin"
	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/dropbox"
	"github.com/satchel-backup/satchel/store/gdrive"
	keychainstore "github.com/satchel-backup/satchel/store/keychain"
	"github.com/satchel-backup/satchel/store/onedrive"
	"github.com/satchel-backup/satchel/store/onepassword"
	"github.com/satchel-backup/satchel/store/rclone"
	"github.com/satchel-backup/satchel/store/s3"
	"github.com/satchel-backup/satchel/store/webdav"
)

// signing is how this device gets into a kind of place.
type signing int

const (
	none     signing = iota // it needs nothing, or another program of the user's does it
	browser                 // the user says yes in the browser, and the address names the account
	password                // the address names the user, or the key, and there is a password to it
	account                 // another program signs in; whose account it is, is remembered
)

// cloudKind is a kind of place that is no folder.
type cloudKind struct {
	scheme string
	form   string // how such an address looks
	name   string // for people
	signing
	fake bool // never run against the real service by us
	// check returns the address as it is written, or what is wrong with it.
	check func(address string) (string, error)
	// open opens it with the sign-in for it.
	open func(a *app, address string, r signin.Record) (store.Store, error)
}

// cloudKinds are the kinds of places that are no folders.
func cloudKinds() []cloudKind {
	return []cloudKind{
		{"gdrive", "gdrive:", "Google Drive", browser, true, checkAccount, func(a *app, address string, r signin.Record) (store.Store, error) {
			_, folder := splitAccount(address)
			cfg := gdrive.Config{Tokens: a.tokensOf(r), Owner: r.Account, Transport: a.transport(), Folder: folder}
			if folder == hiddenFolder {
				cfg.Folder, cfg.AppData = "", true
			}
			return gdrive.New(cfg)
		}},
		{"dropbox", "dropbox:", "Dropbox", browser, true, checkAccount, func(a *app, address string, r signin.Record) (store.Store, error) {
			_, folder := splitAccount(address)
			return dropbox.New(dropbox.Config{Tokens: a.tokensOf(r), Owner: r.Account, Transport: a.transport(), Folder: folder})
		}},
		{"onedrive", "onedrive:", "OneDrive", browser, true, checkAccount, func(a *app, address string, r signin.Record) (store.Store, error) {
			_, folder := splitAccount(address)
			return onedrive.New(onedrive.Config{Tokens: a.tokensOf(r), Owner: r.Account, Transport: a.transport(), Folder: folder})
		}},
		{"webdav+https", "webdav+https://USER@HOST/PATH", "WebDAV (Nextcloud, ownCloud, a NAS …)", password, false, checkURL, openWebDAV},
		{"webdav+http", "", "WebDAV without TLS, on this network", password, false, checkURL, openWebDAV},
		{"s3", "s3://KEY@HOST/BUCKET/PATH", "S3", password, false, checkURL, openS3},
		{"s3+http", "", "S3 without TLS, on this network", password, false, checkURL, openS3},
		{"rclone", "rclone:REMOTE:PATH", "a remote of your rclone", none, false, checkRclone, func(a *app, address string, _ signin.Record) (store.Store, error) {
			return rclone.New(strings.TrimPrefix(address, "rclone:"), rclone.Config{Marked: true})
		}},
		{"1password", "1password:VAULT", "1Password, by its op command", account, true, checkRest, func(a *app, address string, r signin.Record) (store.Store, error) {
			return onepassword.New(strings.TrimPrefix(address, "1password:"), onepassword.Config{Account: r.Account})
		}},
		{"keychain", "keychain:", "the keychain of this computer, for small wallets", none, false, checkName, func(a *app, address string, _ signin.Record) (store.Store, error) {
			home, err := a.home()
			if err != nil {
				return nil, err
			}
			return keychainstore.New(strings.TrimPrefix(address, "keychain:"), keychainstore.Config{Keychain: keychain.System(), Dir: filepath.Join(home, "keychain-place")})
		}},
	}
}

// walks reports whether listing such a place costs a request for each folder.
func (k *cloudKind) walks() bool {
	return strings.HasPrefix(k.scheme, "webdav") || k.scheme == "onedrive"
}

// hiddenFolder is the folder of Google Drive that only the program sees.
const hiddenFolder = "appDataFolder"

// cloudOf returns the kind of an address, nil if it is that of a folder.
func cloudOf(address string) *cloudKind {
	scheme, _, ok := strings.Cut(address, ":")
	for _, k := range cloudKinds() {
		if ok && k.scheme == scheme || address == k.scheme && (k.signing == browser || k.scheme == "keychain") {
			return &k
		}
	}
	return nil
}

// checkAccount is for addresses such as gdrive:ann@example.org/Folder.
func checkAccount(address string) (string, error) {
	scheme, rest, _ := strings.Cut(address, ":")
	name, folder, _ := strings.Cut(rest, "/")
	if rest != "" && name == "" {
		return "", usagef("the account is missing: %s:NAME/FOLDER, or %s: for the one that is signed in", scheme, scheme)
	}
	folder = strings.Trim(withoutBackup(strings.Trim(folder, "/")), "/")
	if folder != "" {
		if err := store.CheckName(folder); err != nil {
			return "", usagef("the folder in the address is not usable")
		}
		folder = "/" + folder
	}
	return scheme + ":" + name + folder, nil
}

// splitAccount returns the part of an address that is the sign-in, and the folder.
func splitAccount(address string) (login, folder string) {
	login, folder, _ = strings.Cut(address, "/")
	return login, folder
}

// checkURL is for addresses such as webdav+https://ann@cloud.example.org/path.
func checkURL(address string) (string, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "" || u.Fragment != "":
		return "", usagef("this is no address: it looks like %s://USER@HOST/PATH", strings.SplitN(address, ":", 2)[0])
	case u.User != nil && hasPassword(u.User):
		return "", &usageError{
			text: "a password does not belong in an address, where other programs and the history of the shell see it",
			hint: "leave it away: it is asked for, or --password-fd N hands it over; and change it if others use this computer",
		}
	}
	u.Path = strings.TrimSuffix(withoutBackup(path.Clean("/"+u.Path)), "/")
	u.RawPath, u.ForceQuery = "", false
	// One host is written in one way: what is there once must not look like two places.
	host, port := strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")), u.Port()
	if port == usualPort(u.Scheme) {
		port = ""
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if u.Host = host; port != "" {
		u.Host += ":" + port
	}
	return u.String(), nil
}

// withoutBackup takes a last element off that is the folder of a backup: a person may well
// point at the backup itself.
func withoutBackup(p string) string {
	if dir, last := path.Split(p); strings.HasPrefix(last, seal.FolderPrefix) {
		return strings.TrimSuffix(dir, "/")
	}
	return p
}

// usualPort is the one that an address of a server need not name.
func usualPort(scheme string) string {
	if strings.HasSuffix(scheme, "+http") {
		return "80"
	}
	return "443"
}

// oneForm returns an address in a form in which all addresses of one place are equal,
// as far as addresses tell: two keys to a bucket open one, and one keychain is one.
func oneForm(address string) string {
	scheme, rest, _ := strings.Cut(address, ":")
	switch {
	case scheme == "dropbox" || scheme == "onedrive": // They do not tell capitals from others.
		login, folder := splitAccount(address)
		return join(login, strings.ToLower(folder))
	case scheme == "keychain":
		return "keychain:"
	case scheme == "rclone":
		remote, dir, _ := strings.Cut(rest, ":")
		return "rclone:" + remote + ":" + strings.TrimPrefix(path.Clean("/"+dir), "/")
	case strings.HasPrefix(scheme, "s3") || strings.HasPrefix(scheme, "webdav"):
		u, err := url.Parse(address)
		if err != nil {
			return address
		}
		host := u.Hostname()
		if ascii, err := idna.Lookup.ToASCII(host); err == nil {
			host = ascii
		}
		host += ":" + cmp.Or(u.Port(), usualPort(scheme))
		if strings.HasPrefix(scheme, "s3") {
			if strings.HasSuffix(host, ".amazonaws.com:443") {
				host = "amazonaws.com" // A bucket's name is one in all of them.
			}
			return "s3://" + host + u.Path
		}
		user := u.User.Username()
		// Nextcloud and ownCloud show the same files at both.
		at := strings.Replace(u.Path+"/", "/remote.php/webdav/", "/remote.php/dav/files/"+user+"/", 1)
		return scheme + "://" + user + "@" + host + at
	}
	return address
}

func hasPassword(u *url.Userinfo) bool {
	_, ok := u.Password()
	return ok
}

// checkRest is for addresses whose rest another program understands.
func checkRest(address string) (string, error) {
	scheme, rest, _ := strings.Cut(address, ":")
	if rest == "" {
		return "", usagef("something is missing after %s:", scheme)
	}
	head, tail, _ := strings.Cut(rest, ":") // the remote; a vault has no such part
	if tail != "" {
		return scheme + ":" + head + ":" + withoutBackup(strings.TrimSuffix(tail, "/")), nil
	}
	return address, nil
}

// checkRclone writes the path of a remote in one way.
func checkRclone(address string) (string, error) {
	address, err := checkRest(address)
	if err != nil {
		return "", err
	}
	s, err := rclone.New(strings.TrimPrefix(address, "rclone:"), rclone.Config{})
	if err != nil {
		return "", usageOf(err)
	}
	return "rclone:" + s.Address(), nil
}

// checkName is for addresses that may name one of several stores. The usual one has no
// name.
func checkName(address string) (string, error) {
	scheme, name, _ := strings.Cut(address, ":")
	if name == "store" {
		name = ""
	}
	return scheme + ":" + name, nil
}

// login is the address under which the sign-in for a place is kept: one password opens
// all folders of its user.
func (k *cloudKind) login(address string) string {
	switch k.signing {
	case browser:
		login, _ := splitAccount(address)
		return login
	case password:
		u, err := url.Parse(address)
		if err != nil || u.User == nil {
			return ""
		}
		return (&url.URL{Scheme: u.Scheme, User: u.User, Host: u.Host}).String()
	case account:
		return address
	}
	return ""
}

func openWebDAV(a *app, address string, r signin.Record) (store.Store, error) {
	c, err := webdav.Parse(address)
	if err != nil {
		return nil, err
	}
	c.Password, c.Transport = r.Password, a.transport()
	return webdav.New(c)
}

// openS3 opens a bucket. The address names the access key, as others name the user.
func openS3(a *app, address string, r signin.Record) (store.Store, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("the address is not usable")
	}
	key := u.User.Username()
	u.User = nil
	c, err := s3.Parse(u.String())
	if err != nil {
		return nil, err
	}
	c.AccessKey, c.SecretKey, c.Transport = key, r.Password, a.transport()
	return s3.New(c)
}

// openCloud opens a place that is no folder. Nothing is asked for before its first use:
// not the keychain, and not the network.
func (a *app) openCloud(k *cloudKind, address string) (store.Place, error) {
	address, err := k.check(address)
	if err != nil {
		return store.Place{}, err
	}
	if address, err = a.named(k, address); err != nil {
		return store.Place{}, err
	}
	if a.transport(); a.network.err != nil {
		return store.Place{}, usageOf(a.network.err)
	}
	// What is wrong with the address is said at once.
	if _, err := k.open(a, address, signin.Record{}); err != nil {
		return store.Place{}, usageOf(err)
	}
	return store.Place{Address: address, Walks: k.walks(), Store: &whenUsed{
		open: func() (store.Store, error) { return a.openSigned(k, address) },
		now:  a.now, patient: k.signing == password, kept: func() time.Time { return a.keeper().Kept(k.login(address)) },
	}}, nil
}

// openSigned opens a place with its sign-in.
func (a *app) openSigned(k *cloudKind, address string) (store.Store, error) {
	r := signin.Record{}
	if login := k.login(address); login != "" {
		var err error
		if r, err = a.keeper().Get(login); err != nil {
			return nil, err
		}
	}
	return k.open(a, address, r)
}

// named returns an address with the name of the account in it, if only one of that kind
// is signed in.
func (a *app) named(k *cloudKind, address string) (string, error) {
	login, folder := splitAccount(address)
	if k.signing != browser || login != k.scheme+":" {
		return address, nil
	}
	list, err := a.logins(k)
	if err == nil && len(list) == 1 {
		return join(list[0], folder), nil
	}
	return address, err
}

// logins are the accounts of a kind of place that this device signs in to.
func (a *app) logins(k *cloudKind) ([]string, error) {
	list, err := a.keeper().List()
	slices.Sort(list)
	return slices.DeleteFunc(list, func(s string) bool { return !strings.HasPrefix(s, k.scheme+":") }), err
}

// whenUsed is a store that is opened when it is used first.
type whenUsed struct {
	open func() (store.Store, error)
	now  func() time.Time
	// patient makes a password that was refused wait before it is sent again: servers lock
	// accounts for that (R9). Signing in again, in this process or another, ends the wait.
	patient bool
	kept    func() time.Time // when the password was kept

	mu      sync.Mutex
	inner   store.Store   // guarded by mu
	refused time.Time     // when the password was refused last; guarded by mu
	which   time.Time     // when that was kept; guarded by mu
	wait    time.Duration // guarded by mu
}

// How long a refused password waits before it is sent again.
const (
	firstRefusal = time.Minute
	lastRefusal  = time.Hour
)

// use calls the store.
func (s *whenUsed) use(do func(store.Store) error) error {
	s.mu.Lock()
	if s.now().Before(s.refused.Add(s.wait)) && s.kept().Equal(s.which) {
		s.mu.Unlock()
		return fmt.Errorf("the server refused the password, and is not asked for a while: %w", store.ErrSignIn)
	}
	inner := s.inner
	if inner == nil {
		var err error
		if inner, err = s.open(); err != nil {
			s.mu.Unlock()
			return err
		}
		s.inner = inner
	}
	s.mu.Unlock()
	err := do(inner)
	if !s.patient {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, store.ErrSignIn) {
		s.inner = nil // The next one may be another.
		s.refused, s.which, s.wait = s.now(), s.kept(), min(max(firstRefusal, 2*s.wait), lastRefusal)
	} else if err == nil {
		s.wait = 0
	}
	return err
}

// Put implements store.Store.
func (s *whenUsed) Put(ctx context.Context, name string, data []byte) error {
	return s.use(func(inner store.Store) error { return inner.Put(ctx, name, data) })
}

// Get implements store.Store.
func (s *whenUsed) Get(ctx context.Context, name string, want store.Hash, limit int64) (data []byte, err error) {
	err = s.use(func(inner store.Store) error {
		data, err = inner.Get(ctx, name, want, limit)
		return err
	})
	return data, err
}

// List implements store.Store.
func (s *whenUsed) List(ctx context.Context, prefix string) (list []store.Object, err error) {
	err = s.use(func(inner store.Store) error {
		list, err = inner.List(ctx, prefix)
		return err
	})
	return list, err
}

// Delete implements store.Store.
func (s *whenUsed) Delete(ctx context.Context, o store.Object) error {
	return s.use(func(inner store.Store) error { return inner.Delete(ctx, o) })
}

// transport is what carries requests to clouds: over the proxies of the environment, and
// trusting the certificates in SATCHEL_CA_FILE beside those of the system.
func (a *app) transport() http.RoundTripper {
	a.network.once.Do(func() {
		var roots *x509.CertPool
		if file := a.getenv("SATCHEL_CA_FILE"); file != "" {
			roots, a.network.err = withCertificates(file)
		}
		a.network.transport = web.NewTransport(roots)
	})
	if a.network.err != nil {
		return failing{a.network.err}
	}
	return a.network.transport
}

// network is made at its first use.
type network struct {
	once      sync.Once
	transport http.RoundTripper
	err       error
}

func withCertificates(file string) (*x509.CertPool, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("SATCHEL_CA_FILE: %w", err)
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("SATCHEL_CA_FILE: no certificate in it")
	}
	return roots, nil
}

// failing carries nothing.
type failing struct{ err error }

func (f failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }

// tokensOf are those of a sign-in.
func (a *app) tokensOf(r signin.Record) web.Tokens {
	if r.Address == "" {
		return signin.Tokens{}.Fixed() // only to see whether the address is one
	}
	p, err := a.provider(r.Address, r.Client, r.ClientSecret)
	if err != nil {
		return signin.Tokens{}.Fixed()
	}
	return a.keeper().Source(r.Address, p)
}

// provider is where tokens for an address come from.
func (a *app) provider(address, client string, clientSecret secret.Bytes) (signin.Provider, error) {
	scheme, _, _ := strings.Cut(address, ":")
	p := signin.Provider{Client: client, ClientSecret: clientSecret, Transport: a.transport()}
	switch scheme {
	case "gdrive":
		p.AuthURL, p.TokenURL, p.Redirect = gdrive.AuthURL, gdrive.TokenURL, "http://127.0.0.1/"
		// One sign-in is for the visible folders and the hidden one.
		p.Scopes = slices.Concat(gdrive.Scopes(false), gdrive.Scopes(true))
		p.Params = map[string]string{"access_type": "offline", "prompt": "consent select_account"}
	case "dropbox":
		p.AuthURL, p.TokenURL, p.Redirect = dropbox.AuthURL, dropbox.TokenURL, "http://localhost:53168/"
		p.Scopes = dropbox.Scopes()
		p.Params = map[string]string{"token_access_type": "offline"}
	case "onedrive":
		p.AuthURL, p.TokenURL, p.Redirect = onedrive.AuthURL, onedrive.TokenURL, "http://localhost"
		p.Scopes = onedrive.Scopes()
		p.Params = map[string]string{"prompt": "select_account"}
	default:
		return p, fmt.Errorf("nothing is known about signing in to %s", printable(scheme))
	}
	return p, nil
}
