package satchel_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
)

// R3: 8 wallets on 3 devices each in one account, in any order: all are found and
// restored at the newest state that was acknowledged, and a device that was
// replaced is told so and changes nothing.
func TestManyWallets(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	rnd := rand.New(rand.NewPCG(1, 2))
	st := &mem.Store{}
	type user struct {
		way     slot.Secret
		devices []*satchel.Backup
		want    map[string]string
	}
	users := make([]*user, 8)
	for i := range users {
		b, _, way := create(t, config(t, st), item("labels", fmt.Sprint("of ", i)))
		users[i] = &user{way, []*satchel.Backup{b}, here(t, b)}
	}
	steps := 120
	if raced {
		steps = 30
	}
	for step := range steps {
		u := users[rnd.IntN(len(users))]
		last := len(u.devices) - 1
		switch n := rnd.IntN(10); {
		case n < 2 && last < 2:
			cfg := newDevice(t, config(t, st))
			found, err := satchel.Find(ctx, cfg)
			if err != nil || len(found) != len(users) {
				t.Fatalf("found %d, %v", len(found), err)
			}
			opened := 0
			for i := range found {
				o, err := found[i].Open(ctx, u.way)
				if errors.Is(err, slot.ErrWrongSecret) {
					continue
				}
				b, _, err := o.Restore(ctx, cfg, satchel.RestoreOptions{})
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				opened++
				u.devices = append(u.devices, b)
			}
			if opened != 1 {
				t.Fatalf("%d backups opened", opened)
			}
			if got := here(t, u.devices[last+1]); !maps.Equal(got, u.want) {
				t.Fatalf("step %d: restored %v, want %v", step, short(got), short(u.want))
			}
		case n < 4 && last > 0:
			// An older device looks up, and stops (R16).
			old := u.devices[rnd.IntN(last)]
			before := here(t, old)
			if _, err := old.Save(ctx, item("labels", "from the past")); !errors.Is(err, satchel.ErrOtherDevice) || satchel.CodeOf(err) != satchel.CodeOtherDevice {
				t.Fatalf("an older device: %v", err)
			}
			if old.Status().Protected || !maps.Equal(here(t, old), before) {
				t.Fatal("an older device is protected, or was changed")
			}
		default:
			save(t, u.devices[last], item(fmt.Sprintf("file/%d", rnd.IntN(4)), strings.Repeat(fmt.Sprint(step), 1+rnd.IntN(2000))))
			u.want = here(t, u.devices[last])
		}
	}
	for i, u := range users {
		mustRead(t, u.want, u.way, st)
		if rep, err := u.devices[len(u.devices)-1].Check(ctx); err != nil {
			t.Errorf("user %d: %+v %v", i, rep, err)
		}
	}
}

// R3: the folder of a new backup is not one that stands there already.
func TestFolderTaken(t *testing.T) {
	t.Parallel()
	st := &mem.Store{}
	free := "BitcoinWalletBackup-Samantha-1a2b"
	for i := range 1 << 16 {
		if f := fmt.Sprintf("BitcoinWalletBackup-Samantha-%04x", i); f[len(f)-1] != free[len(free)-1] {
			st.Add(f+"/x", []byte("x"))
		}
	}
	b, _, _ := create(t, config(t, st))
	if got := b.Status().Folder; got[len(got)-1] != free[len(free)-1] {
		t.Errorf("got %s, which is taken", got)
	}
}

