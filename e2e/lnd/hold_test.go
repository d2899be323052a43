package lnd

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Two nodes with a channel between them, for a person, until that ends it: see the
// comment of the package.
func TestHold(t *testing.T) {
	if !*hold {
		return // Not a test of anything.
	}
	dir := t.TempDir()
	c := newChain(t)
	alice := newNode(t, c, filepath.Join(dir, "alice"), "alice")
	bob := newNode(t, c, filepath.Join(dir, "bob"), "bob")
	alice.fund(t, 10_000_000)
	alice.fund(t, 10_000_000)
	bob.fund(t, 10_000_000)
	alice.connect(t, bob)
	alice.newChannel(t, bob, 1_000_000, 200_000)
	script := func(name, format string, args ...any) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+fmt.Sprintf(format, args...)+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var s strings.Builder
	fmt.Fprintf(&s, "\n%s BLOCKS mines\n", script("mine", `exec %s/btcctl --configfile=/dev/null --regtest --rpcserver=%s --rpcuser=%s --rpcpass=%s --rpccert=%s generate "${1:-1}"`,
		lndBin, c.rpc, rpcUser, rpcPassword, c.cert))
	for _, n := range []*node{alice, bob} {
		lncli := script(n.name+"-cli", `exec %s/lncli --lnddir=%s --network=regtest --rpcserver=%s "$@"`, lndBin, n.dir(), n.grpc)
		again := script(n.name+"-start", `HOME=%s exec %s/lnd --lnddir=%s --wallet-unlock-password-file=%s`, n.home, lndBin, n.dir(), n.passwordPath())
		fmt.Fprintf(&s, `
%s
    home      %s (lnd is below, in .lnd; process %d)
    REST      https://%s
    tls.cert  %s
    macaroon  %s
    backup    %s
    peer      %s@%s
    words     %s
    lncli     %s COMMAND
    again     %s (after you ended it: kill %d)
`, n.name, n.home, n.process.cmd.Process.Pid, n.rest, n.certPath(), n.macaroonPath(), n.backupPath(), n.id, n.peer, strings.Join(n.words, " "), lncli, again, n.process.cmd.Process.Pid)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	fmt.Println(s.String() + "\nCtrl-C, or SIGTERM, ends all of it.")
	<-signals
}
