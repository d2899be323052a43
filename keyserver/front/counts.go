package front

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync/atomic"
	"time"

	"github.com/satchel-backup/satchel/protocol"
)

type limit int

const (
	limitRate limit = iota
	limitAddress
	limitConnections
	limitRequests
	limits
)

var limitNames = [limits]string{"rate", "connections of one address", "connections", "requests"}

// bounds of the histogram of times, in seconds.
var bounds = [...]float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5}

var opNames = [...]string{"none", "create", "confirm", "evaluate", "finish", "status", "head", "epoch", "delete"}

const codes = int(protocol.CodeNewer) + 1

// Counts are what /metrics shows. The zero value is ready.
type Counts struct {
	// Info, if not nil, returns labels of the server, say its version.
	Info func() map[string]string

	answers     [len(opNames)][codes]atomic.Int64
	times       [len(opNames)][len(bounds) + 1]atomic.Int64
	nanoseconds [len(opNames)]atomic.Int64
	limited     [limits]atomic.Int64
	connections atomic.Int64
	handshakes  atomic.Int64
	errors      atomic.Int64

	records, expired, unreadable atomic.Int64
	tended                       atomic.Int64
}

// Answered counts an answer; it is for keyserver.Config.
func (c *Counts) Answered(op protocol.Op, code protocol.Code, took time.Duration) {
	if int(op) >= len(opNames) {
		op = 0
	}
	if int(code) < codes {
		c.answers[op][code].Add(1)
	}
	i, _ := slices.BinarySearch(bounds[:], took.Seconds())
	c.times[op][i].Add(1)
	c.nanoseconds[op].Add(int64(took))
}

// Tended counts what a round over all records found.
func (c *Counts) Tended(records, expired, unreadable int, at time.Time) {
	c.records.Store(int64(records))
	c.expired.Add(int64(expired))
	c.unreadable.Store(int64(unreadable))
	c.tended.Store(at.Unix())
}

// Write writes all in Prometheus' text format.
func (c *Counts) Write(w io.Writer) {
	name := ""
	family := func(n, kind, help string) {
		name = "satchel_keyserver_" + n
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	}
	family("info", "gauge", "What runs.")
	fmt.Fprint(w, name, "{")
	info := map[string]string{}
	if c.Info != nil {
		info = c.Info()
	}
	for i, k := range slices.Sorted(maps.Keys(info)) {
		fmt.Fprintf(w, "%s%s=%q", []string{"", ","}[min(i, 1)], k, info[k])
	}
	fmt.Fprint(w, "} 1\n")
	family("answers_total", "counter", "Answers by what was asked and the code of docs/protocol.md.")
	for op := range c.answers {
		for code := range c.answers[op] {
			if n := c.answers[op][code].Load(); n > 0 {
				fmt.Fprintf(w, "%s{op=%q,code=\"%d\",text=%q} %d\n", name, opNames[op], code, protocol.Code(code), n)
			}
		}
	}
	family("answer_seconds", "histogram", "How long answers took, by what was asked.")
	for op := range c.times {
		sum := int64(0)
		for i := range c.times[op] {
			sum += c.times[op][i].Load()
		}
		if sum == 0 {
			continue
		}
		upTo := int64(0)
		for i := range bounds {
			upTo += c.times[op][i].Load()
			fmt.Fprintf(w, "%s_bucket{op=%q,le=\"%g\"} %d\n", name, opNames[op], bounds[i], upTo)
		}
		fmt.Fprintf(w, "%s_bucket{op=%q,le=\"+Inf\"} %d\n", name, opNames[op], sum)
		fmt.Fprintf(w, "%s_sum{op=%q} %g\n", name, opNames[op], float64(c.nanoseconds[op].Load())/1e9)
		fmt.Fprintf(w, "%s_count{op=%q} %d\n", name, opNames[op], sum)
	}
	family("limited_total", "counter", "Connections and requests that were turned away, by the limit.")
	for i := range c.limited {
		fmt.Fprintf(w, "%s{limit=%q} %d\n", name, limitNames[i], c.limited[i].Load())
	}
	for _, v := range []struct {
		name, kind, help string
		value            int64
	}{
		{"connections", "gauge", "Open connections.", c.connections.Load()},
		{"handshake_errors_total", "counter", "TLS handshakes that failed.", c.handshakes.Load()},
		{"http_errors_total", "counter", "Other errors of connections.", c.errors.Load()},
		{"records", "gauge", "Records in the database when it was last gone through.", c.records.Load()},
		{"expired_total", "counter", "Accounts that went because they were never confirmed.", c.expired.Load()},
		{"unreadable_records", "gauge", "Records that no master key opened when last gone through.", c.unreadable.Load()},
		{"tended_timestamp_seconds", "gauge", "When the database was last gone through.", c.tended.Load()},
		{"goroutines", "gauge", "Goroutines.", int64(runtime.NumGoroutine())},
		{"memory_bytes", "gauge", "Memory that the Go runtime holds.", memory()},
	} {
		family(v.name, v.kind, v.help)
		fmt.Fprintf(w, "%s %d\n", name, v.value)
	}
}

func memory() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}