// together puts two backups into one folder, as if the names had met by chance, and
// returns them with the place.
func together(t *testing.T) (a, b *satchel.Backup, wayA, wayB slot.Secret, st *mem.Store) {
	t.Helper()
	one, two := &mem.Store{}, &mem.Store{}
	a, _, wayA = create(t, config(t, one), item("labels", "a"), item("file/a", strings.Repeat("a", 3000)))
	cfg := config(t, two)
	b, _, wayB = create(t, cfg, item("labels", "b"), item("file/b", strings.Repeat("b", 3000)))
	folder := b.Status().Folder
	b.Close()
	for name, data := range objects(t, two, "") {
		name = strings.Replace(name, folder, a.Status().Folder, 1)
		if !strings.HasSuffix(name, ".age") {
			continue // The first one's hints stand there.
		}
		one.Add(name, []byte(data))
	}
	info := filepath.Join(cfg.Dir, "device.json")
	text, err := os.ReadFile(info)
	if err != nil {
		t.Fatal(err)
	}
	write(t, info, []byte(strings.Replace(string(text), folder, a.Status().Folder, 1)))
	cfg.Places = []store.Place{{Address: "mem:0", Store: one}}
	if b, err = satchel.Open(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return a, b, wayA, wayB, one
}

// R3: two backups in one folder. Each opens with its own secret; neither device
// writes over the other; deleting one leaves every byte of the other.
func TestTwoInOneFolder(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	a, b, wayA, wayB, st := together(t)
	before := objects(t, st, "")
	for _, x := range []*satchel.Backup{a, b} {
		if _, err := x.Save(ctx, item("labels", "new")); !errors.Is(err, satchel.ErrOtherDevice) {
			t.Errorf("got %v", err)
		}
	}
	if !maps.Equal(objects(t, st, ""), before) {
		t.Error("something was written")
	}
	for _, c := range []struct {
		way slot.Secret
		b   *satchel.Backup
	}{{wayA, a}, {wayB, b}} {
		values, o, err := readAll(c.way, st)
		if err != nil || !maps.Equal(values, here(t, c.b)) || len(o.Preview().Warnings) == 0 {
			t.Fatalf("%v %v", short(values), err)
		}
	}

	ow, err := a.Unlock(ctx, wayA)
	if err != nil {
		t.Fatal(err)
	}
	del, err := ow.Delete(ctx)
	if err != nil || del.Objects == 0 {
		t.Fatalf("%+v %v", del, err)
	}
	after := objects(t, st, "")
	for name, data := range before {
		if after[name] != data && (len(after[name]) > 0 || !strings.HasSuffix(name, ".age")) {
			t.Errorf("%s was changed", name)
		}
	}
	values, _, err := readAll(wayB, st)
	if err != nil || !maps.Equal(values, here(t, b)) {
		t.Errorf("the other one: %v %v", short(values), err)
	}
	if _, _, err := readAll(wayA, st); err == nil {
		t.Error("the deleted one still opens")
	}
	// The other one is restored, and its device goes on writing beside what is left.
	b2 := restore(t, newDevice(t, config(t, st)), wayB)
	save(t, b2, item("labels", "b2"))
}

// R3, R15: a restore does not overwrite what is on the device already.
func TestRestoreOverwritesNothing(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg)
	o := openOnly(t, way, cfg)
	other := config(t, &mem.Store{})
	c, _, _ := create(t, other)
	b.Close()
	c.Close()
	full := filepath.Join(t.TempDir(), "full")
	if err := os.Mkdir(full, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(full, "x"), []byte("x"))
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(full, link); err != nil {
		t.Skip(err)
	}
	for _, c := range []struct {
		dir  string
		want error
		code satchel.Code
	}{
		{cfg.Dir, fs.ErrExist, satchel.CodeFailed},
		{other.Dir, satchel.ErrWrongWallet, satchel.CodeWrongWallet},
		{full, fs.ErrExist, satchel.CodeFailed},
		{link, fs.ErrExist, satchel.CodeFailed},
	} {
		before, keys := files(t, filepath.Dir(c.dir)), &ring{}
		into := newDevice(t, cfg)
		into.Dir, into.Keychain = c.dir, keys
		b, _, err := o.Restore(ctx, into, satchel.RestoreOptions{})
		if b != nil {
			t.Fatalf("restored over %s", c.dir)
		}
		isErr(t, err, c.want, c.code)
		if _, err = satchel.Create(ctx, into, satchel.Plan{Keys: newKeys(t), Slots: []slot.Secret{way}}); err == nil {
			t.Fatalf("created over %s", c.dir)
		}
		if !maps.Equal(files(t, filepath.Dir(c.dir)), before) || len(keys.m) != 0 {
			t.Errorf("%s was changed", c.dir)
		}
	}
}

