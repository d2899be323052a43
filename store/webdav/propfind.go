package webdav

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/store"
)

// entry is a file or folder as the server tells of it.
type entry struct {
	name     string // its last element
	folder   bool
	size     int64 // of a file
	modified time.Time
}

// listing is what the server tells of a folder or a file.
type listing struct {
	self    entry
	entries []entry   // what is directly in it; with Depth 0 none
	date    time.Time // by the server's clock, zero if it does not tell
}

const question = `<?xml version="1.0" encoding="utf-8"?>
<propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/><getlastmodified/></prop></propfind>`

// stat asks for a file or folder, "" for the store's own. store.ErrNotExist says that
// the server knows none.
func (s *Store) stat(ctx context.Context, rel string) (entry, error) {
	l, err := s.propfind(ctx, rel, "0")
	if err != nil {
		return entry{}, unknown(err)
	}
	return l.self, nil
}

// unknown makes an answer that cannot be read, as one of which half came, no answer. In
// a listing it is a part that is missing, which List says in its own way.
func unknown(err error) error {
	if errors.Is(err, errAnswer) && !errors.Is(err, store.ErrUnreachable) {
		return fmt.Errorf("%w: %w", store.ErrUnreachable, err)
	}
	return err
}

// propfind asks for a file or folder, with Depth 1 for the folder and what is in it.
func (s *Store) propfind(ctx context.Context, rel, depth string) (*listing, error) {
	ask := func(rel string) (*web.Answer, error) {
		return s.do(ctx, "PROPFIND", rel, http.Header{"Depth": {depth}, "Content-Type": {"application/xml; charset=utf-8"}}, []byte(question), maxAnswer)
	}
	at := rel
	if depth == "1" && rel != "" {
		at += "/"
	}
	a, err := ask(at)
	if err == nil && a.Status/100 == 3 && depth == "0" && rel != "" {
		a, err = ask(rel + "/") // Apache sends who asks for a folder without its slash there.
	}
	switch {
	case errors.Is(err, store.ErrTooLarge):
		return nil, errors.New("the answer is too long")
	case err != nil:
		return nil, err
	case a.Status == http.StatusNotFound || a.Status == http.StatusGone:
		return nil, store.ErrNotExist
	case a.Status == http.StatusBadRequest && rel != "":
		// So Apache says that a file stands where a folder is asked for.
		for i := range len(rel) + 1 {
			if i < len(rel) && rel[i] != '/' || i == len(rel) && depth == "0" {
				continue
			}
			e, err := s.stat(ctx, rel[:i])
			if err != nil {
				return nil, err
			}
			if !e.folder {
				return nil, store.ErrNotExist
			}
		}
		return nil, refused(a)
	case a.Status != http.StatusMultiStatus:
		if a.Status/100 == 2 {
			return nil, fmt.Errorf("%w: %w", store.ErrUnreachable, ErrPage)
		}
		return nil, refused(a)
	}
	full := s.base.Path + rel
	l, err := parse(a.Body, strings.TrimSuffix(full, "/"))
	if err != nil {
		return nil, err
	}
	if l.date, err = http.ParseTime(a.Header.Get("Date")); err != nil {
		l.date = time.Time{}
	}
	return l, nil
}

// response is one of a multistatus (RFC 4918, 14.24).
type response struct {
	Hrefs     []string `xml:"DAV: href"`
	Status    string   `xml:"DAV: status"`
	Propstats []struct {
		Status string `xml:"DAV: status"`
		Prop   struct {
			Type *struct {
				Collection *struct{} `xml:"DAV: collection"`
			} `xml:"DAV: resourcetype"`
			Length   string `xml:"DAV: getcontentlength"`
			Modified string `xml:"DAV: getlastmodified"`
		} `xml:"DAV: prop"`
	} `xml:"DAV: propstat"`
}

