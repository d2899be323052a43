//go:build race

package satchel_test

// raced says that the race detector slows everything down: what has nothing to do
// with races is then tried in part.
const raced = true
