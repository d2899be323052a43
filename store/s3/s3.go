// Package s3 keeps a store in a bucket of Amazon S3 or of a service that speaks the same
// protocol: Backblaze B2, Cloudflare R2, Wasabi, Hetzner, Ceph, MinIO, versitygw, Garage.
//
//	c, err := s3.Parse("s3://ACCESSKEY@s3.eu-central-1.amazonaws.com/BUCKET/backups")
//	c.SecretKey = asked
//	s, err := s3.New(c)
//
// The bucket must exist: what a bucket costs and who may read it is chosen where it is
// made. The key needs the rights to list the bucket, and to get, put and delete objects
// in it, and no other.
//
// # How an object is put
//
// In one request, also a large one, so it is there whole or not at all; the service
// checks an MD5 of what arrives. The condition "If-None-Match: *" goes with it, so that
// nothing is replaced:
//
//	kept, by their documents     Amazon S3 (since August 2024), Cloudflare R2, Ceph, MinIO
//	                             (since 2024), SeaweedFS, Scaleway, DigitalOcean
//	seen to be kept              versitygw 1.8, also by two at the same moment (200 times)
//	refused as not implemented   Backblaze B2: the object is put without
//	not known                    others; a service that ignores it puts without
//
// The store looks for the name before, and one process puts one name at a time. Without
// the condition two processes that put other bytes under one name within a few
// milliseconds remain: names of a backup hold a hash of the bytes or the id of the
// device, and whoever put reads back.
//
// In a bucket with versions a deleted object keeps its bytes in an older version, until
// a rule of the bucket removes it: what must be gone, such as the slot of an old PIN, is
// then still there for whoever may read versions. In a bucket with object lock the same
// is so until the lock ends. Neither harms a backup.
//
// # What it costs
//
// Requests: Put of a new object 2 (look, put), of one that is there already 1; Get 1;
// Delete 1; List 1 for each 1,000 objects. The first request of a process asks one more,
// for the region, if none is given and the address does not tell it.
package s3

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
)

// Config says which bucket it is, and with which key it is opened.
type Config struct {
	// Host is where the service answers, with a port if it is not that of https.
	Host string
	// Plain is http instead of https, for a service on this machine or in the local
	// network.
	Plain  bool
	Bucket string
	// Prefix is what the names of objects begin with in the bucket, followed by a slash.
	// Empty means nothing.
	Prefix string
	// Region is where the bucket is. Empty means that the service is asked, with one
	// request; Cloudflare R2 wants "auto".
	Region string
	// PathStyle asks for the bucket in the path and not in the name of the host. It is so
	// without asking where the host is an address or localhost, and for every service
	// that is not known to need the other.
	PathStyle bool

	AccessKey string
	SecretKey secret.Bytes

	// Transport carries one request. Nil means web.NewTransport(nil).
	Transport http.RoundTripper
}

// Store is a [store.Store] in a bucket. Where the key does not allow what was asked, it
// is fs.ErrPermission. Methods may be called concurrently.
type Store struct {
	cfg    Config
	web    *web.Client
	byHost bool        // the name of the host holds that of the bucket
	plain  atomic.Bool // the service knows no condition

	turns web.Turns // of puts, by name

	mu     sync.Mutex
	region string // "" until it is known; guarded by mu
}

var _ store.Store = (*Store)(nil)

const (
	spare      = 1 << 20 // bytes that an answer may have besides an object: an error in XML
	maxPage    = 16 << 20
	maxPages   = 1 << 11
	maxEntries = 1 << 20 // objects in a listing
)

// ErrBucket and the like are facts behind store.ErrUnreachable.
var (
	ErrBucket  = errors.New("the bucket is missing; was it deleted, or is its name another")
	ErrClock   = errors.New("the clock of this device and that of the service differ by more than 15 minutes; set the clock")
	ErrRegion  = errors.New("the bucket is in another region than the address or the settings say")
	ErrNotS3   = errors.New("the answer is not one of an S3 service; is the address right, and is there a network that wants a sign-in first")
	ErrArchive = errors.New("the object is archived; it must be restored at the service first")
	errRace    = errors.New("others put the same name all the time")
	errLong    = errors.New("more came than the object has")
	ErrFault   = errors.New("the service has a fault")
	errAnswer  = errors.New("the answer cannot be read")
)

// New returns the store in the bucket. It makes no request.
func New(c Config) (*Store, error) {
	host := (&url.URL{Host: c.Host}).Hostname()
	switch {
	case host == "" || strings.ContainsAny(c.Host, "/@?#"):
		return nil, errors.New("opening bucket: the name of the host is not usable")
	case c.Bucket == "" || strings.ContainsAny(c.Bucket, "/?#") || c.Bucket == "." || c.Bucket == "..":
		return nil, errors.New("opening bucket: the name of the bucket is not usable")
	case c.Prefix != "" && store.CheckName(c.Prefix) != nil:
		return nil, errors.New("opening bucket: the prefix is not usable")
	case c.Plain && !web.Local(host):
		return nil, errors.New("opening bucket: without https everyone on the way could read what is stored")
	}
	if u, err := url.Parse("https://" + c.Host); err != nil || u.Host != c.Host {
		return nil, errors.New("opening bucket: the name of the host is not usable")
	}
	return &Store{
		cfg: c, web: web.New(web.Config{Transport: c.Transport, Later: later}), byHost: !c.PathStyle && namedByHost(host, c.Bucket),
		region: cmp.Or(c.Region, amazonRegion(host)),
	}, nil
}

