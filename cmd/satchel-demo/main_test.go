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
	for _, want := range []string{
		"protected      yes", "set at 3 key servers", "found 0 times",
		"wrong (exit code 12), guesses left: 4", "right, with 1 of 3 key servers away; wrong guesses before: 1", "first address  " + d.first + "   the same: yes",
		"locked for 1m0s: the demo moves the key servers' clock", "exit code 14", "2 key servers have erased their keys", "gives 7 guesses at most",
		"the old slot is gone; protected: yes", "exit code 18", "Everything compared: well",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demo does not say %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), string(d.keys.Words().Sentence().Open())) {
		t.Error("the demo shows the words")
	}
	if n := strings.Count(out.String(), "\n"); n > 100 {
		t.Errorf("%d lines, more than two screens", n)
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
