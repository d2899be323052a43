package escape_test

import (
	"testing"

	"github.com/satchel-backup/satchel/internal/escape"
)

// rule refuses #, a leading space, and what is beyond the basic plane.
func rule(_ string, i int, r rune) bool { return r == '#' || i == 0 && r == ' ' || r > 0xffff }

func TestName(t *testing.T) {
	for name, want := range map[string]string{
		"a/b c/é":      "a/b c/é",
		"a=b":          "a=3Db",
		" a/ b# #":     "=20a/=20b=23 =23",
		"emoji-😀/x":    "emoji-=F0=9F=98=80/x",
		"=3D":          "=3D3D",
		"日本語/キー":       "日本語/キー",
		"BackUp/1.age": "BackUp/1.age",
	} {
		got := escape.Name(name, rule)
		if got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
		if back, ok := escape.Read(got, rule); !ok || back != name {
			t.Errorf("%q: read back %q, %v", name, back, ok)
		}
	}
}

// R18: what Name does not write is not read as another's name.
func TestRead(t *testing.T) {
	for _, there := range []string{"=", "a=", "a=4", "=41", "=3d", "=zz", "=2F", "a#", " a", "=FF", "=C3", "😀"} {
		if name, ok := escape.Read(there, rule); ok {
			t.Errorf("%q was read as %q", there, name)
		}
	}
}

// Whatever is read is written the same again, and the other way round.
func FuzzRead(f *testing.F) {
	f.Add("a/=20b=23")
	f.Add("=F0=9F=98=80")
	f.Fuzz(func(t *testing.T, s string) {
		if name, ok := escape.Read(s, rule); ok && escape.Name(name, rule) != s {
			t.Errorf("%q was read as %q, which is written %q", s, name, escape.Name(name, rule))
		}
	})
}
