package rclone_test

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/satchel-backup/satchel/internal/fakecloud"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/rclone"
)

// fakeDrive returns a store that rclone has in an account of the fake Google Drive.
func fakeDrive(t *testing.T) (*rclone.Store, *fakecloud.Cloud, *fakecloud.Account) {
	t.Helper()
	program := realRclone(t)
	cloud, dir := fakecloud.New(), t.TempDir()
	ann := cloud.AddAccount("1001", "ann@example.org")
	proxy, err := fakecloud.NewProxy(cloud, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	config := filepath.Join(dir, "rclone.conf")
	write(t, fakecloud.RcloneDrive("drive", cloud.DriveToken(ann, "https://www.googleapis.com/auth/drive.file"), "drive.file"), config)
	env := append(proxy.Env(), "RCLONE_DRIVE_PACER_MIN_SLEEP=1ms", "RCLONE_DRIVE_PACER_BURST=1000", "HOME="+dir)
	return real(t, program, config, "drive:Wallets", env...), cloud, ann
}

// R7: what rclone itself makes of two files of one name on Google Drive.
func TestRealTwins(t *testing.T) {
	s, cloud, ann := fakeDrive(t)
	ctx := t.Context()
	put(t, s, "w/a", "good")
	files := cloud.DriveFiles(ann)
	i := slices.IndexFunc(files, func(f fakecloud.DriveFile) bool { return f.Name == "a" })
	cloud.DriveAdd(ann, files[i].Parent, "a", []byte("torn by another"), true)

	list, err := s.List(ctx, "w/")
	if err != nil || len(list) != 2 || list[0].ID == list[1].ID || list[0].Size == list[1].Size {
		t.Fatalf("got %v, %v, want two", list, err)
	}
	for _, data := range []string{"good", "torn by another"} {
		if got, err := s.Get(ctx, "w/a", store.Sum([]byte(data)), 99); err != nil || string(got) != data {
			t.Errorf("got %q, %v, want %q", got, err, data)
		}
		put(t, s, "w/a", data)
	}
	if got, err := s.Get(ctx, "w/a", "", 99); err != nil || len(got) == 0 {
		t.Errorf("any one: got %q, %v", got, err)
	}
	if err := s.Put(ctx, "w/a", []byte("a third")); !errors.Is(err, store.ErrExist) {
		t.Errorf("got %v, want ErrExist", err)
	}
	// Of the two, rclone would take the same for both.
	refused := 0
	for _, o := range list {
		err := s.Delete(ctx, o)
		if err == nil {
			continue
		}
		if refused++; !strings.Contains(err.Error(), "rclone dedupe") {
			t.Errorf("got %v", err)
		}
		if got, err := s.List(ctx, "w/"); err != nil || !slices.ContainsFunc(got, func(there store.Object) bool { return there.ID == o.ID }) {
			t.Errorf("refused, and yet deleted: %v, %v", got, err)
		}
	}
	if refused > 1 {
		t.Error("neither could be deleted")
	}
}

// R2, R9: a sign-in that is over is no absence, and is not asked for again and again.
func TestRealRevoked(t *testing.T) {
	s, cloud, ann := fakeDrive(t)
	put(t, s, "a/b", "x")
	cloud.Revoke(ann)
	before := cloud.Counts()
	everyCall(t, s, store.ErrUnreachable, "rclone lsd drive:")
	requests := 0
	for op, n := range cloud.Counts() {
		requests += n - before[op]
	}
	if requests > 200 { // of seven calls
		t.Errorf("%d requests", requests)
	}
	t.Logf("%d requests", requests)
}
