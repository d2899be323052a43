package keyserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// Tended says what Tend found and did.
type Tended struct {
	Records  int // that were looked at
	Expired  int // accounts that were never confirmed, and are gone now
	Resealed int // records that were under an older master key
	Older    int // records that still are, because somebody else keeps writing them so
	// Unreadable is how many records no master key opens. They are left as they are.
	Unreadable int
}

// page is how many records Tend reads at once, and pause what it leaves to others after
// each.
const (
	page  = 500
	pause = 5 * time.Millisecond
)

// Tend goes through all records once: it deletes accounts that were never confirmed, and
// seals anew what is sealed under an older master key. Requests are answered meanwhile,
// and several servers may do it at once. After an error it is begun again from the start.
func (s *Server) Tend(ctx context.Context) (t Tended, err error) {
	if err := s.reseal(ctx, incarnationID, &t); err != nil {
		return t, fmt.Errorf("tending the records: %w", err)
	}
	for after := (ID{}); ; {
		list, err := s.cfg.Records.Scan(ctx, after, page)
		if err != nil {
			return t, fmt.Errorf("tending the records: %w", err)
		}
		for _, e := range list {
			if bytes.Compare(e.ID[:], after[:]) <= 0 {
				return t, errors.New("tending the records: they are not in order")
			}
			after = e.ID
			t.Records++
			if err := s.tend(ctx, e, &t); err != nil {
				return t, fmt.Errorf("tending the records: %w", err)
			}
		}
		if len(list) < page {
			return t, nil
		}
		select {
		case <-ctx.Done():
			return t, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// tries is how often a record is looked at again that others write at the same time. One
// that was not tended is in the next round.
const tries = 5

// tend does one record, as it was read.
func (s *Server) tend(ctx context.Context, e Entry, t *Tended) error {
	for range tries {
		expired, resealed, err := s.tendOnce(ctx, e)
		if err == nil {
			t.Expired += expired
			if resealed {
				t.Resealed++
			}
			return nil
		}
		if errors.Is(err, ErrMaster) || errors.Is(err, errRecord) {
			t.Unreadable++
			return nil
		}
		if !errors.Is(err, ErrStale) {
			return err
		}
		if e, err = s.cfg.Records.Get(ctx, e.ID); errors.Is(err, ErrNoRecord) {
			return nil
		} else if err != nil {
			return err
		}
	}
	if !s.cfg.Master.current(e.Data) {
		t.Older++
	}
	return nil
}

func (s *Server) tendOnce(ctx context.Context, e Entry) (expired int, resealed bool, err error) {
	b, err := s.open(e.ID, e.Data)
	if err != nil {
		return 0, false, err
	}
	older := !s.cfg.Master.current(e.Data)
	if _, ok := parseAlias(b); ok {
		if !older {
			return 0, false, nil
		}
		return 0, true, s.rewrite(ctx, e, b)
	}
	h, err := hold(e, b)
	if err != nil {
		return 0, false, err
	}
	before := h.count()
	gone := h.expire(s.cfg.Now().UnixMilli())
	expired = before - h.count()
	switch {
	case gone:
		return expired, false, s.remove(ctx, h)
	case expired > 0:
		return expired, older, s.save(ctx, h)
	case older:
		return 0, true, s.rewrite(ctx, e, b)
	}
	return 0, false, nil
}

// count returns how many accounts a record holds.
func (r *record) count() (n int) {
	for _, k := range r.Keys {
		if k.State != 0 {
			n++
		}
	}
	return n
}

// rewrite seals the same bytes under the newest key.
func (s *Server) rewrite(ctx context.Context, e Entry, b []byte) error {
	sealed, err := s.cfg.Master.seal(e.ID, b)
	if err != nil {
		return err
	}
	return s.cfg.Records.Put(ctx, Write{e.ID, e.Version, sealed})
}

// reseal does a record that is no account's.
func (s *Server) reseal(ctx context.Context, id ID, t *Tended) error {
	e, err := s.cfg.Records.Get(ctx, id)
	if err != nil {
		return err
	}
	b, err := s.open(id, e.Data)
	if err != nil || s.cfg.Master.current(e.Data) {
		return err
	}
	err = s.rewrite(ctx, e, b)
	if errors.Is(err, ErrStale) {
		t.Older++
		return nil
	}
	if err == nil {
		t.Resealed++
	}
	return err
}

// Check reports whether the server can answer: its database can be read and written, and
// its master key opens what is there. It also learns from it that another server was told
// of a copy that was put back.
func (s *Server) Check(ctx context.Context) error {
	e, err := s.cfg.Records.Get(ctx, incarnationID)
	if err != nil {
		return fmt.Errorf("checking the key server: %w", err)
	}
	n, b, err := s.parseIncarnation(e)
	if err != nil {
		return fmt.Errorf("checking the key server: %w", err)
	}
	for {
		known := s.incarnation.Load()
		if n <= known || s.incarnation.CompareAndSwap(known, n) {
			break
		}
	}
	if err := s.rewrite(ctx, e, b); err != nil && !errors.Is(err, ErrStale) {
		return fmt.Errorf("checking the key server: %w", err)
	}
	return nil
}
