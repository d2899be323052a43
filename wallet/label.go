package wallet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"unicode/utf8"
)

const (
	// MaxLabels is the most bytes of a label export.
	MaxLabels = 64 << 20
	// MaxLabelLine is the most bytes of one line of it.
	MaxLabelLine = 64 << 10
	// maxLabelFields is far above the fields that BIP 329 knows.
	maxLabelFields = 64
)

// ErrLabels says that a text is not a label export (BIP 329). The line is in a
// *[LabelError].
var ErrLabels = errors.New("not a list of labels")

// LabelError says which line of a label export is wrong and why, and never
// what stands there. It matches [ErrLabels].
type LabelError struct {
	// Line counts from 1; 0 is the export as a whole.
	Line int
	// Problem is one of a fixed set of sentences.
	Problem string
}

func (e *LabelError) Error() string {
	if e.Line == 0 {
		return "labels: " + e.Problem
	}
	return fmt.Sprintf("labels, line %d: %s", e.Line, e.Problem)
}

// Is reports whether target is ErrLabels.
func (e *LabelError) Is(target error) bool { return target == ErrLabels }

// LabelType is the kind of thing that is labelled. Types unknown to BIP 329 are
// kept.
type LabelType string

// The types of BIP 329. Ref is a transaction id, an address, a public key in
// hex, txid:index (input, output), an extended public key, or a silent payment
// key.
const (
	LabelTx     LabelType = "tx"
	LabelAddr   LabelType = "addr"
	LabelPubkey LabelType = "pubkey"
	LabelInput  LabelType = "input"
	LabelOutput LabelType = "output"
	LabelXpub   LabelType = "xpub"
	LabelSpscan LabelType = "spscan"
)

// Label is one record of BIP 329. It keeps every field, known or not, in the
// bytes in which it was read.
type Label struct {
	key       labelKey
	text      *string
	spendable *bool
	line      string // a JSON object without line feed
}

// labelKey says what is labelled, in which wallet.
type labelKey struct {
	kind   LabelType
	ref    string
	origin string
}

// NewLabel makes a label. Origin, as wpkh([d34db33f/84'/0'/0']), may be empty.
// It returns a *LabelError.
func NewLabel(kind LabelType, ref, text, origin string) (Label, error) {
	return encodeLabel(struct {
		Type   LabelType `json:"type"`
		Ref    string    `json:"ref"`
		Label  string    `json:"label"`
		Origin string    `json:"origin,omitempty"`
	}{kind, ref, text, origin})
}

// NewSpendable makes a record that says whether an output may be spent. Its
// label is left as it is.
func NewSpendable(output, origin string, spendable bool) (Label, error) {
	return encodeLabel(struct {
		Type      LabelType `json:"type"`
		Ref       string    `json:"ref"`
		Origin    string    `json:"origin,omitempty"`
		Spendable bool      `json:"spendable"`
	}{LabelOutput, output, origin, spendable})
}

func encodeLabel(v any) (Label, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return Label{}, &LabelError{Problem: "cannot be written as JSON"}
	}
	l, problem := parseLabel(bytes.TrimSpace(b.Bytes()))
	if problem != "" {
		return Label{}, &LabelError{Problem: problem}
	}
	return l, nil
}

// Type is the kind of thing that is labelled.
func (l Label) Type() LabelType { return l.key.kind }

// Ref is the thing that is labelled.
func (l Label) Ref() string { return l.key.ref }

// Origin is the wallet the label belongs to, an abbreviated descriptor, or
// empty.
func (l Label) Origin() string { return l.key.origin }

// Text is the label itself; false means that the record says nothing of it.
func (l Label) Text() (string, bool) {
	if l.text == nil {
		return "", false
	}
	return *l.text, true
}

// Spendable says whether an output may be spent; ok is false if the record says
// nothing of it.
func (l Label) Spendable() (spendable, ok bool) {
	if l.spendable == nil {
		return false, false
	}
	return *l.spendable, true
}

// Line is the whole record as JSON, without line feed.
func (l Label) Line() string { return l.line }

// Labels is a list of records, in order. The zero value is the empty list.
type Labels struct {
	records []Label
}

// MakeLabels makes a list of records.
func MakeLabels(records ...Label) Labels { return Labels{append([]Label(nil), records...)} }

// Len is the number of records.
func (l Labels) Len() int { return len(l.records) }

// All yields the records in order.
func (l Labels) All() iter.Seq[Label] {
	return func(yield func(Label) bool) {
		for _, r := range l.records {
			if !yield(r) {
				return
			}
		}
	}
}

// Text is the list as a BIP 329 export: a record a line, each ended by a line
// feed. Records are written in the bytes in which they were read. A list over
// MaxLabels is a *LabelError.
func (l Labels) Text() ([]byte, error) {
	size := 0
	for _, r := range l.records {
		size += len(r.line) + 1
	}
	if size > MaxLabels {
		return nil, &LabelError{Problem: "too large"}
	}
	b := make([]byte, 0, size)
	for _, r := range l.records {
		b = append(b, r.line...)
		b = append(b, '\n')
	}
	return b, nil
}

