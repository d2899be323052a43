package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// The demo is the README's first command: it must show what it promises, and
// leave nothing behind.
func TestDemo(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out bytes.Buffer
	d := &demo{out: &out}
	if err := d.run(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"protected      yes", "found 0 times", "the same: yes", "exit code 12", "exit code 18", "Everything compared: well"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demo does not say %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), string(d.keys.Words().Sentence().Open())) {
		t.Error("the demo shows the words")
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
