package postgres

import "context"

// Unprepared is Open for a database that need not be there.
func Unprepared(ctx context.Context, address string) (*DB, error) {
	d, err := connect(ctx, address)
	if err == nil {
		d.begin()
	}
	return d, err
}

type Away = away

func (a *away) Before() error    { return a.before() }
func (a *away) Failed(err error) { a.failed(err) }
func (a *away) Connected()       { a.connected() }
