package slot

import (
	"encoding/base32"
	"encoding/hex"
	"strings"

	"filippo.io/age"
)

// PrintCode returns the recovery code of 20 bytes, as printed.
func PrintCode(random []byte) string { return string(printCode(encodeCode(random))) }

// Text returns what age is given.
func Text(s Secret) string { return string(s.text.Open()) }

// CodeHex returns the 20 bytes of a printed recovery code.
func CodeHex(printed string) string {
	b, err := base32.NewEncoding(codeAlphabet).WithPadding(base32.NoPadding).DecodeString(strings.ReplaceAll(printed, "-", "")[:codeRandom])
	if err != nil {
		return err.Error()
	}
	return hex.EncodeToString(b)
}

// WrittenWith returns the work factor that a recipient writes with.
func WrittenWith(r age.Recipient) int { return r.(*scryptRecipient).workFactor }

// SetWorkFactor changes it, for tests that cannot wait.
func SetWorkFactor(r age.Recipient, n int) { r.(*scryptRecipient).workFactor = n }
