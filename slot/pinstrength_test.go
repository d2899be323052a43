package slot_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
)

func TestCheckPIN(t *testing.T) {
	for pin, reason := range map[string]string{
		"0000": "steps", "7777777": "steps", "1234": "steps", "9876": "steps", "2468": "steps", "8901": "steps",
		"1212": "repeats", "123123": "repeats", "1122": "pairs", "337788": "pairs", "1221": "both ends", "123321": "both ends",
		"1987": "date", "2025": "date", "3112": "date", "0229": "date", "241287": "date", "871224": "date", "24121987": "date", "19871224": "date",
		"2580": "many people", "1337": "many people", "159753": "many people", "12": "fewer than 4",
		" 4729": "space", "47\n29": "cannot be typed", "love": "", "password": "", "Satoshi": "", "qwerty": "", "samantha": "", "１２３４": "steps",
	} {
		err := slot.CheckPIN(secret.FromString(pin), "Samantha")
		weak, ok := errors.AsType[*slot.WeakError](err)
		if !ok || !strings.Contains(weak.Reason, reason) {
			t.Errorf("%q: got %v, want %q", pin, err, reason)
		} else if weak.Advice == "" || pin != "password" && strings.Contains(err.Error(), pin) {
			t.Errorf("%q: %v, advice %q", pin, err, weak.Advice)
		}
	}
	for _, pin := range []string{"3717", "9062", "4729", "8264", "590271", "73910462", "482915730264", "kq7!x", "vogel7tasse"} {
		if err := slot.CheckPIN(secret.FromString(pin)); err != nil {
			t.Errorf("%q: %v", pin, err)
		}
	}
	for _, pin := range []string{"", "\xff\xfe12", strings.Repeat("7", 1025)} {
		if err := slot.CheckPIN(secret.FromString(pin)); !errors.Is(err, guard.ErrPIN) {
			t.Errorf("%.10q: got %v, want %v", pin, err, guard.ErrPIN)
		}
	}
}

// Of four digits about a tenth is refused.
func TestCheckPINShare(t *testing.T) {
	refused := 0
	for n := range 10_000 {
		if slot.CheckPIN(secret.FromString(fmt.Sprintf("%04d", n))) != nil {
			refused++
		}
	}
	t.Logf("%d of 10,000 are refused", refused)
	if refused < 900 || refused > 1300 {
		t.Errorf("%d of 10,000 are refused, want about a tenth", refused)
	}
}
