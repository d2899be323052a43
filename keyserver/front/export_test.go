package front

// Remembered returns how many addresses f keeps.
func Remembered(f *Front) int { return len(f.rates.next) }
