package satchel_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/fakecloud"
	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/store"
)

// R6, R7, R8: folders of one name, files of one name with the same or other bytes, what
// was moved, what lies in the trash, pages and lists that lag are all normal: nothing is
// lost, protected is said only if it is, and what vanished is put back.
func TestCloudDriveDisorder(t *testing.T) {
	t.Parallel()
	type drive struct {
		*site
		t *testing.T
		b *satchel.Backup
	}
	find := func(d *drive, part string) fakecloud.DriveFile {
		d.t.Helper()
		for _, f := range d.cloud.DriveFiles(d.ann) {
			if strings.Contains(f.Name, part) && !f.Trashed {
				return f
			}
		}
		d.t.Fatalf("no file %q", part)
		return fakecloud.DriveFile{}
	}
	folder := func(d *drive) fakecloud.DriveFile { return find(d, "BitcoinWalletBackup-") }
	for name, disorder := range map[string]func(d *drive){
		"pages of 2": func(d *drive) { d.cloud.PageSize = 2 },
		"another folder of the name": func(d *drive) {
			f := folder(d)
			d.cloud.DriveAdd(d.ann, "root", f.Name, nil, true)
		},
		"what is in it in two folders": func(d *drive) {
			f := folder(d)
			other := d.cloud.DriveAdd(d.ann, "root", f.Name, nil, true)
			for i, c := range d.cloud.DriveFiles(d.ann) {
				if c.Parent == f.ID && i%2 == 0 {
					d.cloud.DriveMove(d.ann, c.ID, c.Name, other)
				}
			}
		},
		"two folders of snapshots": func(d *drive) {
			snap, in := find(d, "000001-0000000002-"), find(d, "snapshots")
			d.cloud.DriveMove(d.ann, snap.ID, snap.Name, d.cloud.DriveAdd(d.ann, in.Parent, "snapshots", nil, true))
		},
		"the same file twice": func(d *drive) {
			for _, f := range d.cloud.DriveFiles(d.ann) {
				if !f.Folder {
					d.cloud.DriveAdd(d.ann, f.Parent, f.Name, f.Data, true)
				}
			}
		},
		"a torn file beside": func(d *drive) {
			for _, f := range d.cloud.DriveFiles(d.ann) {
				if !f.Folder && strings.HasSuffix(f.Name, ".age") {
					d.cloud.DriveAdd(d.ann, f.Parent, f.Name, f.Data[:len(f.Data)/2], true)
				}
			}
		},
		"moved to a folder of the user's": func(d *drive) {
			f := folder(d)
			d.cloud.DriveMove(d.ann, f.ID, f.Name, d.cloud.DriveAdd(d.ann, "root", "Bitcoin", nil, false))
		},
		"a snapshot in the trash": func(d *drive) { d.cloud.DriveTrash(d.ann, find(d, "000001-0000000002-").ID, true) },
		"a slot in the trash":     func(d *drive) { d.cloud.DriveTrash(d.ann, find(d, "recovery-code-").ID, true) },
		"all in the trash":        func(d *drive) { d.cloud.DriveTrash(d.ann, folder(d).ID, true) },
		"all in the trash, and an empty folder of the name": func(d *drive) {
			f := folder(d)
			d.cloud.DriveTrash(d.ann, f.ID, true)
			d.cloud.DriveAdd(d.ann, "root", f.Name, nil, true)
		},
		"lists that lag": func(d *drive) { d.cloud.Lag = 3 },
	} {
		// A process that was there before, and one that is new: of the two one at random,
		// unless the clouds are tried at length.
		one := rand.IntN(2) == 1
		for _, anew := range []bool{false, true} {
			if anew != one && os.Getenv("SATCHEL_CLOUD_FAULTS") == "" {
				continue
			}
			t.Run(fmt.Sprintf("%s/anew=%v", name, anew), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := sites["gdrive"](t)
					cfg := config(t, s.store(t))
					b, _, way := create(t, cfg, item("labels", "1"))
					save(t, b, item("labels", "2"), item("file/big", strings.Repeat("2", 9000)))
					disorder(&drive{s, t, b})
					if anew {
						b.Close()
						cfg.Places = []store.Place{{Address: "mem:0", Store: s.store(t)}}
						var err error
						if b, err = satchel.Open(cfg); err != nil {
							t.Fatal(err)
						}
						defer b.Close()
					}
					read := func(what string) {
						t.Helper()
						if !b.Status().Protected {
							return
						}
						s.cloud.Lag = 0 // It is over one day.
						if got, err := independent(way, s.fresh(t)); err != nil || !maps.Equal(got, here(t, b)) {
							t.Errorf("%s: protected, and it restores %v, %v", what, short(got), err)
						}
						if strings.Contains(name, "lag") {
							s.cloud.Lag = 3
						}
					}
					_, err := b.Check(t.Context())
					// A process that is new knows nothing of what lists do not show yet, and may put
					// it once more: of two files of one name and the same bytes one counts.
					blind := anew && strings.Contains(name, "lag")
					if lost := strings.Contains(name, "trash"); lost != (err != nil) && !blind {
						t.Errorf("check: %v", err)
					}
					read("check")
					for i := range 3 {
						time.Sleep(time.Hour)
						save(t, b, item("labels", fmt.Sprint("later ", i)), item("file/big", strings.Repeat(fmt.Sprint(i), 9000)))
						read("save")
					}
					if rep, err := b.Check(t.Context()); err != nil {
						t.Errorf("in the end: %+v, %v", rep.Findings, err)
					}
					s.cloud.Lag = 0
					made := map[string]int{}
					for _, f := range s.cloud.DriveFiles(s.ann) {
						if made[f.Parent+"/"+f.Name]++; made[f.Parent+"/"+f.Name] > 1 && !blind && (strings.Contains(name, "lag") || strings.Contains(name, "pages")) {
							t.Errorf("%s was made twice", f.Name)
						}
					}
					b2 := restore(t, withPlace(newDevice(t, cfg), s.store(t)), way)
					if !maps.Equal(here(t, b2), here(t, b)) {
						t.Error("restored something else")
					}
				})
			})
		}
	}
}

