package front

import (
	"io"
	"maps"
	"runtime"
	runtimemetrics "runtime/metrics"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/satchel-backup/satchel/internal/metrics"
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
	m := metrics.New(w, "satchel_keyserver_")
	m.Family("info", metrics.Gauge, "What runs.")
	info := map[string]string{}
	if c.Info != nil {
		info = c.Info()
	}
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(info)) {
		labels = append(labels, k, info[k])
	}
	m.Value(1, labels...)
	m.Family("answers_total", metrics.Counter, "Answers by what was asked and the code of docs/protocol.md.")
	for op := range c.answers {
		for code := range c.answers[op] {
			if n := c.answers[op][code].Load(); n > 0 {
				m.Value(float64(n), "op", opNames[op], "code", strconv.Itoa(code), "text", protocol.Code(code).String())
			}
		}
	}
	m.Family("answer_seconds", metrics.Histogram, "How long answers took, by what was asked.")
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
			m.Part("_bucket", float64(upTo), "op", opNames[op], "le", strconv.FormatFloat(bounds[i], 'g', -1, 64))
		}
		m.Part("_bucket", float64(sum), "op", opNames[op], "le", "+Inf")
		m.Part("_sum", float64(c.nanoseconds[op].Load())/1e9, "op", opNames[op])
		m.Part("_count", float64(sum), "op", opNames[op])
	}
	m.Family("limited_total", metrics.Counter, "Connections and requests that were turned away, by the limit.")
	for i := range c.limited {
		m.Value(float64(c.limited[i].Load()), "limit", limitNames[i])
	}
	for _, v := range []struct {
		name  string
		kind  metrics.Kind
		help  string
		value int64
	}{
		{"connections", metrics.Gauge, "Open connections.", c.connections.Load()},
		{"handshake_errors_total", metrics.Counter, "TLS handshakes that failed.", c.handshakes.Load()},
		{"http_errors_total", metrics.Counter, "Other errors of connections.", c.errors.Load()},
		{"records", metrics.Gauge, "Records in the database when it was last gone through.", c.records.Load()},
		{"expired_total", metrics.Counter, "Accounts that went because they were never confirmed.", c.expired.Load()},
		{"unreadable_records", metrics.Gauge, "Records that no master key opened when last gone through.", c.unreadable.Load()},
		{"tended_timestamp_seconds", metrics.Gauge, "When the database was last gone through.", c.tended.Load()},
		{"clock_timestamp_seconds", metrics.Gauge, "The clock of this server, which should be that of the others.", time.Now().Unix()},
		{"goroutines", metrics.Gauge, "Goroutines.", int64(runtime.NumGoroutine())},
		{"memory_bytes", metrics.Gauge, "Memory that the Go runtime holds.", memory()},
	} {
		m.Family(v.name, v.kind, v.help)
		m.Value(float64(v.value))
	}
}

func memory() int64 {
	s := []runtimemetrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	runtimemetrics.Read(s)
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}
