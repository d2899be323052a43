package s3

import (
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/store"
)

// usualRegion is what most services call their only one, and what is signed for where the
// region is asked for.
const usualRegion = "us-east-1"

// request is one request about the bucket.
type request struct {
	method string
	key    string            // of the object; "" means the bucket
	query  map[string]string // nil means none
	header http.Header       // nil means none
	body   []byte
	limit  int64 // bytes of the object that is asked for
}

// refusal is what a service says when it does not do what it was asked to. It holds
// nothing more of the answer: the rest may be secret.
type refusal struct {
	status int
	code   string
	region string // where the bucket is, if it tells
}

func (r *refusal) Error() string { return fmt.Sprintf("the service refused (status %d)", r.status) }

// do makes a request. The answer is one of an S3 service that says yes; what else it may
// say is a *refusal.
func (s *Store) do(ctx context.Context, r request) (*web.Answer, error) {
	region, err := s.where(ctx)
	if err != nil {
		return nil, err
	}
	a, err := s.ask(ctx, r, region)
	no, ok := errors.AsType[*refusal](err)
	if !ok || s.cfg.Region != "" || no.region == "" || no.region == region {
		return a, err
	}
	// It knows better than it said before, or than its name says.
	s.mu.Lock()
	s.region = no.region
	s.mu.Unlock()
	return s.ask(ctx, r, no.region)
}

// where returns the bucket's region.
func (s *Store) where(ctx context.Context) (string, error) {
	s.mu.Lock()
	region := s.region
	s.mu.Unlock()
	if region != "" {
		return region, nil
	}
	a, err := s.ask(ctx, request{method: http.MethodGet, query: map[string]string{"location": ""}}, usualRegion)
	switch no, ok := errors.AsType[*refusal](err); {
	case err == nil:
		var answer struct {
			XMLName xml.Name `xml:"LocationConstraint"`
			Region  string   `xml:",chardata"`
		}
		if xml.Unmarshal(a.Body, &answer) != nil {
			return "", errAnswer
		}
		if region = strings.TrimSpace(answer.Region); region != "" && region != "EU" && !isRegion(region) {
			return "", errAnswer
		}
	case ok && no.region != "":
		region = no.region
	case ok && (no.code == "AccessDenied" || no.code == "AuthorizationHeaderMalformed" || no.code == "NotImplemented"):
		// The key need not have the right to ask.
	default:
		return "", err
	}
	switch region {
	case "":
		region = usualRegion
	case "EU":
		region = "eu-west-1" // So it was called once.
	}
	s.mu.Lock()
	s.region = region
	s.mu.Unlock()
	return region, nil
}

// ask makes a request that is signed for a region.
func (s *Store) ask(ctx context.Context, r request, region string) (*web.Answer, error) {
	u := s.address(r, region)
	header := r.header.Clone()
	if header == nil {
		header = http.Header{}
	}
	sign(r.method, u, header, r.body, s.cfg.AccessKey, s.cfg.SecretKey, region, time.Now())
	a, err := s.web.Do(ctx, web.Request{Method: r.method, URL: u.String(), Header: header, Body: r.body, Limit: r.limit + spare})
	if err != nil {
		return nil, err
	}
	if err := check(r, a); err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrUnreachable, err)
	}
	if a.Status/100 == 2 {
		return a, nil
	}
	no := &refusal{status: a.Status}
	var answer struct {
		XMLName      xml.Name `xml:"Error"`
		Code, Region string
	}
	switch err := xml.Unmarshal(a.Body, &answer); {
	case err == nil:
		no.code = answer.Code
	case a.Status == http.StatusNotFound:
		return nil, errAnswer // It may be about the bucket or about the object.
	}
	if region := cmp.Or(answer.Region, a.Header.Get("X-Amz-Bucket-Region")); isRegion(region) {
		no.region = region
	}
	return nil, no
}

