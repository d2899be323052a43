package gdrive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/store"
)

const (
	small = 5 << 20 // bytes that Google takes in one request
	chunk = 8 << 20 // bytes to a request of a larger upload; Google wants multiples of 256 KiB
	// faults is how many faults in a row end an upload in chunks, if no byte arrived
	// in between.
	faults = 5
	// maxPause is the longest pause between two parts. If Google wants a longer one, the
	// client knows and makes no request.
	maxPause = 30 * time.Second
)

const jsonType = "application/json; charset=UTF-8"

// upload makes a file.
func (s *Store) upload(ctx context.Context, meta, data []byte) (file, error) {
	if len(data) > s.small {
		return s.uploadChunks(ctx, meta, data)
	}
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for _, part := range []struct {
		kind string
		data []byte
	}{{jsonType, meta}, {"application/octet-stream", data}} {
		p, err := w.CreatePart(textproto.MIMEHeader{"Content-Type": {part.kind}})
		if err == nil {
			_, err = p.Write(part.data)
		}
		if err != nil {
			return file{}, err
		}
	}
	if err := w.Close(); err != nil {
		return file{}, err
	}
	a, err := s.c.Do(ctx, web.Request{
		Method: http.MethodPost, URL: s.endpoint + "/upload/drive/v3/files?" + s.options(url.Values{"uploadType": {"multipart"}}).Encode(),
		Header: http.Header{"Content-Type": {"multipart/related; boundary=" + w.Boundary()}}, Body: body.Bytes(),
	})
	if err != nil {
		return file{}, err
	}
	var f file
	err = decode(a, &f)
	return f, err
}

// errSession says that Google forgot an upload in chunks.
var errSession = fmt.Errorf("%w: Google forgot an upload that was under way", store.ErrUnreachable)

// uploadChunks makes a large file. After a fault it goes on where it was.
func (s *Store) uploadChunks(ctx context.Context, meta, data []byte) (file, error) {
	var err error
	for range 2 { // Google keeps an upload for a week; but it may lose one.
		var session string
		if session, err = s.begin(ctx, meta, len(data)); err != nil {
			return file{}, err
		}
		var f file
		if f, err = s.send(ctx, session, data); !errors.Is(err, errSession) {
			return f, err
		}
	}
	return file{}, err
}

// begin returns the address that the bytes of a new file go to.
func (s *Store) begin(ctx context.Context, meta []byte, size int) (string, error) {
	a, err := s.c.Do(ctx, web.Request{
		Method: http.MethodPost, URL: s.endpoint + "/upload/drive/v3/files?" + s.options(url.Values{"uploadType": {"resumable"}}).Encode(), Body: meta,
		Header: http.Header{
			"Content-Type": {jsonType}, "X-Upload-Content-Type": {"application/octet-stream"}, "X-Upload-Content-Length": {strconv.Itoa(size)},
		},
	})
	if err != nil {
		return "", err
	}
	if a.Status != http.StatusOK {
		if err := decode(a, nil); err != nil {
			return "", err
		}
		return "", errStrange
	}
	session := a.Header.Get("Location")
	// The token goes along: it must not go elsewhere.
	if !strings.HasPrefix(session, s.endpoint+"/") {
		return "", errStrange
	}
	return session, nil
}

// send sends the bytes of a file.
func (s *Store) send(ctx context.Context, session string, data []byte) (file, error) {
	at, failed, wait := 0, 0, 500*time.Millisecond
	for {
		end := min(at+s.chunk, len(data))
		f, next, err := s.part(ctx, web.Request{
			Method: http.MethodPut, URL: session, Body: data[at:end], Once: true,
			Header: http.Header{"Content-Range": {fmt.Sprintf("bytes %d-%d/%d", at, end-1, len(data))}},
		}, len(data))
		switch {
		case err == nil && f != nil:
			return *f, nil
		case err == nil && next > at:
			at, failed, wait = next, 0, 500*time.Millisecond
			continue
		case err == nil:
			err = errStrange // Nothing of it arrived.
		}
		if !errors.Is(err, store.ErrUnreachable) || errors.Is(err, errSession) || ctx.Err() != nil {
			return file{}, err
		}
		if failed++; failed >= faults {
			return file{}, err
		}
		pause := wait/2 + rand.N(wait/2)
		if later, ok := errors.AsType[*web.LaterError](err); ok {
			pause = max(pause, later.After)
		}
		if err := sleep(ctx, min(pause, maxPause)); err != nil {
			return file{}, err
		}
		wait *= 2
		// How much of it is there?
		f, next, err = s.part(ctx, web.Request{
			Method: http.MethodPut, URL: session, Body: []byte{}, Header: http.Header{"Content-Range": {fmt.Sprintf("bytes */%d", len(data))}},
		}, len(data))
		switch {
		case err != nil:
			return file{}, err
		case f != nil:
			return *f, nil
		case next > at:
			failed, wait = 0, 500*time.Millisecond
		}
		at = next
	}
}

// part makes a request of an upload in chunks. It returns the file if it is whole, else
// how many bytes of it are there.
func (s *Store) part(ctx context.Context, r web.Request, size int) (*file, int, error) {
	a, err := s.c.Do(ctx, r)
	if err != nil {
		return nil, 0, err
	}
	switch a.Status {
	case http.StatusPermanentRedirect:
		v := a.Header.Get("Range")
		if v == "" {
			return nil, 0, nil
		}
		last, ok := strings.CutPrefix(v, "bytes=0-")
		n, err := strconv.Atoi(last)
		if !ok || err != nil || n < 0 || n >= size {
			return nil, 0, errStrange
		}
		return nil, n + 1, nil
	case http.StatusNotFound, http.StatusGone:
		return nil, 0, errSession
	}
	var f file
	if err := decode(a, &f); err != nil {
		return nil, 0, err
	}
	return &f, 0, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