// parse reads the multistatus about what is at the path self, which is decoded and has
// no slash at its end. It is whole, or an error.
func parse(body []byte, self string) (*listing, error) {
	d := xml.NewDecoder(bytes.NewReader(body))
	if err := root(d); err != nil {
		return nil, err
	}
	l, found := new(listing), false
	for {
		token, err := d.Token()
		if err != nil {
			return nil, unreadable(err)
		}
		switch t := token.(type) {
		case xml.EndElement: // That of multistatus: every other one is read with its start.
			if err := end(d); err != nil {
				return nil, err
			}
			if !found {
				return nil, fmt.Errorf("%w: %w", store.ErrUnreachable, ErrPaths)
			}
			return l, nil
		case xml.StartElement:
			if t.Name != (xml.Name{Space: "DAV:", Local: "response"}) {
				if err := d.Skip(); err != nil {
					return nil, unreadable(err)
				}
				continue
			}
			var r response
			if err := d.DecodeElement(&r, &t); err != nil {
				return nil, unreadable(err)
			}
			for _, href := range r.Hrefs {
				name, where := place(href, self)
				switch where {
				case outside:
					return nil, fmt.Errorf("%w: %w", store.ErrUnreachable, ErrPaths)
				case deeper:
					continue // A server that lists more than was asked for.
				}
				e, ok, err := r.entry(name, strings.HasSuffix(href, "/"))
				switch {
				case err != nil:
					return nil, err
				case !ok && where == itself:
					return nil, store.ErrNotExist
				case !ok:
					// Gone while the server listed.
				case where == itself:
					l.self, found = e, true
				default:
					l.entries = append(l.entries, e)
				}
			}
		}
	}
}

// root reads up to the multistatus element.
func root(d *xml.Decoder) error {
	for {
		token, err := d.Token()
		if err != nil {
			return unreadable(err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			if t.Name != (xml.Name{Space: "DAV:", Local: "multistatus"}) {
				return fmt.Errorf("%w: %w", store.ErrUnreachable, ErrPage)
			}
			return nil
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return fmt.Errorf("%w: %w", store.ErrUnreachable, ErrPage)
			}
		}
	}
}

// end reads what may stand behind the multistatus element. More than blanks is what a
// server writes that broke off in the middle.
func end(d *xml.Decoder) error {
	for {
		token, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return unreadable(err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			return errAnswer
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return errAnswer
			}
		}
	}
}

// unreadable leaves out the parser's text, which can hold what the server sent.
func unreadable(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends too early", errAnswer)
	}
	if syntax, ok := errors.AsType[*xml.SyntaxError](err); ok {
		return fmt.Errorf("%w: line %d is no XML", errAnswer, syntax.Line)
	}
	return errAnswer
}

// entry returns what a response tells, and false if it tells that there is nothing.
func (r *response) entry(name string, slash bool) (e entry, ok bool, err error) {
	e = entry{name: name, folder: slash, size: -1}
	if r.Status != "" {
		switch code := statusOf(r.Status); {
		case code == http.StatusNotFound || code == http.StatusGone:
			return e, false, nil
		case code/100 != 2: // With 507, for the folder itself, a server says that it cut the list.
			return e, false, fmt.Errorf("the server tells nothing of an entry (status %d)", code)
		}
	}
	for _, p := range r.Propstats {
		if statusOf(p.Status)/100 != 2 {
			continue
		}
		if p.Prop.Type != nil {
			e.folder = p.Prop.Type.Collection != nil
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(p.Prop.Length), 10, 64); err == nil && n >= 0 {
			e.size = n
		}
		if t, err := http.ParseTime(strings.TrimSpace(p.Prop.Modified)); err == nil {
			e.modified = t
		}
	}
	if !e.folder && e.size < 0 {
		return e, false, errors.New("the server does not tell the size of a file")
	}
	return e, true, nil
}

// statusOf returns the number in a line such as "HTTP/1.1 200 OK", 0 if there is none.
func statusOf(line string) int {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return 0
	}
	n, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return n
}

// where says how a reference lies to what was asked for.
type where int

const (
	outside where = iota
	itself
	inside // directly
	deeper
)

// place reads a reference, which servers write as an address or a path, with more or
// fewer characters escaped, and folders with a slash at the end or without. It is only
// compared: no request goes to where a reference leads.
func place(href, self string) (name string, w where) {
	href = strings.TrimSpace(href)
	if i := strings.Index(href, "://"); i > 0 && !strings.Contains(href[:i], "/") {
		_, rest, _ := strings.Cut(href[i+3:], "/")
		href = "/" + rest
	}
	if decoded, err := url.PathUnescape(href); err == nil {
		href = decoded // Else it was never escaped.
	}
	for strings.Contains(href, "//") {
		href = strings.ReplaceAll(href, "//", "/")
	}
	href = strings.TrimSuffix(href, "/")
	if href == self {
		return "", itself
	}
	name, ok := strings.CutPrefix(href, self+"/")
	switch {
	case !ok:
		return "", outside
	case strings.Contains(name, "/"):
		return "", deeper
	}
	return name, inside
}