// R16: a device and a copy of its directory cannot both go on: the second to write
// is stopped, and both branches stay.
func TestClonedDevice(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newBroken()
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", "1"))
	b.Close()
	s := scene{cfg, st.inner}
	twin := s.copy(t).cfg
	twin.Places = cfg.Places
	open := func(cfg satchel.Config) *satchel.Backup {
		b, err := satchel.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	}
	b, c := open(cfg), open(twin)

	// One wrote: the other stops.
	save(t, b, item("labels", "b"))
	if _, err := c.Save(ctx, item("labels", "c")); !errors.Is(err, satchel.ErrOtherDevice) {
		t.Fatalf("got %v", err)
	}

	// Both wrote while neither saw the other: both stop, both states are there, and
	// the user is asked.
	st.Set("list", "absent")
	c.Save(ctx, item("labels", "c"))
	st.Set("list", "")
	for _, x := range []*satchel.Backup{b, c} {
		if _, err := x.Save(ctx, item("labels", "more")); !errors.Is(err, satchel.ErrOtherDevice) {
			t.Errorf("got %v", err)
		}
		if rep, err := x.Check(ctx); !errors.Is(err, satchel.ErrOtherDevice) || rep.Places[0].Health != satchel.HealthOtherDevice {
			t.Errorf("check: %v", err)
		}
	}
	o := openOnly(t, way, newDevice(t, cfg))
	isErr(t, o.Preview().Problem, satchel.ErrForked, satchel.CodeOtherDevice)
	if _, _, err := o.Restore(ctx, newDevice(t, cfg), satchel.RestoreOptions{}); !errors.Is(err, satchel.ErrForked) {
		t.Errorf("restored without being asked: %v", err)
	}
	var labels []string
	for _, cand := range append(o.Preview().Others, satchel.Candidate{Snapshot: o.Preview().Snapshot}) {
		other, err := o.At(ctx, cand.Snapshot)
		if err != nil {
			t.Fatal(err)
		}
		v, err := other.Value(ctx, "labels")
		if err != nil {
			t.Fatal(err)
		}
		labels = append(labels, string(v.Open()))
	}
	if got := fmt.Sprint(labels); !strings.Contains(got, "b") || !strings.Contains(got, "c") {
		t.Errorf("both branches: got %s", got)
	}
}

