package wallet_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/wallet"
)

const vectorDir = "../testdata/vectors/keys"

var update = flag.Bool("update", false, "write testdata/vectors/keys anew")

// vector is one file of testdata/vectors/keys; its README.md says what the fields
// mean.
type vector struct {
	Name    string          `json:"name"`
	Comment string          `json:"comment"`
	Item    string          `json:"item"`
	Expect  string          `json:"expect"`
	Text    string          `json:"text"`
	Want    json.RawMessage `json:"want,omitempty"`
}

// read returns what is found in a vector.
func (v vector) read() (any, error) {
	if v.Item == "descriptors" {
		d, err := wallet.ParseDescriptors([]byte(v.Text))
		if err != nil {
			return nil, err
		}
		return map[string]any{"kind": d.Kind(), "network": d.Network()}, nil
	}
	k, err := parseKeys(v.Text)
	if err != nil {
		return nil, err
	}
	found := map[string]any{"kind": k.Kind(), "network": k.Network(), "made": k.Made(), "secret": string(k.Written().Open()),
		"fingerprint": k.Fingerprint(), "passphrase": string(k.Passphrase().Open()), "passphrase_needed": k.PassphraseState() == wallet.NeededPassphrase}
	if k.Kind() == wallet.KindAezeed {
		d, err := k.Descriptors(0)
		if err != nil {
			return nil, err
		}
		text, err := d.Text()
		if err != nil {
			return nil, err
		}
		found["descriptors"] = string(text)
	}
	return found, nil
}

func verdict(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, wallet.ErrNewer):
		return "newer"
	case errors.Is(err, wallet.ErrDamaged):
		return "damaged"
	}
	return "unknown"
}

// R11, R15, R18: every committed vector ends as it says, for ever.
func TestVectors(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(vectorDir, "*.json"))
	if err != nil || len(paths) < 50 {
		t.Fatalf("%d vectors, %v", len(paths), err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var v vector
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&v); err != nil || v.Name+".json" != filepath.Base(path) {
			t.Fatalf("%s: %v, or another name", path, err)
		}
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			found, err := v.read()
			if got := verdict(err); got != v.Expect {
				t.Fatalf("got %s (%v), want %s: %s", got, err, v.Expect, v.Comment)
			}
			if err != nil {
				return
			}
			got, err := json.Marshal(found)
			if err != nil {
				t.Fatal(err)
			}
			var x, y any
			if err := errors.Join(json.Unmarshal(got, &x), json.Unmarshal(v.Want, &y)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(y, x); diff != "" {
				t.Errorf("found (-want +got):\n%s", diff)
			}
		})
	}
}

