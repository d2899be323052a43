package satchel_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

const scb = "lightning/scb"

// versionsOf reads all versions of items, as "item=value" with marks.
func versionsOf(t *testing.T, o *satchel.Opened, names ...string) ([]string, error) {
	t.Helper()
	versions, err := o.Versions(context.Background(), names...)
	var list []string
	for _, v := range versions {
		value := string(v.Value.Open())
		text := fmt.Sprintf("%s=%s", v.Item, value[:min(len(value), 12)])
		if v.Current {
			text += " now"
		}
		if v.Branch {
			text += " branch"
		}
		if v.Snapshot == "" || v.Generation == 0 || v.Saved.IsZero() || v.Device == "" || v.Epoch == 0 {
			t.Errorf("%s: of no moment: %+v", text, v)
		}
		list = append(list, text)
	}
	return list, err
}

func mustVersions(t *testing.T, o *satchel.Opened, want []string, names ...string) {
	t.Helper()
	got, err := versionsOf(t, o, names...)
	if err != nil {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// R21: every value that an item had comes back, each once and the newest first: what
// snapshots carry, what is an object, what a pack holds, and what was removed since.
func TestVersions(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	long := strings.Repeat("L", 5000)
	b, _, way := create(t, cfg, item(scb, "a"))
	save(t, b, item(scb, "b"), item(scb+"/0a0a0a0a", "a"))
	save(t, b, item(scb, long), item("labels", "x"))
	save(t, b, item(scb, "a")) // Again: one value, and newer than the two before.
	save(t, b, item(scb, "c"))
	save(t, b, satchel.Change{Name: scb + "/0a0a0a0a", Remove: true})
	want := []string{scb + "=c now", scb + "=a", scb + "=LLLLLLLLLLLL", scb + "=b"}
	mustVersions(t, openOnly(t, way, cfg), want, scb)
	mustVersions(t, openOnly(t, way, cfg), []string{scb + "/0a0a0a0a=a"}, scb+"/")
	mustVersions(t, openOnly(t, way, cfg), append(slices.Clone(want), scb+"/0a0a0a0a=a"), scb, scb+"/")
	mustVersions(t, openOnly(t, way, cfg), nil, "lightning", "lightning/sc", "nothing/", "")
	versions, err := openOnly(t, way, cfg).Versions(ctx, scb)
	if err != nil {
		t.Fatal(err)
	}
	var generations []uint64
	for _, v := range versions {
		generations = append(generations, v.Generation)
	}
	if want := []uint64{5, 4, 3, 2}; !slices.Equal(generations, want) {
		t.Errorf("written by %v, want %v", generations, want)
	}

	// As the owner of this device, of an older state, and in a pack.
	look, err := unlock(t, b, way).Look(ctx)
	if err != nil {
		t.Fatal(err)
	}
	mustVersions(t, look, want, scb)
	at, err := look.At(ctx, versions[3].Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	mustVersions(t, at, []string{scb + "=b now", scb + "=c", scb + "=a", scb + "=LLLLLLLLLLLL"}, scb)
	if _, err := b.Compact(ctx); err != nil {
		t.Fatal(err)
	}
	mustVersions(t, openOnly(t, way, cfg), want, scb)

	// What wrote the value is pruned; that it is there, a checkpoint tells.
	changeOften(t, b, 130, false)
	if _, err := unlock(t, b, way).Prune(ctx, satchel.PruneOptions{Keep: 1}); err != nil {
		t.Fatal(err)
	}
	mustVersions(t, openOnly(t, way, cfg), want[:1], scb)
	// A restored device has it from its own first checkpoint.
	c := restore(t, newDevice(t, cfg), way)
	save(t, c, item(scb, "d"))
	mustVersions(t, openOnly(t, way, cfg), []string{scb + "=d now", scb + "=c"}, scb)
}

// Damage of one value, or of one snapshot, hides no other, and is told; what another
// place holds is taken from there.
func TestVersionsDamaged(t *testing.T) {
	t.Parallel()
	long := func(s string) string { return strings.Repeat(s, 5000) }
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item(scb, long("a")))
	for _, v := range []string{"b", "c", "d"} {
		save(t, b, item(scb, long(v)))
	}
	all := []string{scb + "=dddddddddddd now", scb + "=cccccccccccc", scb + "=bbbbbbbbbbbb", scb + "=aaaaaaaaaaaa"}
	mustVersions(t, openOnly(t, way, cfg), all, scb)
	whole := clone(t, st)

	for name, test := range map[string]struct {
		part string
		want []string // without places that help
	}{
		"a value":        {"/0000000002-", []string{all[0], all[1], all[3]}},
		"the newest":     {"/0000000004-", []string{all[1], all[2], all[3]}},
		"a snapshot":     {"/000001-0000000002-", []string{all[3]}}, // what is newer builds on it, and one before is the newest whole
		"two values":     {"", []string{all[0], all[3]}},
		"value, deleted": {"", []string{all[0], all[2], all[3]}},
	} {
		broken := clone(t, whole)
		var spoiled []string
		for object, data := range objects(t, broken, "") {
			hit := test.part != "" && strings.Contains(object, test.part) && strings.Contains(object, "/snapshots/") == strings.HasPrefix(test.part, "/000001")
			if name == "two values" {
				hit = strings.Contains(object, "/items/") && (strings.Contains(object, "/0000000002-") || strings.Contains(object, "/0000000003-"))
			}
			if name == "value, deleted" && strings.Contains(object, "/items/") && strings.Contains(object, "/0000000003-") {
				spoiled = append(spoiled, object)
				replace(t, broken, object, nil)
			} else if hit {
				spoiled = append(spoiled, object)
				replace(t, broken, object, append([]byte(data[:len(data)-1]), data[len(data)-1]^1))
			}
		}
		if len(spoiled) == 0 {
			t.Fatalf("%s: nothing spoiled", name)
		}
		bad := config(t, broken)
		o := openOnly(t, way, bad)
		got, err := versionsOf(t, o, scb)
		switch name {
		case "a snapshot":
			// Those after it are whole files, and tell what they wrote.
			if !errors.Is(err, seal.ErrDamaged) || len(got) != 3 || slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "=b") }) {
				t.Errorf("%s: got %q, %v", name, got, err)
			}
		default:
			if !slices.Equal(got, test.want) || err == nil || !errors.Is(err, seal.ErrDamaged) && !errors.Is(err, satchel.ErrMissing) {
				t.Errorf("%s: got %q, %v, want %q", name, got, err, test.want)
			}
		}
		// Another place has it.
		mustVersions(t, openOnly(t, way, config(t, broken, whole)), all, scb)
	}

	// A place that cannot be listed may hold more: that is told.
	away := &storetest.Faulty{Inner: clone(t, whole)}
	two := config(t, st, away)
	away.Choose(func(storetest.Op, string) storetest.Fault { return storetest.Unreachable })
	found, _ := satchel.Find(context.Background(), two)
	if len(found) != 1 {
		t.Fatalf("found %d", len(found))
	}
	o, err := found[0].Open(context.Background(), way)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := versionsOf(t, o, scb); !slices.Equal(got, all) || !errors.Is(err, store.ErrUnreachable) {
		t.Errorf("a place is away: got %q, %v", got, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if got, err := openOnly(t, way, cfg).Versions(ctx, scb); got != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, %v", got, err)
	}
}

