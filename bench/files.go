package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/keychain"
)

func (b *bench) fileName(i int) string { return fmt.Sprintf("%05d", i) }

// files measures saving and restoring many files, beside restic. What it makes stays
// until the end: file systems are slower at making files when many were removed just
// before.
func (b *bench) files(ctx context.Context) error {
	src := b.path("files")
	if err := os.Mkdir(src, 0o700); err != nil {
		return err
	}
	var names []string
	for i := range b.size.files {
		names = append(names, b.fileName(i))
		if err := b.rewrite(src, i); err != nil {
			return err
		}
	}
	ours, err := b.ourFiles(ctx, src, names)
	if err != nil {
		return err
	}
	var theirs figures
	if b.restic != "" {
		if theirs, err = b.resticFiles(ctx, src); err != nil {
			return err
		}
	}
	return b.compare(ctx, ours, theirs)
}

// rewrite gives a file a new random content.
func (b *bench) rewrite(dir string, i int) error {
	value := make([]byte, b.size.value)
	rand.Read(value)
	return os.WriteFile(filepath.Join(dir, b.fileName(i)), value, 0o600)
}

// figures are what one program took for the files.
type figures struct {
	open      []usage // to open the backup, and nothing else
	save      usage
	bytes     int64 // in the folder
	files     int
	check     usage   // all of it read and compared
	change    []usage // one file of many changed
	tree      []usage // the same, found by looking at all files; nil if there is no such command
	perChange int64   // bytes in the folder
	restore   []usage
}

func (b *bench) ourFiles(ctx context.Context, src string, names []string) (f figures, err error) {
	b.note("satchel saves %d files", len(names))
	w, _, err := b.create(ctx, "files-satchel")
	if err != nil {
		return f, err
	}
	in := func(p program) program { p.dir = src; return p }
	if f.save, err = b.exec(ctx, in(b.on(w, append([]string{"backup"}, names...)...))); err != nil {
		return f, err
	}
	if f.bytes, f.files, err = content(w.place); err != nil {
		return f, err
	}
	if f.open, err = b.times(ctx, b.size.quick, b.on(w, "status"), nil); err != nil {
		return f, err
	}
	if f.check, err = b.exec(ctx, b.on(w, "check")); err != nil {
		return f, err
	}
	if f.change, err = b.times(ctx, b.size.quick, in(b.on(w, "backup", names[0])), func(int) error { return b.rewrite(src, 0) }); err != nil {
		return f, err
	}
	after, _, err := content(w.place)
	if err != nil {
		return f, err
	}
	f.perChange = (after - f.bytes) / int64(b.size.quick)
	for i := range b.size.runs {
		b.note("satchel restores them, %d of %d", i+1, b.size.runs)
		there := w
		there.home = b.path("files-satchel", fmt.Sprintf("home-%d", i))
		p := b.on(there, "restore", "--from", w.place, "--yes", "--json", "--secret-fd", "3")
		p.secrets = [][]byte{w.code}
		u, err := b.exec(ctx, p)
		if err != nil {
			return f, err
		}
		f.restore = append(f.restore, u)
		if err := b.sameItems(there, src); err != nil {
			return f, err
		}
	}
	return f, nil
}

// every is which files are compared after a restore: one of so many.
const every = 50

// sameItems compares what was restored with the files.
func (b *bench) sameItems(w cmdWallet, src string) error {
	dirs, err := filepath.Glob(filepath.Join(w.home, "wallets", "*"))
	if err != nil || len(dirs) != 1 {
		return errors.Join(err, fmt.Errorf("%d wallets in %s", len(dirs), w.home))
	}
	dev, err := satchel.Open(satchel.Config{Dir: dirs[0], Keychain: keychain.File(filepath.Join(w.home, "keychain"))})
	if err != nil {
		return err
	}
	defer dev.Close()
	if n := len(dev.Items()); n != b.size.files+2 {
		return fmt.Errorf("%d items were restored", n)
	}
	for i := 0; i < b.size.files; i += every {
		want, err := os.ReadFile(filepath.Join(src, b.fileName(i)))
		if err != nil {
			return err
		}
		got, err := dev.Get("file/" + b.fileName(i))
		if err != nil {
			return err
		}
		if !bytes.Equal(got.Open(), want) {
			return fmt.Errorf("item %d is another one after the restore", i)
		}
	}
	return nil
}

// resticFiles does the same with restic, in another directory of the same disk.
func (b *bench) resticFiles(ctx context.Context, src string) (f figures, err error) {
	repo := b.path("files-restic")
	env := []string{"RESTIC_REPOSITORY=" + repo, "RESTIC_PASSWORD=correct horse battery staple", "RESTIC_CACHE_DIR=" + b.path("restic-cache")}
	on := func(args ...string) program {
		return program{args: append([]string{b.restic}, args...), env: env, dir: src}
	}
	b.note("restic saves them")
	if _, err = b.exec(ctx, on("init")); err != nil {
		return f, err
	}
	if f.save, err = b.exec(ctx, on("backup", ".")); err != nil {
		return f, err
	}
	if f.bytes, f.files, err = content(repo); err != nil {
		return f, err
	}
	if f.open, err = b.times(ctx, b.size.runs, on("cat", "config"), nil); err != nil {
		return f, err
	}
	if f.check, err = b.exec(ctx, on("check", "--read-data")); err != nil {
		return f, err
	}
	for i := range b.size.runs {
		b.note("restic restores them, %d of %d", i+1, b.size.runs)
		to := b.path("files-restored", fmt.Sprint(i))
		u, err := b.exec(ctx, on("restore", "latest", "--target", to))
		if err != nil {
			return f, err
		}
		f.restore = append(f.restore, u)
		if err := b.sameFiles(to, src); err != nil {
			return f, err
		}
	}
	before, _, err := content(repo)
	if err != nil {
		return f, err
	}
	change := func(int) error { return b.rewrite(src, 0) }
	if f.tree, err = b.times(ctx, b.size.runs, on("backup", "."), change); err != nil {
		return f, err
	}
	after, _, err := content(repo)
	if err != nil {
		return f, err
	}
	f.perChange = (after - before) / int64(b.size.runs)
	if f.change, err = b.times(ctx, b.size.runs, on("backup", b.fileName(0)), change); err != nil {
		return f, err
	}
	return f, nil
}

