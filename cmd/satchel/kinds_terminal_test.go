//go:build unix

package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// The words of an lnd node as a person types them: the first letters do, a wrong one is asked
// for again, and BIP 39 words are told apart at once. None is shown.
func TestImportNodeOnTerminal(t *testing.T) {
	t.Parallel()
	const node = "ability liquid travel stem barely drastic pact cupboard apple thrive morning oak " +
		"feature tissue couch old math inform success suggest drink motion know royal"
	p := newPerson(t)
	p.run("import", "--kind", "aezeed", "--new", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code", "--passphrase")
	p.expect("those of your lnd node")
	p.expect("24 words of the lnd node")
	p.answer("Words", strings.TrimSuffix(node, " royal"))
	p.expect("23 words were typed; an lnd node has 24")
	var short []string
	for _, w := range strings.Fields(strings.Replace(node, "oak", "oax", 1)) {
		short = append(short, w[:min(len(w), 4)])
	}
	p.answer("Words", strings.Join(short, " "))
	p.answer("Word 12 again", "oak")
	p.answer("Cipher seed passphrase", "one")
	p.answer("The same again", "other")
	p.answer("Cipher seed passphrase", "one")
	p.answer("The same again", "one")
	p.answer("press Enter once it is written down", "")
	p.expect("an lnd node's own words")
	p.expect("Protected +yes")
	p.expect("Next: `satchel lnd connect`: the channels of the node are not in the")
	if screen := p.ends(0); strings.Contains(screen, "made on this device") || strings.Contains(screen, "any other wallet") || strings.Contains(screen, "liquid") || strings.Contains(screen, "First address") || strings.Contains(screen, "Fingerprint") {
		t.Errorf("got %s", screen)
	}
	p.run("export", "words")
	p.answer("Show them", "y")
	p.expect("ability")
	p.expect("Cipher seed passphrase, part of the wallet: +one")
	p.expect("Only lnd takes these words")
	p.ends(0)

	// The same words again, and those of another node, which have no fingerprint either.
	if out := p.with(0, []string{node}, "import", "--kind", "aezeed", "--new", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code", "--label", "Again", "--json", "--secret-fd", "3"); !strings.Contains(out, "these keys already: Wallet-") || !strings.Contains(out, "own words (aezeed))") {
		t.Errorf("got %s", out)
	}
	const other = "above donate angle defense entry link hurdle price evil lyrics state ask exchange digital vivid rebuild rate flush document nerve soap track fortune loop"
	if out := p.with(0, []string{other}, "import", "--kind", "aezeed", "--new", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code", "--label", "Other", "--json", "--secret-fd", "3"); strings.Contains(out, "already") {
		t.Errorf("got %s", out)
	}

	p.run("import", "--new", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code")
	p.answer("Words", node)
	p.expect("lnd's own")
	p.expect("--kind aezeed")
	p.ends(12)

	p.run("import", "--kind", "xprv", "--new", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code", "--network", "regtest")
	p.answer("Extended master key", "tprv8ZgxMBicQKsPe5YMU9gHen4Ez3ApihUfykaqUorj9t6FDqy3nP6eoXiAo2ssvpAjoLroQxHqr3R5nE3a5dU3DHTjTgJDd7zrbniJr6nrCze")
	p.expect("Not yet: not an extended key")
	p.answer("Extended master key", "tprv8ZgxMBicQKsPe5YMU9gHen4Ez3ApihUfykaqUorj9t6FDqy3nP6eoXiAo2ssvpAjoLroQxHqr3R5nE3a5dU3DHTjTgJDd7zrbniJr6nrCzd")
	p.expect("fingerprint 73c5da0a")
	p.answer("press Enter once it is written down", "")
	if screen := p.ends(0); strings.Contains(screen, "tprv8") {
		t.Errorf("got %s", screen)
	}
}
