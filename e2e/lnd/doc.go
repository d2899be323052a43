// Package lnd tests satchel with a real node: lnd, on a chain that btcd keeps and the
// tests extend at will. It is a module of its own, because lnd wants other versions of
// many modules than Satchel does, and it links neither: the tests build satchel,
// satchel-keyserver, btcd and lnd, run them as processes, and drive lnd over REST.
//
//	go -C e2e/lnd test ./...
//
// The first run builds btcd and lnd, which takes some minutes, and keeps them in the
// user's cache (on Linux ~/.cache/satchel-e2e). No test is skipped for what a machine
// lacks; what needs a server that keeps objects is skipped unless the environment names
// it, as .ci/lnd does. How much is tried is a matter of the environment as well:
//
//	SATCHEL_LND_RUNS=100      rounds of faults in TestStorm
//	SATCHEL_LND_EVENTS=100    channel events that TestTimeToProtected measures
//	SATCHEL_SEED=7            another order of what is random
//
// To try something by hand next to a running node:
//
//	go -C e2e/lnd test -count=1 -timeout=0 -v -run='^TestHold$' -hold .
//
// starts a chain and two nodes with a channel between them, prints where they are and
// what commands reach them, mines on request, and goes on until it is interrupted.
package lnd
