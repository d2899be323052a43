package main

import "testing"

func TestParseAmount(t *testing.T) {
	for text, want := range map[string]int64{
		"1": 1, "500000": 500000, "500000sat": 500000, "500000 sats": 500000, "500000SAT": 500000,
		"0.005btc": 500000, "0.005 BTC": 500000, "1btc": 100_000_000, "0.00000001btc": 1, "0.29btc": 29_000_000,
		"20999999.99999999btc": 2_099_999_999_999_999, "21000000btc": 2_100_000_000_000_000, "0": 0,
	} {
		if got, err := parseAmount(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "btc", "1.5", "0.5sat", "-1", "+1", "1e3", ".5btc", "5.btc", "0.000000001btc", "1,000", "1 000",
		"21000000.00000001btc", "2100000000000001", "99999999999999999999", "1btcx", "١"} {
		if got, err := parseAmount(text); err == nil || codeOf(err) != 2 {
			t.Errorf("%q: got %d, %v", text, got, err)
		}
	}
	for satoshi, want := range map[int64]string{1: "1 sat (0.00000001 BTC)", 500_000: "500 000 sat (0.005 BTC)", 100_000_000: "100 000 000 sat (1 BTC)", 1_000_000_000: "1 000 000 000 sat (10 BTC)"} {
		if got := amount(satoshi); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestSomePositions(t *testing.T) {
	seen := map[int]bool{}
	for range 200 {
		drawn := somePositions(12, 4)
		for i, n := range drawn {
			if n < 1 || n > 12 || i > 0 && n <= drawn[i-1] {
				t.Fatalf("drawn: %v", drawn)
			}
			seen[n] = true
		}
	}
	if len(seen) != 12 {
		t.Errorf("only %d positions are ever drawn", len(seen))
	}
}
