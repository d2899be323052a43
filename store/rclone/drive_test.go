package rclone_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/internal/cloudtest"
	"github.com/satchel-backup/satchel/internal/fakecloud"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/gdrive"
)

// bearer is a token that is never refused.
type bearer string

func (b bearer) Token(_ context.Context, stale string) (string, error) {
	if stale != "" {
		return "", store.ErrSignIn
	}
	return string(b), nil
}

// drives returns a function that opens stores in a folder of a new account of Google
// Drive: by rclone, and by ourselves.
func drives(t *testing.T, program string) func(t *testing.T, folder string) (byRclone, byUs store.Store) {
	t.Helper()
	cloud := fakecloud.New()
	ann := cloud.AddAccount("1001", "ann@example.org")
	dir, token := t.TempDir(), cloud.DriveToken(ann, gdrive.Scopes(false)...)
	proxy, err := fakecloud.NewProxy(cloud, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	config := filepath.Join(dir, "rclone.conf")
	write(t, fakecloud.RcloneDrive("drive", token, "drive.file"), config)
	vars := append(proxy.Env(), "HOME="+dir, "RCLONE_DRIVE_PACER_MIN_SLEEP=1ms", "RCLONE_DRIVE_PACER_BURST=1000")
	return func(t *testing.T, folder string) (byRclone, byUs store.Store) {
		t.Helper()
		us, err := gdrive.New(gdrive.Config{Tokens: bearer(token), Owner: "1001", Folder: folder, Transport: cloud.Transport()})
		if err != nil {
			t.Fatal(err)
		}
		return real(t, program, config, "drive:"+folder, vars...), us
	}
}

// The journey of a wallet over rclone's own way to Google Drive; and what rclone put
// there our own store finds, and the other way round. The tests of all stores do not
// always pass here: two runs of rclone at the same time can make two folders of one path,
// and a later run looks for an object in one of them only.
func TestRealDriveJourney(t *testing.T) {
	open := drives(t, realRclone(t))
	cloudtest.Journey(t, func() store.Store {
		s, _ := open(t, "Wallets")
		return s
	})
	byRclone, byUs := open(t, "Wallets")
	names := func(s store.Store) map[string]int64 {
		list, err := s.List(t.Context(), "")
		if err != nil || len(list) < 5 {
			t.Fatalf("got %d objects, %v", len(list), err)
		}
		sizes := map[string]int64{}
		for _, o := range list {
			sizes[o.Name] = o.Size
			data, err := s.Get(t.Context(), o.Name, "", 1<<20)
			if err != nil || int64(len(data)) != o.Size {
				t.Errorf("%s: got %d bytes, %v, want %d", o.Name, len(data), err, o.Size)
			}
		}
		return sizes
	}
	if diff := cmp.Diff(names(byRclone), names(byUs)); diff != "" {
		t.Errorf("(-rclone +us):\n%s", diff)
	}
	put(t, byUs, "Wallet-Bob's/slots/a b.age", "by us")
	put(t, byRclone, "Wallet-Bob's/slots/c.age", "by rclone")
	for name, data := range map[string]string{"Wallet-Bob's/slots/a b.age": "by us", "Wallet-Bob's/slots/c.age": "by rclone"} {
		for _, s := range []store.Store{byRclone, byUs} {
			if got, err := s.Get(t.Context(), name, store.Sum([]byte(data)), 100); err != nil || string(got) != data {
				t.Errorf("got %q, %v, want %q", got, err, data)
			}
		}
	}
}