// R16: two devices that restored at the same time stop each other, also when one of
// them was ahead, and the next restore is told.
func TestTwoTakeovers(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newBroken()
	cfg := config(t, st)
	_, _, way := create(t, cfg, item("labels", "1"))
	first, second := openOnly(t, way, cfg), openOnly(t, way, cfg)
	b, _, err := first.Restore(ctx, newDevice(t, cfg), satchel.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	save(t, b, item("labels", "b"))
	save(t, b, item("settings", "b"))

	// R2: what was opened before that is not the newest any more.
	if _, _, err := second.Restore(ctx, newDevice(t, cfg), satchel.RestoreOptions{}); !errors.Is(err, satchel.ErrOtherDevice) {
		t.Fatalf("restored what was out of date: %v", err)
	}
	// The same, unseen.
	st.Set("list", "lag")
	c, _, err := second.Restore(ctx, newDevice(t, cfg), satchel.RestoreOptions{})
	if c == nil {
		t.Fatal(err)
	}
	defer c.Close()
	st.Set("list", "")
	st.Settle()
	for _, x := range []*satchel.Backup{b, c} {
		if _, err := x.Save(ctx, item("labels", "more")); !errors.Is(err, satchel.ErrOtherDevice) {
			t.Errorf("got %v", err)
		}
	}
	o := openOnly(t, way, newDevice(t, cfg))
	isErr(t, o.Preview().Problem, satchel.ErrForked, satchel.CodeOtherDevice)
	if o.Preview().Generation != 4 || len(o.Preview().Others) == 0 {
		t.Errorf("%+v", o.Preview())
	}
	d, _, err := o.Restore(ctx, newDevice(t, cfg), satchel.RestoreOptions{AcceptProblem: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	save(t, d, item("labels", "d"))
	if o := openOnly(t, way, newDevice(t, cfg)); o.Preview().Problem != nil {
		t.Errorf("after the user decided: %v", o.Preview().Problem)
	}
}

// A device that wrote while another restored is a branch, and both are told.
func TestBranch(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newBroken()
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", "1"))
	o := openOnly(t, way, cfg)
	var once sync.Once
	cfg2 := newDevice(t, cfg)
	cfg2.Progress = func(p satchel.Progress) {
		if p.Stage == satchel.Restoring {
			once.Do(func() { save(t, b, item("labels", "late"), item("file/x", strings.Repeat("x", 5000))) })
		}
	}
	c, out, err := o.Restore(ctx, cfg2, satchel.RestoreOptions{})
	if err != nil || !strings.Contains(strings.Join(out.Warnings, "\n"), "generation 2") {
		t.Fatalf("%v %v", out.Warnings, err)
	}
	defer c.Close()
	if _, err := b.Save(ctx, item("labels", "later")); !errors.Is(err, satchel.ErrOtherDevice) {
		t.Errorf("got %v", err)
	}
	o = openOnly(t, way, newDevice(t, cfg))
	p := o.Preview()
	if p.Problem != nil || p.Epoch != 2 || len(p.Others) != 1 || !strings.Contains(strings.Join(p.Warnings, "\n"), "went on writing") {
		t.Fatalf("%+v", p)
	}
	// The branch can be restored instead, and counts from then on.
	other, err := o.At(ctx, p.Others[0].Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	d, _, err := other.Restore(ctx, newDevice(t, cfg), satchel.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got := here(t, d); got["labels"] != "late" || len(got["file/x"]) != 5000 {
		t.Errorf("%v", short(got))
	}
	if _, err := o.At(ctx, "nonsense"); !errors.Is(err, satchel.ErrMissing) {
		t.Errorf("got %v", err)
	}
	mustRead(t, here(t, d), way, st.inner)
}

// A second process, or a second Open in this one, is kept out; after Close it is
// let in, and the closed one does nothing more.
func TestBusy(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	cfg := config(t, &mem.Store{})
	b, _, way := create(t, cfg)
	if _, err := satchel.Open(cfg); !errors.Is(err, satchel.ErrBusy) {
		t.Fatalf("got %v", err)
	}
	b.Close()
	c, err := satchel.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, saveErr := b.Save(ctx, item("labels", "1"))
	_, checkErr := b.Check(ctx)
	_, drillErr := b.Drill(ctx, way)
	_, unlockErr := b.Unlock(ctx, way)
	for _, err := range []error{saveErr, checkErr, drillErr, unlockErr, b.Forget()} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("after Close: got %v", err)
		}
	}
	save(t, c, item("labels", "2"))
}

// Saves from many goroutines come one after another.
func TestConcurrentSaves(t *testing.T) {
	t.Parallel()
	st := &mem.Store{}
	b, _, way := create(t, config(t, st))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 4 {
				if _, err := b.Save(context.Background(), item(fmt.Sprintf("file/%d-%d", i, j), "x")); err != nil {
					t.Error(err)
				}
				b.Status()
				b.Items()
				b.Get("labels")
			}
		})
	}
	wg.Wait()
	if st := b.Status(); st.Generation != 33 || st.Items != 34 {
		t.Errorf("%+v", st)
	}
	mustRead(t, here(t, b), way, st)
}
