// Package metrics writes numbers in Prometheus' text format.
//
//	m := metrics.New(w, "satchel_agent_")
//	m.Family("wallets", metrics.Gauge, "Wallets that are kept up to date.")
//	m.Value(3, "state", "watching")
//
// The format is small and stable; the usual library is ten times the rest of the program
// that it would be part of.
package metrics

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Kind is what a number is.
type Kind string

const (
	Gauge     Kind = "gauge"
	Counter   Kind = "counter"
	Histogram Kind = "histogram"
)

// ContentType is that of the format.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Writer writes families of numbers, one after another. It stops at the first error of
// the writer below, and who needs to know of that asks it.
type Writer struct {
	w      io.Writer
	prefix string
	name   string // of the family
}

// New returns a Writer that puts a prefix before the names of families.
func New(w io.Writer, prefix string) *Writer { return &Writer{w: w, prefix: prefix} }

// Family begins a family. Each family is written once.
func (m *Writer) Family(name string, kind Kind, help string) {
	m.name = m.prefix + name
	fmt.Fprintf(m.w, "# HELP %s %s\n# TYPE %s %s\n", m.name, helpText.Replace(help), m.name, kind)
}

// Value writes a number of the family. Labels are pairs of a name and a value.
func (m *Writer) Value(v float64, labels ...string) { m.Part("", v, labels...) }

// Part writes a part of a histogram, such as "_sum".
func (m *Writer) Part(suffix string, v float64, labels ...string) {
	var s strings.Builder
	s.WriteString(m.name + suffix)
	for i := 0; i+1 < len(labels); i += 2 {
		s.WriteString([]string{"{", ","}[min(i, 1)])
		s.WriteString(labels[i] + `="` + labelText.Replace(strings.ToValidUTF8(labels[i+1], "\ufffd")) + `"`)
	}
	if len(labels) > 0 {
		s.WriteString("}")
	}
	form := byte('g')
	if math.Abs(v) < 1<<53 {
		form = 'f' // People read it too.
	}
	fmt.Fprintf(m.w, "%s %s\n", s.String(), strconv.FormatFloat(v, form, -1, 64))
}

var (
	helpText  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelText = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// Truth is 1 or 0.
func Truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Seconds is a time as Prometheus has them, 0 for none.
func Seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// Handler answers with what write writes.
func Handler(write func(r *http.Request, w io.Writer)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", ContentType)
		write(r, w)
	})
}
