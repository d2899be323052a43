package fakecloud

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
)

// Transport returns what carries requests to the cloud without a network, for tests in
// which time is not the real one. It reaches the cloud whatever the host is.
func (c *Cloud) Transport() http.RoundTripper { return Over(c) }

// Over returns what carries requests to any server without a network. One that panics
// with http.ErrAbortHandler cuts the line.
func Over(h http.Handler) http.RoundTripper { return transport{h} }

type transport struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	in := req.Clone(req.Context())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer in.Body.Close()
	if in.Host == "" {
		in.Host = in.URL.Host
	}
	rec := httptest.NewRecorder()
	cut := t.serve(rec, in)
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	if cut && rec.Body.Len() == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	resp := rec.Result()
	resp.Request = req
	if cut {
		resp.Body = io.NopCloser(io.MultiReader(rec.Body, cutReader{}))
	} else {
		resp.ContentLength = int64(rec.Body.Len())
		resp.Body = io.NopCloser(bytes.NewReader(rec.Body.Bytes()))
	}
	return resp, nil
}

// serve reports whether the line was cut.
func (t transport) serve(w http.ResponseWriter, r *http.Request) (cut bool) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			cut = true
		default:
			panic(p)
		}
	}()
	t.handler.ServeHTTP(w, r)
	return false
}

type cutReader struct{}

func (cutReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
