package slot_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/nbutton23/zxcvbn-go"
	"github.com/sethvargo/go-diceware/diceware"

	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
)

var label = []string{"Samantha's Savings", "Samantha Okonkwo"}

func TestWeak(t *testing.T) {
	const (
		short   = "it has fewer than 12 characters"
		few     = "it has fewer than 6 different characters"
		digits  = "it is made of digits only"
		used    = "it is built around one of the most used passwords"
		money   = "it is made of words that come to mind first for a bitcoin wallet"
		famous  = "it is a well-known phrase"
		name    = "it is mostly a name that others can know"
		run     = "it is mostly a row of neighbouring keys, letters or digits"
		repeats = "it mostly repeats itself"
		date    = "it is mostly a date"
		common  = "it is made of a few common words, names or passwords"
		space   = "it begins or ends with a space, which is easily lost"
		control = "it holds a sign that cannot be typed, such as a line break"
	)
	for _, test := range []struct{ text, reason string }{
		{"x", short},
		{"hunter2", short},
		{"Tr0ub4dor&3", short},
		{"kX9$mQ2!vL7", short},
		{"пароль", short},
		{"aaaaaaaaaaaa", few},
		{"abababababab", few},
		{"aAaAbBbBcCcCdDdDeEeE", few},
		{"............", few},
		{"123456789012", digits},
		{"84920174658302", digits},
		{"84920174658302847561", digits},
		{"8492 0174 6583 0284", digits},
		{"12/05/1984 13/06/1986", digits},
		{"1984-05-12-1986", digits},
		{"password12345", used},
		{"Password2024!", used},
		{"P4$$w0rd2024!", used},
		{"p@ssw0rdp@ssw0rd", used},
		{"passwordpassword", used},
		{"MyPassword1234", used},
		{"letmein123456", ""},
		{"iloveyou2024!", used},
		{"Trustno1Trustno1", used},
		{"correctpassword", ""},
		{"p.a.s.s.w.o.r.d.1.2.3", ""},
		{"qwertyuiop123", ""},
		{"qwertyuiopasdfghjkl", run},
		{"asdfghjklzxcvbnm", run},
		{"1qaz2wsx3edc", run},
		{"1q2w3e4r5t6y", run},
		{"zyxwvutsrqponm", run},
		{"abcdefghijklm", run},
		{"abcdefgh12345678", ""},
		{"azertyuiopqsdf", run},
		{"йцукенгшщзхъ", run},
		{"qwertz123456789", run},
		{"a1b2c3d4e5f6", run},
		{"abcabcabcdefdefdef", ""},
		{"xkqvbnxkqvbnxkqvbn", repeats},
		{"hunter2hunter2", used},
		{"aaaabbbbccccddddeeeeffff", repeats},
		{"bitcoin wallet backup", money},
		{"my bitcoin wallet", money},
		{"MyBitcoinWallet2024!", money},
		{"i love my bitcoin wallet", money},
		{"b1tc01n w4ll3t", money},
		{"satoshinakamoto", money},
		{"Satoshi Nakamoto 2009", money},
		{"hodl to the moon", money},
		{"crypto-wallet-seed-phrase", money},
		{"recovery phrase backup", money},
		{"coldstorage2023", money},
		{"this is my bitcoin wallet backup", money},
		{"correct horse battery staple", famous},
		{"CorrectHorseBatteryStaple1!", famous},
		{"c0rrect-h0rse-b4ttery-st4ple", famous},
		{"not your keys, not your coins", famous},
		{"to be or not to be, that is the question", famous},
		{"the quick brown fox jumps over the lazy dog", famous},
		{"Chancellor on brink of second bailout for banks", famous},
		{"may the force be with you", famous},
		{"In the beginning was the Word", famous},
		{"vires in numeris 2024", famous},
		{strings.TrimSpace(strings.Repeat("abandon ", 11)) + " about", ""},
		{"samantha1984!", name},
		{"Samantha's Savings", name},
		{"samanthasavings2024", name},
		{"SamanthaOkonkwo", name},
		{"satchelsatchel", name},
		{"Satchel-2024-Backup", ""},
		{"my satchel passphrase", ""},
		{"liverpool1892fc", ""},
		{"Summer2024Winter2025", ""},
		{"johnsmith19841212", ""},
		{"born 12.05.1984", date},
		{"xkqvbnt 1987", date},
		{"june 12 1984 june", ""},
		{"michael and jennifer", ""},
		{"sunshine flower", ""},
		{"i love you so much", ""},
		{"manchester united", ""},
		{"fluffymuffin", common},
		{"the dog and the cat", common},
		{" gravel tuba lantern frostbite", space},
		{"gravel tuba lantern frostbite\u3000", space},
		{"gravel tuba\nlantern frostbite", control},
		{"gravel tuba\x00lantern frostbite", control},
	} {
		err := slot.CheckPassphrase(secret.FromString(test.text), label...)
		weak, ok := errors.AsType[*slot.WeakError](err)
		if !ok || !errors.Is(err, slot.ErrWeak) {
			bits, _ := slot.Estimate(secret.FromString(test.text), label...)
			t.Errorf("%s: got %v (%.0f bits), want refused", test.text, err, bits)
			continue
		}
		if test.reason != "" && weak.Reason != test.reason {
			t.Errorf("%s: got %s, want %s", test.text, weak.Reason, test.reason)
		}
		if weak.Advice == "" {
			t.Errorf("%s: no advice", test.text)
		}
		// R19; short texts occur in any sentence.
		if shown := weak.Error() + weak.Advice; len(test.text) > 8 && strings.Contains(strings.ToLower(shown), strings.ToLower(test.text)) {
			t.Errorf("%s: the error shows the passphrase", test.text)
		}
	}
}

