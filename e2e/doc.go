// Package e2e tests the satchel command from outside, as a user meets it: next to
// the programs that must understand what it writes, and with the commands that
// the documents tell a person to type. It is a module of its own, so that what it
// needs weighs on nobody else, and it links nothing of Satchel; what stands for a wallet
// that uses the library is built within Satchel's own module (testdata/pinned), and so is
// the fake of clouds that Google's library and rclone try (testdata/fakecloud).
//
//	go -C e2e test ./...
//
// It builds the command and the stock age tools itself. Debian's electrum, rclone and
// bash, and node 20.19 or later with npm, must be on the machine: no test is
// skipped without them, it fails and says what is missing.
package e2e
