package satchel

// Dir returns the directory of this device.
func (b *Backup) Dir() string { return b.dev.dir }
