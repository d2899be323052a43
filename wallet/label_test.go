package wallet_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/wallet"
)

func parseLabels(t testing.TB, text string) wallet.Labels {
	t.Helper()
	l, err := wallet.ParseLabels([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func labelsText(t testing.TB, l wallet.Labels) string {
	t.Helper()
	b, err := l.Text()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The example of BIP 329 comes back as it was.
func TestBIP329(t *testing.T) {
	b, err := os.ReadFile("testdata/bip329.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	l := parseLabels(t, string(b))
	if diff := cmp.Diff(string(b), labelsText(t, l)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	type record struct {
		Type            wallet.LabelType
		Ref, Text       string
		Origin          string
		Frozen, HasText bool
	}
	var got []record
	for r := range l.All() {
		text, ok := r.Text()
		spendable, said := r.Spendable()
		got = append(got, record{r.Type(), r.Ref()[:6], text, r.Origin(), said && !spendable, ok})
	}
	want := []record{
		{wallet.LabelTx, "f91d0a", "Transaction", "wpkh([d34db33f/84'/0'/0'])", false, true},
		{wallet.LabelAddr, "bc1q34", "Address", "", false, true},
		{wallet.LabelPubkey, "028340", "Public Key", "", false, true},
		{wallet.LabelInput, "f91d0a", "Input", "", false, true},
		{wallet.LabelOutput, "f91d0a", "Output", "", true, true},
		{wallet.LabelXpub, "xpub66", "Extended Public Key", "", false, true},
		{wallet.LabelSpscan, "spscan", "Silent Payments Scan Key Expression", "", false, true},
		{wallet.LabelTx, "f54615", "Account #1 Transaction", "wpkh([d34db33f/84'/0'/1'])", false, true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Fields and types that BIP 329 does not know, and numbers that a float would
// spoil, come back as they were.
func TestLabelsKeepEverything(t *testing.T) {
	text := `{"type":"tx","ref":"aa","label":"é \u00e9 \/ <","height":1,"fee":12345678901234567890,"rate":{ "USD":  105620.00 },"time":"2025-01-23T11:40:35Z"}` + "\n" +
		`{ "future": [1e400, {"x": null}], "type": "channel", "ref": "1x2x3" }` + "\n"
	if got := labelsText(t, parseLabels(t, text)); got != text {
		t.Errorf("got %s, want %s", got, text)
	}
	if got, want := labelsText(t, parseLabels(t, "\ufeff\r\n"+strings.ReplaceAll(text, "\n", " \r\n\n"))), text; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := labelsText(t, parseLabels(t, strings.TrimSuffix(text, "\n"))); got != text {
		t.Errorf("without the last line feed: got %s, want %s", got, text)
	}
}

// R18: limits, and errors that name the line and not its content.
func TestLabelErrors(t *testing.T) {
	const ok = `{"type":"tx","ref":"aa","label":"private matter"}` + "\n"
	for name, test := range map[string]struct {
		text string
		line int
	}{
		"not JSON":          {ok + "private matter\n", 2},
		"array":             {ok + `["private matter"]`, 2},
		"cut":               {ok + ok + ok[:20], 3},
		"two on a line":     {strings.TrimSpace(ok) + ok, 1},
		"no type":           {ok + "\n" + `{"ref":"private matter"}`, 3},
		"empty type":        {`{"type":"","ref":"private matter"}`, 1},
		"no ref":            {`{"type":"tx","label":"private matter"}`, 1},
		"null ref":          {`{"type":"tx","ref":null,"label":"private matter"}`, 1},
		"number as label":   {`{"type":"tx","ref":"aa","label":1}`, 1},
		"type no string":    {`{"type":{},"ref":"aa"}`, 1},
		"origin no string":  {`{"type":"tx","ref":"aa","origin":7}`, 1},
		"quoted spendable":  {`{"type":"output","ref":"aa:0","spendable":"false"}`, 1},
		"field twice":       {`{"type":"tx","ref":"aa","ref":"bb"}`, 1},
		"escaped twice":     {`{"type":"tx","ref":"aa","\u0072ef":"bb"}`, 1},
		"not UTF-8":         {"{\"type\":\"tx\",\"ref\":\"\xff\"}", 1},
		"long line":         {ok + `{"type":"tx","ref":"aa","label":"` + strings.Repeat("x", wallet.MaxLabelLine) + `"}`, 2},
		"too deep":          {`{"type":"tx","ref":"aa","x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, 1},
		"many fields":       {`{"type":"tx","ref":"aa"` + manyFields(100) + `}`, 1},
		"carriage return":   {"{\"type\":\"tx\",\r\"ref\":\"aa\"}", 1},
		"too large a whole": {strings.Repeat(strings.Repeat(" ", 1023)+"\n", wallet.MaxLabels/1024+1), 0},
	} {
		_, err := wallet.ParseLabels([]byte(test.text))
		e, found := errors.AsType[*wallet.LabelError](err)
		if !found || !errors.Is(err, wallet.ErrLabels) {
			t.Errorf("%s: got %v, want *LabelError", name, err)
			continue
		}
		if e.Line != test.line {
			t.Errorf("%s: got line %d, want %d", name, e.Line, test.line)
		}
		for _, leak := range []string{"private", "aa", "bb", "xx"} {
			if strings.Contains(err.Error(), leak) {
				t.Errorf("%s: the error repeats its input: %v", name, err)
			}
		}
	}
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`,"f` + strings.Repeat("x", i) + `":0`)
	}
	return b.String()
}

func TestMerge(t *testing.T) {
	older := parseLabels(t, `
{"type":"tx","ref":"aa","label":"old","fee":10}
{"type":"tx","ref":"bb","label":"stays"}
{"type":"output","ref":"aa:0","label":"coin"}
{"type":"tx","ref":"cc","origin":"wpkh([d34db33f/84'/0'/0'])","label":"first wallet"}
{"type":"addr","ref":"x","label":null}
{"type":"addr","ref":"y","label":"kept"}
{"type":"tx","ref":"dup","label":"1"}
{"type":"tx","ref":"dup","label":"2"}
`)
	newer := parseLabels(t, `
{"type":"output","ref":"aa:0","spendable":false}
{ "type": "tx", "ref": "aa", "label": "new", "fee": 10 }
{"type":"tx","ref":"cc","label":"no wallet"}
{"type":"addr","ref":"x","label":"set"}
{"type":"addr","ref":"y","label":null}
{"type":"tx","ref":"dd","label":"added"}
`)
	want := strings.TrimLeft(`
{ "type": "tx", "ref": "aa", "label": "new", "fee": 10 }
{"type":"tx","ref":"bb","label":"stays"}
{"type":"output","ref":"aa:0","spendable":false,"label":"coin"}
{"type":"tx","ref":"cc","origin":"wpkh([d34db33f/84'/0'/0'])","label":"first wallet"}
{"type":"addr","ref":"x","label":"set"}
{"type":"addr","ref":"y","label":"kept"}
{"type":"tx","ref":"dup","label":"2"}
{"type":"tx","ref":"cc","label":"no wallet"}
{"type":"tx","ref":"dd","label":"added"}
`, "\n")
	merged := older.Merge(newer)
	if diff := cmp.Diff(want, labelsText(t, merged)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := labelsText(t, merged.Merge(newer)); got != want {
		t.Errorf("merging again changed it:\n%s", cmp.Diff(want, got))
	}
	if got := labelsText(t, merged.Merge(wallet.Labels{})); got != want {
		t.Errorf("merging nothing changed it:\n%s", cmp.Diff(want, got))
	}
	if older.Len() != 8 || newer.Len() != 6 {
		t.Error("merging changed its arguments")
	}
}

func TestMakeLabels(t *testing.T) {
	a, err := wallet.NewLabel(wallet.LabelTx, "aa", "Café <3 \"q\"\n", "wpkh([d34db33f/84'/0'/0'])")
	if err != nil {
		t.Fatal(err)
	}
	b, err := wallet.NewSpendable("aa:1", "", false)
	if err != nil {
		t.Fatal(err)
	}
	l := wallet.MakeLabels(a, b)
	want := `{"type":"tx","ref":"aa","label":"Café <3 \"q\"\n","origin":"wpkh([d34db33f/84'/0'/0'])"}` + "\n" +
		`{"type":"output","ref":"aa:1","spendable":false}` + "\n"
	if got := labelsText(t, l); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := labelsText(t, parseLabels(t, want)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, ref := range []string{"", strings.Repeat("x", wallet.MaxLabelLine)} {
		if _, err := wallet.NewLabel(wallet.LabelTx, ref, "x", ""); !errors.Is(err, wallet.ErrLabels) {
			t.Errorf("got %v, want ErrLabels", err)
		}
	}
}

func FuzzParseLabels(f *testing.F) {
	b, err := os.ReadFile("testdata/bip329.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, []byte(`{"type":"tx","ref":"aa","label":null}`))
	f.Add([]byte("\ufeff{\"type\":\"x\",\"ref\":\"\\ud800\",\"\\u0000\":1}\r\n\n"), b)
	f.Fuzz(func(t *testing.T, text, other []byte) {
		l, err := wallet.ParseLabels(text)
		if err != nil {
			if !errors.Is(err, wallet.ErrLabels) {
				t.Errorf("got %v, want ErrLabels", err)
			}
			return
		}
		once := labelsText(t, l)
		if got := labelsText(t, parseLabels(t, once)); got != once {
			t.Errorf("got %q, want %q", got, once)
		}
		for line := range strings.Lines(once) {
			if !bytes.Contains(text, []byte(strings.TrimSuffix(line, "\n"))) {
				t.Errorf("the record %q was not in the input", line)
			}
		}
		newer, err := wallet.ParseLabels(other)
		if err != nil {
			return
		}
		merged := l.Merge(newer)
		text1 := labelsText(t, merged)
		if got := labelsText(t, parseLabels(t, text1).Merge(newer)); got != text1 {
			t.Errorf("merging twice: got %q, want %q", got, text1)
		}
	})
}
