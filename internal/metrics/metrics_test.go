package metrics_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/internal/metrics"
	"github.com/satchel-backup/satchel/internal/metrics/metricstest"
)

func TestWriter(t *testing.T) {
	var s strings.Builder
	m := metrics.New(&s, "satchel_")
	m.Family("wallets", metrics.Gauge, "How many,\nwith \\.")
	m.Value(3)
	m.Value(metrics.Truth(true), "wallet", "Sam \"the\nman\" \\ \xff", "state", "watching")
	m.Family("answers_total", metrics.Counter, "Answers.")
	m.Value(1795686242.447)
	m.Family("seconds", metrics.Histogram, "Times.")
	m.Part("_bucket", 1, "le", "0.5")
	m.Part("_sum", 0.25)
	m.Part("_count", 1e20)
	want := `# HELP satchel_wallets How many,\nwith \\.
# TYPE satchel_wallets gauge
satchel_wallets 3
satchel_wallets{wallet="Sam \"the\nman\" \\ ` + "\ufffd" + `",state="watching"} 1
# HELP satchel_answers_total Answers.
# TYPE satchel_answers_total counter
satchel_answers_total 1795686242.447
# HELP satchel_seconds Times.
# TYPE satchel_seconds histogram
satchel_seconds_bucket{le="0.5"} 1
satchel_seconds_sum 0.25
satchel_seconds_count 1e+20
`
	if diff := cmp.Diff(want, s.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := metricstest.Parse(s.String()); err != nil {
		t.Error(err)
	}
	if got := metrics.Seconds(time.UnixMilli(1500)); got != 1.5 || metrics.Seconds(time.Time{}) != 0 {
		t.Errorf("got %v", got)
	}
}

// The reader of the tests refuses what Prometheus would.
func TestParseRefuses(t *testing.T) {
	head := "# HELP a_total x\n# TYPE a_total counter\n"
	for _, text := range []string{
		"", "a_total 1\n", head + "a_total", head + "a_total{b=\"1\n\"} 1\n", head + "a_total{b=\"\\x\"} 1\n", head + "a_total{b=1} 1\n", head + "a_total x\n",
		head + "a_total 1\na_total 1\n", head + "a_total{b=\"1\",b=\"2\"} 1\n", head + head, head + "b 1\n", head + "a_total_sum 1\n", "# HELP a x\n# TYPE a counter\n",
		"# HELP a_total x\n# TYPE a_total gauge\n", "# TYPE a gauge\n",
	} {
		if _, err := metricstest.Parse(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}