// Parse reads an address such as s3://ACCESSKEY@HOST/BUCKET/PREFIX, or s3+http://… for a
// service on this machine or in the local network. After ? it may hold region=NAME. The
// secret key does not belong in it.
func Parse(address string) (Config, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "s3" && u.Scheme != "s3+http" || u.Opaque != "" || u.Fragment != "" {
		return Config{}, errors.New("not an address of a bucket")
	}
	if _, set := u.User.Password(); set {
		return Config{}, errors.New("a secret key does not belong in an address")
	}
	c := Config{Host: u.Host, Plain: u.Scheme == "s3+http", AccessKey: u.User.Username()}
	c.Bucket, c.Prefix, _ = strings.Cut(strings.Trim(u.Path, "/"), "/")
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Config{}, errors.New("not an address of a bucket")
	}
	for key, values := range query {
		if key != "region" || len(values) != 1 {
			return Config{}, errors.New("the address of a bucket has something after ? that is not known")
		}
		c.Region = values[0]
	}
	return c, nil
}

// Address returns the bucket's address, as [Parse] reads it.
func (s *Store) Address() string {
	u := url.URL{Scheme: "s3", Host: s.cfg.Host, Path: "/" + s.cfg.Bucket}
	if s.cfg.Plain {
		u.Scheme = "s3+http"
	}
	if s.cfg.AccessKey != "" {
		u.User = url.User(s.cfg.AccessKey)
	}
	if s.cfg.Prefix != "" {
		u.Path += "/" + s.cfg.Prefix
	}
	if s.cfg.Region != "" {
		u.RawQuery = url.Values{"region": {s.cfg.Region}}.Encode()
	}
	return u.String()
}

// Create returns an error unless the bucket can be listed: the moment in which a user
// chooses a place is the one to say that its name or key is wrong.
func (s *Store) Create(ctx context.Context) error {
	if _, err := s.page(ctx, "", "", 1); err != nil {
		return fmt.Errorf("opening bucket: %w", explain(err))
	}
	return nil
}

// key returns what an object's name is in the bucket.
func (s *Store) key(name string) string {
	if s.cfg.Prefix == "" {
		return name
	}
	return s.cfg.Prefix + "/" + name
}

// unknown makes an answer that cannot be read, as one of which half came, no answer. In
// a listing it is a part that is missing, which List says in its own way.
func unknown(err error) error {
	if errors.Is(err, errAnswer) {
		return fmt.Errorf("%w: %w", store.ErrUnreachable, err)
	}
	return err
}

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	err := store.CheckPut(name, data)
	if err == nil {
		err = s.put(ctx, name, data)
	}
	if err != nil {
		return fmt.Errorf("putting object: %w", unknown(err))
	}
	return nil
}

func (s *Store) put(ctx context.Context, name string, data []byte) error {
	done, err := s.turns.Take(ctx, name)
	if err != nil {
		return err
	}
	defer done()
	for range 3 { // Another may put and delete in between.
		if there, err := s.compare(ctx, name, data); there || err != nil {
			return err
		}
		switch code, err := s.send(ctx, name, data); {
		case err == nil:
			return nil
		case code == http.StatusNotImplemented && !s.plain.Swap(true):
			// The service knows no condition. It is put without, then and from now on.
		case code == http.StatusPreconditionFailed || code == http.StatusConflict:
			// Another was faster, or the answer to the first of two equal requests was
			// lost. Which it was, the next look shows.
		default:
			return err
		}
	}
	if there, err := s.compare(ctx, name, data); there || err != nil {
		return err
	}
	return fmt.Errorf("%w: %w", store.ErrUnreachable, errRace)
}

// send puts without looking. With an error it returns the status of the answer, if there
// was one.
func (s *Store) send(ctx context.Context, name string, data []byte) (status int, err error) {
	sum := md5.Sum(data)
	header := http.Header{"Content-Type": {"application/octet-stream"}, "Content-Md5": {base64.StdEncoding.EncodeToString(sum[:])}}
	if !s.plain.Load() {
		header.Set("If-None-Match", "*")
	}
	if data == nil {
		data = []byte{}
	}
	_, err = s.do(ctx, request{method: http.MethodPut, key: s.key(name), header: header, body: data})
	if no, ok := errors.AsType[*refusal](err); ok {
		status = no.status
	}
	return status, explain(err)
}