// branched returns a backup beside whose history an older device wrote a channel backup
// that this one has not.
func branched(t *testing.T) (st *mem.Store, cfg satchel.Config, b *satchel.Backup, way slot.Secret) {
	t.Helper()
	st = &mem.Store{}
	cfg = config(t, st)
	a, _, way := create(t, cfg, item(scb, "one"), item("labels", "1"))
	a.Close()
	before := clone(t, st)
	newer := newDevice(t, cfg)
	b = restore(t, newer, way)
	save(t, b, item(scb, "two"))
	off := cfg
	off.Places = []store.Place{{Address: "mem:0", Store: before}}
	a, err := satchel.Open(off)
	if err != nil {
		t.Fatal(err)
	}
	save(t, a, item(scb, "only here"), item("labels", "only here"))
	save(t, a, item(scb, "two")) // which both have
	a.Close()
	for name, data := range objects(t, before, "") {
		if _, ok := objects(t, st, "")[name]; !ok {
			st.Add(name, []byte(data))
		}
	}
	return st, newer, b, way
}

// R21: what an older device wrote on beside the history is among the versions, and does
// not go when the user lets that branch go: it becomes an item of its own. What is no
// channel backup goes, as was decided.
func TestChannelBackupsOutliveABranch(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st, cfg, b, way := branched(t)
	mustVersions(t, openOnly(t, way, cfg), []string{scb + "=two now", scb + "=one", scb + "=only here branch"}, scb)
	if _, err := unlock(t, b, way).Prune(ctx, satchel.PruneOptions{Keep: 1}); !errors.Is(err, satchel.ErrForked) {
		t.Errorf("undecided: got %v, want ErrForked", err)
	}
	if _, err := unlock(t, b, way).Prune(ctx, satchel.PruneOptions{Keep: 1, Branches: true}); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("only here"))
	kept := fmt.Sprintf("%s/%x", scb, sum[:4])
	if got := here(t, b); got[kept] != "only here" || got[scb] != "two" || got["labels"] != "1" || len(got) != 5 {
		t.Errorf("got %v", short(got))
	}
	for _, n := range snapshots(t, st) {
		if n.Epoch == 1 {
			t.Errorf("still there: %s", n)
		}
	}
	if !b.Status().Protected {
		t.Error("not protected")
	}
	mustRead(t, here(t, b), way, st)
	// Both are there for ever: no pruning, no new keys take them.
	changeOften(t, b, 130, false)
	if _, err := b.Prune(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := unlock(t, b, way).Prune(ctx, satchel.PruneOptions{Keep: 1}); err != nil {
		t.Fatal(err)
	}
	want := []string{scb + "=two now", kept + "=only here now"}
	mustVersions(t, openOnly(t, way, cfg), want, scb, scb+"/")
	_, ncfg, code := rekey(t, b, cfg, way, false)
	mustVersions(t, openOnly(t, code, ncfg), want, scb, scb+"/")
}

