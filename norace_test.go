//go:build !race

package satchel_test

const raced = false