// compare reports whether an object of these bytes is there. One of other bytes is
// store.ErrExist.
func (s *Store) compare(ctx context.Context, name string, data []byte) (bool, error) {
	there, err := s.get(ctx, name, int64(len(data)))
	switch {
	case errors.Is(err, store.ErrNotExist):
		return false, nil
	case errors.Is(err, store.ErrTooLarge):
		return false, store.ErrExist
	case err == nil && !bytes.Equal(there, data):
		if err := s.whole(ctx, name, there); err != nil {
			return false, err
		}
		return false, store.ErrExist
	}
	return err == nil, err
}

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	err := store.CheckName(name)
	var data []byte
	if err == nil {
		data, err = s.get(ctx, name, limit)
	}
	if err == nil && !want.Matches(data) {
		if err = s.whole(ctx, name, data); err == nil {
			err = store.ErrDamaged
		}
	}
	if err != nil {
		return nil, fmt.Errorf("getting object: %w", unknown(err))
	}
	return data, nil
}

// whole returns an error unless the listing says that the object is as long as what came
// for it: something in between that gave half an answer says nothing of the object.
func (s *Store) whole(ctx context.Context, name string, data []byte) error {
	list, err := s.list(ctx, name)
	if err != nil {
		return err
	}
	for _, o := range list {
		if o.Name == name && o.Size != int64(len(data)) {
			return fmt.Errorf("%w: %w", store.ErrUnreachable, io.ErrUnexpectedEOF)
		}
	}
	return nil
}

func (s *Store) get(ctx context.Context, name string, limit int64) ([]byte, error) {
	a, err := s.do(ctx, request{method: http.MethodGet, key: s.key(name), limit: limit})
	switch {
	case errors.Is(err, store.ErrTooLarge), err == nil && int64(len(a.Body)) > limit:
		// Something in between may have said it, as in whole.
		list, err := s.list(ctx, name)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(list, func(o store.Object) bool { return o.Name == name && o.Size > limit }) {
			return nil, store.ErrTooLarge
		}
		return nil, fmt.Errorf("%w: %w", store.ErrUnreachable, errLong)
	case err != nil:
		return nil, explain(err)
	}
	return a.Body, nil
}

// List implements [store.Store].
func (s *Store) List(ctx context.Context, prefix string) ([]store.Object, error) {
	list, err := s.list(ctx, prefix)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, store.ErrUnreachable) && !errors.Is(err, store.ErrSignIn) {
			err = fmt.Errorf("%w: %w", store.ErrListing, err)
		}
		return nil, fmt.Errorf("listing objects: %w", err)
	}
	return list, nil
}

func (s *Store) list(ctx context.Context, prefix string) ([]store.Object, error) {
	if strings.ContainsFunc(prefix, func(r rune) bool { return r == '\\' || r < ' ' }) {
		return nil, ctx.Err() // No object has such a name, and not every service takes the question.
	}
	var list []store.Object
	top, token := s.key(""), ""
	for range maxPages {
		p, err := s.page(ctx, prefix, token, 0)
		if err != nil {
			return nil, explain(err)
		}
		for _, o := range p.Contents {
			if p.EncodingType == "url" {
				if o.Key, err = url.QueryUnescape(o.Key); err != nil {
					return nil, errAnswer
				}
			}
			name, ok := strings.CutPrefix(o.Key, top)
			if !ok || !strings.HasPrefix(name, prefix) || store.CheckName(name) != nil {
				continue // What no Put made, such as the "folders" of other programs.
			}
			if len(list) == maxEntries {
				return nil, errors.New("too many objects")
			}
			list = append(list, store.Object{Name: name, Size: o.Size, Modified: o.LastModified, ID: name})
		}
		switch {
		case !p.IsTruncated:
			return list, nil
		case p.NextContinuationToken == "":
			return nil, errAnswer
		}
		token = p.NextContinuationToken
	}
	return nil, errors.New("the listing has no end")
}

// page is a part of a listing.
type page struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	IsTruncated           bool
	NextContinuationToken string
	EncodingType          string
	Contents              []struct {
		Key          string
		Size         int64
		LastModified time.Time
	}
}

// page asks for a part of a listing, of at most so many objects; 0 means as many as the
// service gives.
func (s *Store) page(ctx context.Context, prefix, token string, most int) (*page, error) {
	q := map[string]string{"list-type": "2", "prefix": s.key(prefix), "encoding-type": "url"}
	if token != "" {
		q["continuation-token"] = token
	}
	if most > 0 {
		q["max-keys"] = strconv.Itoa(most)
	}
	a, err := s.do(ctx, request{method: http.MethodGet, query: q, limit: maxPage})
	if err != nil {
		return nil, err
	}
	p := new(page)
	if err := xml.Unmarshal(a.Body, p); err != nil {
		return nil, errAnswer // Its text may hold what the service sent.
	}
	return p, nil
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, o store.Object) error {
	name := o.ID
	if name == "" {
		name = o.Name
	}
	err := store.CheckName(name)
	if err == nil {
		err = s.remove(ctx, name)
	}
	if errors.Is(err, store.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("deleting object: %w", unknown(err))
	}
	return nil
}

func (s *Store) remove(ctx context.Context, name string) error {
	_, err := s.do(ctx, request{method: http.MethodDelete, key: s.key(name)})
	return explain(err)
}