// While it is not known what a branch holds of channels it stays.
func TestBranchStaysWhileUnread(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st, cfg, b, way := branched(t)
	b.Close()
	var stage satchel.Stage
	broken := true
	faulty := &storetest.Faulty{Inner: st}
	cfg.Places = []store.Place{{Address: "mem:0", Store: faulty}}
	cfg.Progress = func(p satchel.Progress) { stage = p.Stage }
	cfg.SetHook(func(durable.Step) error { return nil }) // One after another, so that there is a stage.
	b, err := satchel.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	owner := unlock(t, b, way)
	branch := snapshots(t, st)[1]
	faulty.Choose(func(op storetest.Op, name string) storetest.Fault {
		// Only while the values are looked for: that it is a branch is found out, and what is
		// to be deleted could be read again.
		if broken && stage == satchel.Searching && op == storetest.Get && strings.Contains(name, branch.String()) {
			return storetest.Unreachable
		}
		return storetest.None
	})
	if _, err := owner.Prune(ctx, satchel.PruneOptions{Keep: 1, Branches: true}); !errors.Is(err, store.ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
	if !slices.Contains(snapshots(t, st), branch) {
		t.Fatal("the branch is gone")
	}
	broken = false
	if _, err := owner.Prune(ctx, satchel.PruneOptions{Keep: 1, Branches: true}); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(snapshots(t, st), branch) || len(here(t, b)) != 5 {
		t.Errorf("got %v", short(here(t, b)))
	}
}

// R21: who restores an older state, or one beside which another device wrote on, gets the
// channel backups of the others as items beside its own; nothing else of them.
func TestRestoreBringsChannels(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	name := func(value string) string {
		sum := sha256.Sum256([]byte(value))
		return fmt.Sprintf("%s/%x", scb, sum[:4])
	}
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item(scb, "1"), item("labels", "1"))
	then := b.Head().String()
	save(t, b, item(scb, "2"), item("labels", "2"))
	save(t, b, item(scb, "3"), item("lightning/cln/emergency.recover", "r"))
	save(t, b, item(scb, "1"), item("lightning/monitors/x", "m"))
	o, err := openOnly(t, way, cfg).At(ctx, then)
	if err != nil {
		t.Fatal(err)
	}
	c, out, err := o.Restore(ctx, newDevice(t, cfg), satchel.RestoreOptions{})
	if err != nil || !out.Protected || len(out.Warnings) > 0 {
		t.Fatalf("%v, protected %v, %v", err, out.Protected, out.Warnings)
	}
	defer c.Close()
	sum := sha256.Sum256([]byte("r"))
	got := here(t, c)
	if got[scb] != "1" || got["labels"] != "1" || got[name("2")] != "2" || got[name("3")] != "3" ||
		got[fmt.Sprintf("lightning/cln/emergency.recover/%x", sum[:4])] != "r" || len(got) != 7 {
		t.Errorf("got %v", short(got))
	}
	mustRead(t, got, way, st)

	_, bcfg, _, bway := branched(t)
	d := restore(t, newDevice(t, bcfg), bway)
	if got := here(t, d); got[scb] != "two" || got[name("only here")] != "only here" || got["labels"] != "1" || len(got) != 5 {
		t.Errorf("beside a branch: got %v", short(got))
	}
	// The newest state needs no such thing.
	if got := here(t, restore(t, newDevice(t, cfg), way)); len(got) != 7 {
		t.Errorf("once more: got %v", short(got))
	}
}
