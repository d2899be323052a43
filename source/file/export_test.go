package file

// What tests that bring their own system need.
type (
	Stamp   = stamp
	Entry   = entry
	System  = system
	Watcher = watcher
	Disk    = disk
)

const (
	Coarse   = coarse
	Patience = patience
	MaxNews  = maxNews
)

var ItemName = itemName

// NewOn is New on another system.
func NewOn(sys System, cfg Config) (*Source, error) {
	cfg.sys = sys
	return New(cfg)
}

// InBatches returns cfg with another limit for what goes in one save.
func InBatches(cfg Config, size int64) Config {
	cfg.batch = size
	return cfg
}

// WatchShared is one source's part of a Notifier.
func WatchShared(n *Notifier) (*Watcher, error) { return n.watch() }
