package fakecloud

import (
	"errors"
	"strings"
)

// driveMatch says whether a file is what a query wants.
type driveMatch func(*driveFiles, *driveFile) bool

var errQuery = errors.New("q")

// parseQuery reads the query of a listing in Google Drive. Of its language it knows
// what Satchel and rclone say.
func parseQuery(q string) (driveMatch, error) {
	if strings.TrimSpace(q) == "" {
		return func(*driveFiles, *driveFile) bool { return true }, nil
	}
	p := &queryParser{rest: q}
	p.next()
	m := p.or()
	if p.bad || p.token != "" {
		return nil, errQuery
	}
	return m, nil
}

type queryParser struct {
	rest  string
	token string // a word, an operator, a bracket, or a string with its first quote; "" at the end
	bad   bool
}

// next reads a token.
func (p *queryParser) next() string {
	old := p.token
	s := strings.TrimLeft(p.rest, " \t\n")
	n := 0
	switch {
	case s == "":
		p.token, p.rest = "", ""
		return old
	case s[0] == '\'':
		var text strings.Builder
		for n = 1; n < len(s) && s[n] != '\''; n++ {
			if s[n] == '\\' && n+1 < len(s) {
				n++
			}
			text.WriteByte(s[n])
		}
		if n == len(s) {
			p.bad = true
			p.token, p.rest = "", ""
			return old
		}
		p.token, p.rest = "'"+text.String(), s[n+1:]
		return old
	case strings.ContainsRune("(){}", rune(s[0])):
		n = 1
	case strings.ContainsRune("=!<>", rune(s[0])):
		for n < len(s) && strings.ContainsRune("=!<>", rune(s[n])) {
			n++
		}
	default:
		for n < len(s) && !strings.ContainsRune(" \t\n(){}='!<>", rune(s[n])) {
			n++
		}
	}
	p.token, p.rest = s[:n], s[n:]
	return old
}

func (p *queryParser) take(token string) bool {
	if p.token != token {
		return false
	}
	p.next()
	return true
}

func (p *queryParser) expect(token string) { p.bad = !p.take(token) || p.bad }

// text takes a string.
func (p *queryParser) text() string {
	s, ok := strings.CutPrefix(p.token, "'")
	p.bad = p.bad || !ok
	p.next()
	return s
}

func (p *queryParser) or() driveMatch {
	m := p.and()
	for !p.bad && p.take("or") {
		a, b := m, p.and()
		m = func(d *driveFiles, f *driveFile) bool { return a(d, f) || b(d, f) }
	}
	return m
}

func (p *queryParser) and() driveMatch {
	m := p.not()
	for !p.bad && p.take("and") {
		a, b := m, p.not()
		m = func(d *driveFiles, f *driveFile) bool { return a(d, f) && b(d, f) }
	}
	return m
}

func (p *queryParser) not() driveMatch {
	switch {
	case p.take("not"):
		m := p.not()
		return func(d *driveFiles, f *driveFile) bool { return !m(d, f) }
	case p.take("("):
		m := p.or()
		p.expect(")")
		return m
	}
	return p.term()
}

func (p *queryParser) term() driveMatch {
	if strings.HasPrefix(p.token, "'") {
		value := p.text()
		p.expect("in")
		switch p.next() {
		case "parents":
			return func(d *driveFiles, f *driveFile) bool {
				up := d.find(value)
				return up != nil && f.parent == up.id
			}
		case "owners":
			return func(*driveFiles, *driveFile) bool { return value == "me" }
		}
		p.bad = true
		return nil
	}
	field, op := p.next(), p.next()
	switch field {
	case "trashed":
		want := p.token == "true"
		p.bad = p.bad || op != "=" || !want && p.token != "false"
		p.next()
		return func(d *driveFiles, f *driveFile) bool { return d.inTrash(f) == want }
	case "name", "mimeType":
		value := p.text()
		of := func(f *driveFile) string {
			if field == "name" {
				return f.name
			}
			return f.mime
		}
		switch op {
		case "=": // Google does not mind the case.
			return func(_ *driveFiles, f *driveFile) bool { return strings.EqualFold(of(f), value) }
		case "!=":
			return func(_ *driveFiles, f *driveFile) bool { return !strings.EqualFold(of(f), value) }
		case "contains": // The beginning, of names.
			return func(_ *driveFiles, f *driveFile) bool {
				return strings.HasPrefix(strings.ToLower(of(f)), strings.ToLower(value))
			}
		}
	case "appProperties":
		if op == "has" {
			p.expect("{")
			p.expect("key")
			p.expect("=")
			key := p.text()
			p.expect("and")
			p.expect("value")
			p.expect("=")
			value := p.text()
			p.expect("}")
			return func(_ *driveFiles, f *driveFile) bool {
				v, ok := f.properties[key]
				return ok && v == value
			}
		}
	}
	p.bad = true
	return nil
}
