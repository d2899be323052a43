package main

import (
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/satchel-backup/satchel"
)

const satoshiDigits = 8 // after the point of an amount in bitcoin

// The forms of an amount, which few commands need.
var (
	satoshiForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^([0-9]{1,16}) ?(sats?)?$`) })
	bitcoinForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^([0-9]{1,8})(?:\.([0-9]{1,8}))? ?btc$`) })
)

// parseAmount reads an amount as a person writes it, exactly: 500000, 500000sat,
// 0.005btc. A bare number with a point could mean either and is refused.
func parseAmount(text string) (satoshi int64, err error) {
	lower := strings.ToLower(strings.TrimSpace(text))
	digits := ""
	if m := satoshiForm().FindStringSubmatch(lower); m != nil {
		digits = m[1]
	} else if m := bitcoinForm().FindStringSubmatch(lower); m != nil {
		digits = m[1] + m[2] + strings.Repeat("0", satoshiDigits-len(m[2]))
	} else {
		return 0, &usageError{text: "not an amount: " + printable(text), hint: "satoshi such as 500000 or 500000sat, or bitcoin such as 0.005btc"}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > satchel.MaxLimit {
		return 0, usagef("more than there will ever be: %s", printable(text))
	}
	return n, nil
}

// amount prints satoshi, and in bitcoin as well.
func amount(satoshi int64) string {
	btc := new(big.Rat).SetFrac64(satoshi, 100_000_000).FloatString(satoshiDigits)
	btc = strings.TrimSuffix(strings.TrimRight(btc, "0"), ".")
	return fmt.Sprintf("%s sat (%s BTC)", grouped(satoshi), btc)
}

// grouped prints a number with spaces between its thousands.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}