// ParseLabels reads a BIP 329 export of any wallet, at most MaxLabels bytes,
// MaxLabelLine a line. Empty lines, carriage returns and a byte order mark are
// dropped. Unknown types and fields are kept. A field that occurs twice is refused:
// readers disagree on which counts. Errors are a *[LabelError].
func ParseLabels(text []byte) (Labels, error) {
	if len(text) > MaxLabels {
		return Labels{}, &LabelError{Problem: "too large"}
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	var all Labels
	for n := 1; len(text) > 0; n++ {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		text = rest
		if len(line) > MaxLabelLine {
			return Labels{}, &LabelError{n, "the line is too long"}
		}
		if line = bytes.Trim(line, " \t\r"); len(line) == 0 {
			continue
		}
		r, problem := parseLabel(line)
		if problem != "" {
			return Labels{}, &LabelError{n, problem}
		}
		all.records = append(all.records, r)
	}
	return all, nil
}

// parseLabel reads one record, or says what is wrong with it.
func parseLabel(line []byte) (_ Label, problem string) {
	if len(line) > MaxLabelLine {
		return Label{}, "the line is too long"
	}
	if !utf8.Valid(line) {
		return Label{}, "not UTF-8"
	}
	if bytes.ContainsAny(line, "\r\n") {
		return Label{}, "a line break inside a record"
	}
	fields, problem := parseFields(line)
	if problem != "" {
		return Label{}, problem
	}
	r := Label{line: string(line)}
	var kind, ref, origin *string
	for _, f := range fields {
		switch f.name {
		case "type":
			problem = f.decode(&kind, "type is not a string")
		case "ref":
			problem = f.decode(&ref, "ref is not a string")
		case "origin":
			problem = f.decode(&origin, "origin is not a string")
		case "label":
			problem = f.decode(&r.text, "label is not a string")
		case "spendable":
			problem = f.decode(&r.spendable, "spendable is neither true nor false")
		}
		if problem != "" {
			return Label{}, problem
		}
	}
	if kind == nil || *kind == "" {
		return Label{}, "type is missing"
	}
	if ref == nil || *ref == "" {
		return Label{}, "ref is missing"
	}
	r.key = labelKey{kind: LabelType(*kind), ref: *ref}
	if origin != nil {
		r.key.origin = *origin
	}
	return r, ""
}

// labelField is a field of a record, its value in the bytes in which it was
// read.
type labelField struct {
	name  string
	value json.RawMessage
}

// decode reads a value of a known field; null counts as absent.
func (f labelField) decode(to any, problem string) string {
	if json.Unmarshal(f.value, to) != nil {
		return problem
	}
	return ""
}

// parseFields takes an object apart, in order.
func parseFields(line []byte) (_ []labelField, problem string) {
	const notObject = "not a JSON object"
	if !json.Valid(line) {
		return nil, notObject
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, notObject
	}
	var fields []labelField
	seen := make(map[string]bool)
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, notObject
		}
		f := labelField{name: name.(string)} // A JSON object has no other names.
		if err := dec.Decode(&f.value); err != nil {
			return nil, notObject
		}
		if seen[f.name] {
			return nil, "a field occurs twice"
		}
		if len(fields) == maxLabelFields {
			return nil, "too many fields"
		}
		seen[f.name] = true
		fields = append(fields, f)
	}
	return fields, ""
}

// Merge returns the records of both lists, each thing once, where the newer
// list wins. Things are the same if type, ref and origin are. A field that the
// newer record leaves out, or has as null, keeps its older value, as BIP 329 asks
// for label and spendable. Older things keep their place; within one list a later
// record is the newer one.
//
// A merged record that would be over MaxLabelLine is the newer record alone.
func (l Labels) Merge(newer Labels) Labels {
	at := make(map[labelKey]int, len(l.records)+len(newer.records))
	var merged Labels
	for _, list := range []Labels{l, newer} {
		for _, r := range list.records {
			if i, ok := at[r.key]; ok {
				merged.records[i] = merged.records[i].merge(r)
				continue
			}
			at[r.key] = len(merged.records)
			merged.records = append(merged.records, r)
		}
	}
	return merged
}

// merge returns newer with the fields only the older record has.
func (l Label) merge(newer Label) Label {
	older, _ := parseFields([]byte(l.line))
	fields, _ := parseFields([]byte(newer.line))
	at := make(map[string]int, len(fields))
	for i, f := range fields {
		at[f.name] = i
	}
	changed := false
	for _, f := range older {
		i, has := at[f.name]
		switch {
		case string(f.value) == "null":
		case !has:
			fields = append(fields, f)
			changed = true
		case string(fields[i].value) == "null":
			fields[i] = f
			changed = true
		}
	}
	if !changed {
		return newer // In its own bytes.
	}
	b := []byte{'{'}
	for i, f := range fields {
		if i > 0 {
			b = append(b, ',')
		}
		name, err := json.Marshal(f.name)
		if err != nil {
			return newer
		}
		b = append(append(append(b, name...), ':'), f.value...)
	}
	if r, problem := parseLabel(append(b, '}')); problem == "" {
		return r
	}
	return newer
}