// isRegion reports whether a service may say that this is a region: it gets into the name
// of a host.
func isRegion(s string) bool {
	return s != "" && len(s) < 40 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// address is where a request goes.
func (s *Store) address(r request, region string) *url.URL {
	u := &url.URL{Scheme: "https", Host: s.cfg.Host, RawQuery: query(r.query)}
	usual := ":443"
	if s.cfg.Plain {
		u.Scheme, usual = "http", ":80"
	}
	u.Host = strings.TrimSuffix(u.Host, usual) // A proxy may leave it away, and the name is signed.
	if u.Host == "s3.amazonaws.com" && region != usualRegion {
		u.Host = "s3." + region + ".amazonaws.com"
	}
	u.Path = "/" + s.cfg.Bucket + "/" + r.key
	if _, asks := r.query["location"]; !asks && s.byHost {
		u.Host, u.Path = s.cfg.Bucket+"."+u.Host, "/"+r.key
	}
	u.RawPath = escape(u.Path, true)
	return u
}

// namedByHost reports whether a service wants the bucket in the name of the host.
func namedByHost(host, bucket string) bool {
	if len(bucket) > 63 || strings.Trim(bucket, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return false // No certificate is for such a name.
	}
	for _, domain := range []string{".amazonaws.com", ".amazonaws.com.cn", ".aliyuncs.com", "storage.googleapis.com"} {
		if strings.HasSuffix(host, domain) {
			return true
		}
	}
	return false
}

// amazonRegion returns the region that an address of Amazon's names, "" if it names none.
func amazonRegion(host string) string {
	name, ok := strings.CutSuffix(host, ".amazonaws.com")
	if !ok {
		name, ok = strings.CutSuffix(host, ".amazonaws.com.cn")
	}
	for _, start := range []string{"s3.dualstack.", "s3-fips.dualstack.", "s3-fips.", "s3.", "s3-"} {
		if region, found := strings.CutPrefix(name, start); ok && found && isRegion(region) {
			return region
		}
	}
	return ""
}

// check returns an error unless the answer is one of an S3 service: a page of a hotel's
// network says 200 to everything, and a proxy 404.
func check(r request, a *web.Answer) error {
	kind, _, _ := strings.Cut(a.Header.Get("Content-Type"), ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	ok := a.Status/100 == 2
	_, listing := r.query["list-type"]
	_, location := r.query["location"]
	switch {
	case ok && (kind == "text/html" || kind == "application/xhtml+xml"):
		return ErrNotS3
	case ok && listing:
		return root(a.Body, "ListBucketResult")
	case ok && r.method == http.MethodDelete && a.Status != http.StatusNoContent && len(a.Body) > 0:
		return ErrNotS3
	case a.Status == http.StatusNotFound:
		return root(a.Body, "Error")
	case ok && (r.method == http.MethodPut || r.method == http.MethodGet && !location) && a.Header.Get("ETag") == "":
		return ErrNotS3
	}
	return nil
}

// root returns an error unless the body is XML that begins with this element.
func root(body []byte, name string) error {
	d := xml.NewDecoder(bytes.NewReader(body))
	for {
		token, err := d.Token()
		if err != nil {
			return ErrNotS3
		}
		if t, ok := token.(xml.StartElement); ok {
			if t.Name.Local != name {
				return ErrNotS3
			}
			return nil
		}
	}
}

// later reports what a service says with another code than 429 and 503 when it wants to
// be asked later.
func later(a *web.Answer) bool {
	return a.Status == http.StatusBadRequest && bytes.Contains(a.Body, []byte("<Code>RequestTimeout</Code>"))
}

// explain says what a refusal means. Other errors stay as they are.
func explain(err error) error {
	no, ok := errors.AsType[*refusal](err)
	if !ok {
		return err
	}
	coded := func(err error) error { return fmt.Errorf("%w (status %d)", err, no.status) }
	unreachable := func(err error) error { return fmt.Errorf("%w: %w", store.ErrUnreachable, coded(err)) }
	switch no.code {
	case "NoSuchKey":
		return store.ErrNotExist
	case "NoSuchBucket":
		return unreachable(ErrBucket)
	case "RequestTimeTooSkewed", "RequestExpired":
		return unreachable(ErrClock)
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "UnrecognizedClientException", "InvalidClientTokenId", "AccountProblem", "NotSignedUp", "XAdminUserNotFound", "Unauthorized":
		return coded(store.ErrSignIn)
	case "AuthorizationHeaderMalformed", "InvalidRegion", "PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraintException":
		return unreachable(ErrRegion)
	case "AccessDenied", "AllAccessDisabled":
		return coded(fmt.Errorf("the key does not allow it: %w", fs.ErrPermission))
	case "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull", "EntityTooLarge", "InsufficientStorage", "StorageFull", "InsufficientCapacity", "storage_cap_exceeded", "CapExceeded":
		return coded(store.ErrFull)
	case "InvalidObjectState":
		return unreachable(ErrArchive)
	case "InternalError", "SlowDown", "ServiceUnavailable", "OperationAborted":
		return unreachable(ErrFault)
	}
	switch no.status {
	case http.StatusUnauthorized:
		return coded(store.ErrSignIn)
	case http.StatusForbidden:
		return coded(fmt.Errorf("the key does not allow it: %w", fs.ErrPermission))
	case http.StatusInsufficientStorage, http.StatusRequestEntityTooLarge:
		return coded(store.ErrFull)
	}
	if c := no.status / 100; c == 3 {
		return unreachable(ErrRegion)
	} else if c == 5 {
		return unreachable(ErrFault)
	}
	return no
}
