//go:build !race

package slot_test

const raceDetector = false