var strong = []string{
	"gravel-tuba-lantern-frostbite-oxidize-plank",
	"gravel tuba lantern frostbite oxidize",
	"unclothed reprint smolder vagabond",
	"xkqzvbnwjfptmr",
	"q7Vn2xKp9RtLm4",
	"kX9$mQ2!vL7#wB",
	"zT8-pQ4-mW6-xB1",
	"Das Nilpferd singt am Dienstag vierstimmig",
	"Onze girafe tricote un parapluie mauve",
	"мой ёж читает газету по утрам на крыше",
	"犬が月曜日に三角形の歌をうたう",
	"my aunt Euphemia once sold eleven crooked harpsichords",
	"Zoë übt jeden Abend Fagott im Gewächshaus",
	"847362910574839201746",
	"7c1e9f40b2a85d36",
	"ugly teapot, seven moths & a trombone!",
	"blue kangaroo staples wet tax forms in Ulan Bator",
	"bitcoin wallet gravel-tuba-lantern-frostbite-oxidize",
	"legal winner thank year wave sausage worth useful legal winner thank zebra",
	strings.Repeat("gravel tuba lantern frostbite oxidize plank ", 20) + "end",
}

func TestStrong(t *testing.T) {
	for _, text := range strong {
		if err := slot.CheckPassphrase(secret.FromString(text), label...); err != nil {
			bits, _ := slot.Estimate(secret.FromString(text), label...)
			t.Errorf("%s: %v (%.0f bits)", text, err, bits)
		}
	}
}

// The judge must not depend on how a keyboard composes accents, and refuses what
// can be no passphrase.
func TestCheckForms(t *testing.T) {
	for _, text := range []string{"pa\u0308sswo\u0308rd2024!", "p\u00e4ssw\u00f6rd2024!"} {
		if err := slot.CheckPassphrase(secret.FromString(text)); !errors.Is(err, slot.ErrWeak) {
			t.Errorf("%+q: got %v, want %v", text, err, slot.ErrWeak)
		}
	}
	for _, text := range []string{"", "a\xffbcdefghijklmnop", strings.Repeat("a", 1025)} {
		if err := slot.CheckPassphrase(secret.FromString(text)); !errors.Is(err, slot.ErrPassphrase) {
			t.Errorf("got %v, want %v", err, slot.ErrPassphrase)
		}
	}
}