func (b *bench) sameFiles(got, want string) error {
	if _, n, err := content(got); err != nil || n != b.size.files {
		return errors.Join(err, fmt.Errorf("%d files were restored", n))
	}
	for i := 0; i < b.size.files; i += every {
		x, err := os.ReadFile(filepath.Join(want, b.fileName(i)))
		if err != nil {
			return err
		}
		y, err := os.ReadFile(filepath.Join(got, b.fileName(i)))
		if err != nil {
			return err
		}
		if !bytes.Equal(x, y) {
			return fmt.Errorf("file %d is another one after the restore", i)
		}
	}
	return nil
}

// compare prints both and what they do for it.
func (b *bench) compare(ctx context.Context, ours, theirs figures) error {
	n := number(b.size.files)
	b.say("\n### %s items, %s\n\nFiles of %s random bytes, saved to a folder and restored from it by the command.\n", n, mb(int64(b.size.files*b.size.value)), number(b.size.value))
	const most = 64 << 20
	b.table("what|measured|goal|met", [][]string{
		append([]string{fmt.Sprintf("`satchel restore` of all of it (median of %d; processor time %s)", len(ours.restore), ms(medianCPU(ours.restore)))}, below(quantile(wall(ours.restore), 50), 3*time.Second)...),
		{"memory of that, at the most", mb(highest(ours.restore)), "<= " + mb(most), met(highest(ours.restore) <= most)},
		append([]string{fmt.Sprintf("`satchel status` with it (median of %d)", len(ours.open))}, below(quantile(wall(ours.open), 50), 30*time.Millisecond)...),
	})
	if b.restic == "" {
		b.say("\nrestic is not installed here, so nothing stands beside this.\n")
		return nil
	}
	version, err := b.exec(ctx, program{args: []string{b.restic, "version"}})
	if err != nil {
		return err
	}
	b.say("\nThe same files in the same run by %s:\n", bytes.TrimSpace(version.out))
	ratio := func(a, b float64) string { return fmt.Sprintf("%.2f", a/b) }
	timed := func(what string, a, c []usage) []string {
		x, y := quantile(wall(a), 50), quantile(wall(c), 50)
		return []string{what, ms(x), ms(y), ratio(x.Seconds(), y.Seconds())}
	}
	one := func(u usage) []usage { return []usage{u} }
	plus := func(a, c usage) []usage { return []usage{{wall: a.wall + c.wall}} }
	b.table("what|satchel|restic|ratio", [][]string{
		timed("open the backup and do nothing (`status`; `cat config`)", ours.open, theirs.open),
		timed("save all (`backup FILES`; `backup DIR`)", one(ours.save), one(theirs.save)),
		timed("save all and read all of it back (`backup FILES`; `backup DIR`, `check --read-data`)", one(ours.save), plus(theirs.save, theirs.check)),
		timed("prove that all of it is there (`check`; `check --read-data`)", one(ours.check), one(theirs.check)),
		timed("save one changed file that is named (`backup FILE`)", ours.change, theirs.change),
		append([]string{"save one changed file, found among all (no such command; `backup DIR`)", ""}, ms(quantile(wall(theirs.tree), 50)), ""),
		timed("restore all", ours.restore, theirs.restore),
		{"memory of saving all", mb(ours.save.peak), mb(theirs.save.peak), ratio(float64(ours.save.peak), float64(theirs.save.peak))},
		{"memory of restoring all", mb(highest(ours.restore)), mb(highest(theirs.restore)), ratio(float64(highest(ours.restore)), float64(highest(theirs.restore)))},
		{"bytes in the folder", number(ours.bytes), number(theirs.bytes), ratio(float64(ours.bytes), float64(theirs.bytes))},
		{"files in the folder", number(ours.files), number(theirs.files), ratio(float64(ours.files), float64(theirs.files))},
		{"bytes added by one changed file", number(ours.perChange), number(theirs.perChange), ratio(float64(ours.perChange), float64(theirs.perChange))},
	})
	b.say(`
They do different things. restic packs many files into few, finds parts that are there already, compresses, and does not fetch back what it saved; here all bytes are random, so that compressing and finding parts gain nothing, as they would with other files. It derives its key from the password for about half a second at every start, against guessing. Satchel puts many values that come together into few objects too, fetches each object again and compares it before it says *protected*, and needs no password to add. It keeps the sealed values and a second sealed copy of the objects on the device, flushed, from which a place that lost something is healed: that is three copies written where restic writes one. Restoring, restic writes the files; Satchel writes the sealed values and objects of a new device, flushes them, takes over as the writer and reads that back.
`)
	return nil
}
