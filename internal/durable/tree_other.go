//go:build !linux || android

package durable

func (d Disk) syncTree(dir string) error { return d.flushTree(dir) }