func withPlace(cfg satchel.Config, st store.Store) satchel.Config {
	cfg.Places = []store.Place{{Address: "mem:0", Store: st}}
	return cfg
}

// R1, R5, R9: a server that cannot prove who it is, and one whose certificate this
// device's clock finds expired, are not asked again and again, get nothing, and are
// unreachable.
func TestCloudCertificates(t *testing.T) {
	t.Parallel()
	for name, newSite := range sites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			reached := atomic.Int64{}
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
			srv.Config.ErrorLog = log.New(io.Discard, "", 0)
			srv.StartTLS()
			defer srv.Close()
			roots := x509.NewCertPool()
			roots.AddCert(srv.Certificate())
			for what, tt := range map[string]struct {
				conf *tls.Config
				want string // that the error says
			}{
				"not trusted":       {&tls.Config{ServerName: "example.com"}, "signed by nobody whom this device trusts"},
				"of another server": {&tls.Config{RootCAs: roots, ServerName: "other.test"}, "not for other.test"},
				"years too late":    {&tls.Config{RootCAs: roots, ServerName: "example.com", Time: func() time.Time { return time.Now().AddDate(200, 0, 0) }}, "its certificate ended on"},
				"years too early":   {&tls.Config{RootCAs: roots, ServerName: "example.com", Time: func() time.Time { return time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC) }}, "its certificate ended on"},
			} {
				dials := atomic.Int64{}
				via := web.NewTransport(nil)
				via.Proxy = nil
				via.TLSClientConfig = tt.conf
				via.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
					dials.Add(1)
					return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
				}
				cfg := config(t, s.store(t))
				b, _, _ := create(t, cfg, item("labels", "1"))
				verified := b.Status().Verified
				b.Close()
				bad := withPlace(cfg, s.open(t, s, s.in, via))
				b, err := satchel.Open(bad)
				if err != nil {
					t.Fatal(err)
				}
				_, err = b.Save(t.Context(), item("labels", "2"))
				st := b.Status()
				if !errors.Is(err, store.ErrUnreachable) || !errors.Is(err, satchel.ErrNotProtected) || st.Protected || st.Places[0].Health != satchel.HealthUnreachable || !st.Verified.Equal(verified) {
					t.Errorf("%s: %v, %+v", what, err, st.Places)
				}
				if !strings.Contains(fmt.Sprint(err), tt.want) {
					t.Errorf("%s: the error does not say %q: %v", what, tt.want, err)
				}
				if n := dials.Load(); n < 1 || n > 3 {
					t.Errorf("%s: asked %d times", what, n)
				}
				b.Close()
				if b, err = satchel.Open(cfg); err != nil {
					t.Fatal(err)
				}
				if _, err := b.Sync(t.Context()); err != nil {
					t.Errorf("%s: with the right one: %v", what, err)
				}
				b.Close()
			}
			if n := reached.Load(); n > 0 {
				t.Errorf("%d requests reached a server that is not trusted", n)
			}
		})
	}
}

// R1, R5: clocks that are years wrong, the device's or the service's, never make anything
// protected that is not, and lose nothing.
func TestCloudClocks(t *testing.T) {
	t.Parallel()
	for name, newSite := range sites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				now := time.Time{}
				cfg := config(t, s.store(t))
				cfg.Now = func() time.Time { return now }
				b, _, way := create(t, cfg, item("labels", "1"))
				for i, at := range []time.Time{time.Date(2076, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)} {
					now = at
					save(t, b, item("labels", fmt.Sprint("year ", at.Year())), item("file/big", strings.Repeat(fmt.Sprint(i), 3000)))
					mustRead(t, here(t, b), way, s.fresh(t))
				}
				b2 := restore(t, withPlace(newDevice(t, cfg), s.store(t)), way)
				if !maps.Equal(here(t, b2), here(t, b)) {
					t.Error("restored something else")
				}
				if s.bucket == nil {
					return
				}
				// The service's own clock.
				for _, years := range []int{26, -5} {
					s.bucket.clock = func() time.Time { return time.Now().AddDate(years, 0, 0) }
					before, sent := b2.Status(), s.sent()
					_, err := b2.Save(t.Context(), item("labels", fmt.Sprint("skewed by ", years)))
					st := b2.Status()
					if !errors.Is(err, store.ErrUnreachable) || !strings.Contains(err.Error(), "clock") || st.Protected || !st.Verified.Equal(before.Verified) || st.Places[0].Health != satchel.HealthUnreachable {
						t.Errorf("%v, %+v", err, st.Places)
					}
					if n := s.sent() - sent; n > 10 {
						t.Errorf("%d requests", n)
					}
					s.bucket.clock = nil
					if _, err := b2.Sync(t.Context()); err != nil {
						t.Error(err)
					}
					mustRead(t, here(t, b2), way, s.fresh(t))
				}
			})
		})
	}
}