// TestUpdateVectors writes the vectors. Those that are released do not change: what is
// written anew is the same.
func TestUpdateVectors(t *testing.T) {
	if !*update {
		t.Skip("without -update")
	}
	if err := os.MkdirAll(vectorDir, 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(item, name, expect, text, comment string) {
		t.Helper()
		v := vector{Name: item + "-" + name, Comment: comment, Item: item, Expect: expect, Text: text}
		found, err := v.read()
		if verdict(err) != expect {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if err == nil {
			if v.Want, err = json.Marshal(found); err != nil {
				t.Fatal(err)
			}
		}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", " ")
		if err := e.Encode(v); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(vectorDir, v.Name+".json"), b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string) string {
		t.Helper()
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	change := func(text, old, new string) string {
		t.Helper()
		if !strings.Contains(text, old) {
			t.Fatalf("no %q in the text", old)
		}
		// The padding makes up for the length, so that the fault is the only one.
		changed := strings.Replace(text, old, new, 1)
		pad := strings.IndexByte(text, '\n')
		return changed[:1] + strings.Repeat(" ", max(0, pad-1+len(old)-len(new))) + changed[pad:]
	}

	plain, aezeedText, needed, kept, key := file("keys_v1_plain.txt"), file("keys_v2_aezeed.txt"), file("keys_v2_aezeed_needed.txt"), file("keys_v2_aezeed_kept.txt"), file("keys_v2_xprv.txt")
	for _, name := range []string{"v1_plain", "v1_undated", "v1_needed", "v1_kept", "v1_japanese", "v2_aezeed", "v2_aezeed_kept", "v2_aezeed_needed", "v2_xprv", "v2_tprv"} {
		put("keys", strings.ReplaceAll(name, "_", "-")+"-ok", "ok", file("keys_"+name+".txt"), "wallet/testdata/keys_"+name+".txt")
	}
	both := bothKinds(t)
	put("keys", "v2-aezeed-also-bip39-ok", "ok", change(aezeedText, aezeed, both), "words of a node whose bits fit the checksum of BIP 39 too: the kind decides")
	put("keys", "v1-also-aezeed-ok", "ok", v1WithWords(t, both), "the same as BIP 39 words: the kind decides")

	put("keys", "newer", "newer", change(plain, "satchel-keys: 1", "satchel-keys: 3"), "a version that this page does not know")
	put("keys", "newer-other-form", "newer", "# other\nsatchel-keys: 999\nanything", "a version that this page does not know, in another form")
	put("keys", "empty", "damaged", "", "nothing")
	put("keys", "comment-only", "damaged", "# hello\n", "no version")
	put("keys", "version-zero", "damaged", change(plain, "satchel-keys: 1", "satchel-keys: 0"), "there is no version 0")
	put("keys", "version-leading-zero", "damaged", change(plain, "satchel-keys: 1", "satchel-keys: 01"), "a leading zero")
	put("keys", "v1-fingerprint", "damaged", change(plain, "73c5da0a", "73c5da0b"), "not the fingerprint of the words")
	put("keys", "v1-checksum", "damaged", change(plain, "abandon about", "abandon abandon"), "the checksum of BIP 39 does not fit")
	put("keys", "v1-aezeed", "damaged", change(plain, abandon, aezeed), "words of a node in the place of BIP 39 words")
	put("keys", "v1-kind", "damaged", change(plain, "network", "kind: bip39\nnetwork"), "version 1 has no kind")
	put("keys", "v1-passphrase-needed-not", "damaged", change(file("keys_v1_needed.txt"), "needed: yes", "needed: no"), "only yes is written")
	put("keys", "v1-padding-short", "damaged", "#"+plain[2:], "a space less in the first line")
	put("keys", "v1-byte-after-the-end", "damaged", plain+"\n", "a line feed more")

	put("keys", "v2-no-kind", "damaged", change(aezeedText, "kind: aezeed\n", ""), "version 2 without a kind")
	put("keys", "v2-kind-bip39", "damaged", change(plain, "satchel-keys: 1\n", "satchel-keys: 2\nkind: bip39\n"), "BIP 39 words are version 1")
	put("keys", "v2-kind-unknown", "damaged", change(aezeedText, "kind: aezeed", "kind: slip39"), "an unknown kind of version 2")
	put("keys", "v2-kind-other", "damaged", change(aezeedText, "kind: aezeed", "kind: xprv"), "another kind than the lines after it")
	put("keys", "v2-order", "damaged", change(aezeedText, "kind: aezeed\nnetwork: mainnet\n", "network: mainnet\nkind: aezeed\n"), "two lines exchanged")
	put("keys", "v2-comment-of-the-other-kind", "damaged", change(aezeedText, "# THE KEYS OF A LIGHTNING NODE (LND)", "# THE KEY OF A BITCOIN WALLET"), "another comment")
	put("keys", "v2-comment-of-another-network", "damaged", change(aezeedText, "the money.", "its test coins."), "the comment of a test network")
	put("keys", "v2-no-padding", "damaged", aezeedText[strings.IndexByte(aezeedText, '\n')+1:], "without its first line")
	put("keys", "v2-one-block-more", "damaged", "#"+strings.Repeat(" ", 1024)+aezeedText[1:], "1,024 spaces too many")
	put("keys", "v2-cut-short", "damaged", aezeedText[:len(aezeedText)-1], "without its last line feed")
	put("keys", "v2-unknown-line", "damaged", change(aezeedText, "aezeed: ", "color: blue\naezeed: "), "a line that is not in the form")
	put("keys", "v2-carriage-returns", "damaged", strings.ReplaceAll(aezeedText, "\n", "\r\n"), "lines end in CR LF")
	put("keys", "v2-network", "damaged", change(aezeedText, "network: mainnet", "network: litecoin"), "an unknown network")
	put("keys", "v2-date", "damaged", change(aezeedText, date, "2026-13-23"), "a day that does not exist")

	put("keys", "v2-aezeed-checksum", "damaged", change(aezeedText, "royal", "zoo"), "the CRC-32C does not fit")
	put("keys", "v2-aezeed-order", "damaged", change(aezeedText, "know royal", "royal know"), "two words exchanged")
	put("keys", "v2-aezeed-unknown-word", "damaged", change(aezeedText, "royal", "royals"), "a word that is not in the list")
	put("keys", "v2-aezeed-23-words", "damaged", change(aezeedText, " royal", ""), "a word less")
	put("keys", "v2-aezeed-version", "damaged", change(aezeedText, aezeed, fakeAezeed([29]byte{1})), "words of version 1, with the right checksum")
	put("keys", "v2-aezeed-bip39", "damaged", change(aezeedText, aezeed, strings.Repeat("abandon ", 23)+"art"), "BIP 39 words in the place of a node's")
	put("keys", "v2-aezeed-capital", "damaged", change(aezeedText, "royal", "Royal"), "a capital letter")
	put("keys", "v2-aezeed-two-spaces", "damaged", change(aezeedText, "know royal", "know  royal"), "two spaces")
	put("keys", "v2-aezeed-fingerprint", "damaged", change(aezeedText, "made: ", "fingerprint: 73c5da0a\nmade: "), "a node's words have no fingerprint")
	put("keys", "v2-aezeed-passphrase-of-bip39", "damaged", change(kept, "aezeed-passphrase", "bip39-passphrase"), "the line of the other kind")
	put("keys", "v2-aezeed-passphrase-empty", "damaged", change(kept, `"`+aezeedPassphrase+`"`, `""`), "an empty passphrase is none")
	put("keys", "v2-aezeed-passphrase-escape", "damaged", change(kept, `"!`, `"\u0021`), "escaped without need")
	put("keys", "v2-aezeed-passphrase-long", "damaged", change(kept, aezeedPassphrase, strings.Repeat("p", wallet.MaxPassphrase+1)), "longer than 1,024 bytes (the padding is not right either)")
	put("keys", "v2-aezeed-passphrase-needed-not", "damaged", change(needed, "needed: yes", "needed: no"), "only yes is written")

	put("keys", "v2-xprv-checksum", "damaged", change(key, "xprv9s21", "xprv9s22"), "the checksum of Base58Check does not fit")
	put("keys", "v2-xprv-fingerprint", "damaged", change(key, "73c5da0a", "73c5da0b"), "not the fingerprint of the key")
	put("keys", "v2-xprv-no-fingerprint", "damaged", change(key, "fingerprint: 73c5da0a\n", ""), "without its fingerprint")
	put("keys", "v2-xprv-network", "damaged", change(key, "network: mainnet", "network: signet"), "a key of mainnet on a test network (the comment is not right either)")
	put("keys", "v2-xprv-tprv", "damaged", change(key, xprv, tprv), "a key of the test networks on mainnet")
	put("keys", "v2-xprv-zprv", "damaged", change(key, xprv, zprv), "a form of SLIP 132")
	account, err := importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet}).PrivateAccount(wallet.BIP84, 0)
	if err != nil {
		t.Fatal(err)
	}
	put("keys", "v2-xprv-account", "damaged", change(key, xprv, string(account.XPrv().Open())), "the key of an account")
	put("keys", "v2-xprv-public", "damaged", change(key, xprv, account.XPub()), "a public key")
	put("keys", "v2-xprv-passphrase", "damaged", change(key, xprv+"\n", xprv+"\nxprv-passphrase: \"p\"\n"), "a key has no passphrase")
	put("keys", "v2-xprv-passphrase-needed", "damaged", change(key, xprv+"\n", xprv+"\nxprv-passphrase-needed: yes\n"), "a key has no passphrase")
	put("keys", "v2-xprv-space", "damaged", change(key, xprv, xprv+" "), "a space after the key")

	node, err := importAezeed(t, aezeed, wallet.ImportConfig{Network: wallet.Mainnet}).Descriptors(0)
	if err != nil {
		t.Fatal(err)
	}
	nodeText, err := node.Text()
	if err != nil {
		t.Fatal(err)
	}
	desc := string(nodeText)
	swap := func(old, new string) string { return strings.Replace(desc, old, new, 1) }
	put("descriptors", "v2-ok", "ok", desc, "what stands in the place of the descriptors of an lnd node")
	put("descriptors", "newer", "newer", swap(": 2", ": 3"), "a version that this page does not know")
	put("descriptors", "v2-kind", "damaged", swap(`"aezeed"`, `"xprv"`), "an extended key has descriptors")
	put("descriptors", "v2-network", "damaged", swap("mainnet", "litecoin"), "an unknown network")
	put("descriptors", "v2-check-upper-case", "damaged", strings.ToUpper(desc[:strings.Index(desc, `"check"`)])+desc[strings.Index(desc, `"check"`):], "members in upper case")
	put("descriptors", "v2-check-short", "damaged", swap("\"\n}", "\n}"), "not JSON")
	put("descriptors", "v2-check-long", "damaged", swap("\"\n}", "0\"\n}"), "17 hex digits")
	put("descriptors", "v2-check-empty", "damaged", desc[:strings.Index(desc, `"check"`)]+"\"check\": \"\"\n}\n", "no check")
	put("descriptors", "v2-fingerprint", "damaged", swap(`"check"`, "\"fingerprint\": \"73c5da0a\",\n  \"check\""), "an unknown member")
	put("descriptors", "v2-repeated", "damaged", swap(`"check"`, "\"network\": \"mainnet\",\n  \"check\""), "a repeated member")
	put("descriptors", "v2-white-space", "damaged", swap("  ", " "), "other white space")
	put("descriptors", "v2-byte-after-the-end", "damaged", desc+"\n", "a line feed more")
}

// v1WithWords is the text of BIP 39 words that Import refuses because they are a node's
// too: version 1 takes them all the same.
func v1WithWords(t *testing.T, words string) string {
	t.Helper()
	k := wallet.KeysForTest(parseWords(t, words), wallet.Mainnet, date)
	text, err := k.Text()
	if err != nil {
		t.Fatal(err)
	}
	return string(text.Open())
}
