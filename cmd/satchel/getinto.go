package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/seal"
)

// filesPrefix begins the names of the items that "satchel watch" and "satchel backup"
// make of files.
const filesPrefix = "file/"

// getInto writes items to a folder, below their names. The names come from a place, and
// so may be meant to lead out of it.
func (a *app) getInto(ctx context.Context, b *satchel.Backup, dir string, wanted []string, yes bool) error {
	if len(wanted) == 0 {
		wanted = []string{filesPrefix}
	}
	items, err := chooseItems(b.Items(), wanted)
	if err != nil {
		if slices.Contains(wanted, seal.ItemKeys) {
			err = wordsElsewhere(b, err)
		}
		return err
	}
	if slices.ContainsFunc(items, func(i satchel.ItemInfo) bool { return reveals(i.Name) }) {
		if err := a.confirm(ctx, yes, "--yes", revealsWords); err != nil {
			return err
		}
	}
	if err := (durable.Disk{}).MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	type fileJSON struct {
		Name  string    `json:"name"`
		Path  string    `json:"path"`
		State fileState `json:"state"`
		Size  int64     `json:"size"`
		Error string    `json:"error,omitempty"`
	}
	type intoJSON struct {
		Into    string `json:"into"`
		Written int    `json:"written"`
		Bytes   int64  `json:"bytes"`
		There   int    `json:"there"`
		Failed  int    `json:"failed"`
	}
	done := intoJSON{Into: dir}
	isItem := map[string]bool{}
	for _, i := range b.Items() {
		isItem[i.Name] = true
	}
	for _, i := range items {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := filepath.FromSlash(pathOf(i.Name, isItem))
		j := fileJSON{Name: i.Name, Path: filepath.Join(dir, path), Size: i.Size}
		var err error
		switch j.State, err = putFile(b, root, i.Name, path); {
		case err != nil:
			done.Failed++
			j.Error = errorText(err)
			if !a.json {
				a.note("%s was not written: %s", i.Name, j.Error)
			}
		case j.State == fileThere:
			done.There++
		default:
			done.Written++
			done.Bytes += i.Size
		}
		if err := a.emit(j); err != nil {
			return err
		}
	}
	if err := a.emit(done); err != nil {
		return err
	}
	line := fmt.Sprintf("%s written to %s (%s)", count(done.Written, "file"), printable(dir), size(done.Bytes))
	if done.There > 0 {
		line += fmt.Sprintf(", %d there already", done.There)
	}
	a.say("%s", line)
	if done.Failed > 0 {
		return &hintedError{fmt.Errorf("%s not written", count(done.Failed, "item")),
			"nothing was overwritten; name another folder with --into, or get one item with `satchel get NAME -o FILE`"}
	}
	return nil
}

// chooseItems returns the items of some names, where one that ends in "/" stands for all
// below it. A name that no item has is an error.
func chooseItems(items []satchel.ItemInfo, wanted []string) ([]satchel.ItemInfo, error) {
	matches := func(name, want string) bool {
		return name == want || strings.HasSuffix(want, "/") && strings.HasPrefix(name, want)
	}
	for _, want := range wanted {
		if !slices.ContainsFunc(items, func(i satchel.ItemInfo) bool { return matches(i.Name, want) }) {
			return nil, fmt.Errorf("%s: %w", printable(want), satchel.ErrNoItem)
		}
	}
	return slices.DeleteFunc(slices.Clone(items), func(i satchel.ItemInfo) bool {
		return !slices.ContainsFunc(wanted, func(want string) bool { return matches(i.Name, want) })
	}), nil
}

// fileState is what became of an item on its way to a folder.
type fileState string

const (
	fileWritten fileState = "written"
	fileThere   fileState = "there already"
	fileFailed  fileState = "not written"
)

var (
	errDiffers = errors.New("something else is there already, and is not overwritten")
	errNoFile  = errors.New("a file of this system cannot have this name")
)

// pathOf is the path of an item below the folder. Where one item's name is the beginning
// of another's, as "lightning/scb" and "lightning/scb/1a2b3c4d", the folder of that one
// ends in ".d": a file cannot have files below it.
func pathOf(name string, isItem map[string]bool) string {
	elements := strings.Split(name, "/")
	for i := range elements[:len(elements)-1] {
		if isItem[strings.Join(strings.Split(name, "/")[:i+1], "/")] {
			elements[i] += ".d"
		}
	}
	return strings.Join(elements, "/")
}

// putFile writes an item to a path in a folder that it cannot leave.
func putFile(b *satchel.Backup, root *os.Root, name, path string) (fileState, error) {
	if !filepath.IsLocal(path) {
		return fileFailed, errNoFile
	}
	value, err := b.Get(name)
	if err != nil {
		return fileFailed, err
	}
	defer value.Wipe()
	disk := durable.Disk{Root: root}
	if err = disk.MkdirAll(filepath.Dir(path), 0o700); err == nil {
		err = disk.CreateFile(path, value.Open(), 0o600)
	}
	if !errors.Is(err, fs.ErrExist) {
		if err != nil {
			return fileFailed, err
		}
		return fileWritten, nil
	}
	there, err := disk.ReadFile(path, seal.MaxValue)
	defer clear(there)
	if err != nil || !bytes.Equal(there, value.Open()) {
		return fileFailed, errDiffers
	}
	// It may be what was written just before a crash.
	if err := disk.Sync(path); err != nil {
		return fileFailed, err
	}
	return fileThere, nil
}