func TestGeneratePassphrase(t *testing.T) {
	list := diceware.WordListEffLarge()
	known := make(map[string]bool)
	for n := range 66667 {
		if w := list.WordAt(n); w != "" {
			known[w] = true
		}
	}
	if len(known) != 7776 {
		t.Fatalf("got %d words, want 7776", len(known))
	}
	seen := make(map[string]bool)
	lowest := math.Inf(1)
	for i := range 1000 {
		p, err := slot.GeneratePassphrase(0)
		if err != nil {
			t.Fatal(err)
		}
		text := string(p.Open())
		if seen[text] {
			t.Fatal("the same passphrase twice")
		}
		seen[text] = true
		// Four words of the list have a hyphen of their own: drop-down, felt-tip,
		// t-shirt, yo-yo. Their first halves are no words of the list.
		var words []string
		parts := strings.Split(text, "-")
		for i := 0; i < len(parts); i++ {
			word := parts[i]
			if !known[word] && i+1 < len(parts) {
				i++
				word += "-" + parts[i]
			}
			words = append(words, word)
		}
		if len(words) != 6 {
			t.Fatalf("got %d words, want 6", len(words))
		}
		for _, w := range words {
			if !known[w] {
				t.Fatal("a word is not of the list")
			}
		}
		if err := slot.CheckPassphrase(p, label...); err != nil {
			t.Errorf("%s: %v", p.Open(), err)
		}
		if i%20 == 0 {
			bits, _ := slot.Estimate(p, label...)
			lowest = min(lowest, bits)
		}
	}
	t.Logf("the lowest estimate is %.0f bits", lowest)
	for _, n := range []int{-1, 1, 5, 33} {
		if _, err := slot.GeneratePassphrase(n); err == nil {
			t.Errorf("%d words: got no error", n)
		}
	}
}

func TestEstimate(t *testing.T) {
	for _, test := range []struct {
		text     string
		low, top float64
		advised  bool
	}{
		{"", 0, 0, true},
		{"password12345", 1, 25, true},
		{"bitcoin wallet backup", 1, 30, true},
		{"unclothed reprint smolder vagabond", 45, 62, true},
		{"gravel-tuba-lantern-frostbite-oxidize-plank", 70, 110, false},
		// R17: a wallet's words are not refused, for diceware words look the same.
		{"legal winner thank year wave sausage worth useful legal winner thank zebra", 45, 200, true},
	} {
		bits, advice := slot.Estimate(secret.FromString(test.text))
		if bits < test.low || bits > test.top || (advice != "") != test.advised {
			t.Errorf("%s: got %.1f bits, %q", test.text, bits, advice)
		}
	}
}

// zxcvbn is a second opinion: what it finds weak among our strong examples would
// be a mistake of ours.
func TestSecondOpinion(t *testing.T) {
	for _, text := range strong {
		if len(text) > 100 {
			text = text[:100]
		}
		if got := zxcvbn.PasswordStrength(text, label).Score; got < 3 {
			t.Errorf("%s: zxcvbn gives %d of 4", text, got)
		}
	}
}

// FuzzCheckPassphrase: the judge neither panics nor hangs nor repeats the text.
func FuzzCheckPassphrase(f *testing.F) {
	for _, text := range strong {
		f.Add(text, "label")
	}
	f.Add("\ufdfa\ufdfa\ufdfa\ufdfa\ufdfa\ufdfa\ufdfa\ufdfa\ufdfa\ufdfa\ufdfaabcdef", "")
	f.Fuzz(func(t *testing.T, text, context string) {
		p := secret.FromString(text)
		err := slot.CheckPassphrase(p, context)
		if err != nil && len(text) > 20 && strings.Contains(err.Error(), text) {
			t.Fatal("the error shows the passphrase")
		}
		if bits, _ := slot.Estimate(p, context); math.IsNaN(bits) || math.IsInf(bits, 0) || bits < 0 {
			t.Fatalf("got %v bits", bits)
		}
	})
}
