package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/text/unicode/norm"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/seal"
)

const saveJSONHelp = `JSON: generation, changed, protected, places (address, health, generation,
verified, error, code), healed (addresses of places that had lost something).`

func (a *app) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backup [FILE]...",
		Short: "Back up files, or send what is late",
		Long: `Backs up files beside the wallet: each becomes the item file/NAME, and a file
that did not change is left out. All of them are saved or none. A file with the name of another one that
"satchel watch" watches is refused: "satchel put NAME FILE" saves it under its own.

Without files it sends what has not reached every place yet. Where a place lost or
damaged something, "satchel heal" looks for it and puts it back. A change is
protected once as many places as were asked for hold it, and it was fetched from
there again and compared.

` + saveJSONHelp,
		Example: `  satchel backup
  satchel backup channel.backup
  satchel backup notes.txt contacts.vcf`,
		Annotations: exits(saveExits...),
		RunE: func(cmd *cobra.Command, files []string) error {
			var changes []satchel.Change
			seen := map[string]bool{}
			for _, f := range files {
				// Names are kept in normal form C; a Mac writes them otherwise.
				name := filesPrefix + norm.NFC.String(filepath.Base(f))
				if seen[name] {
					return usagef("two files of the same name: %s", printable(filepath.Base(f)))
				}
				seen[name] = true
				if err := seal.CheckItemName(name); err != nil {
					why := err.Error()
					if len(name) > seal.MaxItemName {
						why = fmt.Sprintf("its name is too long: an item name holds %d bytes, and %q before it counts", seal.MaxItemName, filesPrefix)
					}
					return &usageError{
						text: fmt.Sprintf("%s: %s; nothing was saved", printable(f), why),
						hint: "give it a name of your own: satchel put file/NAME FILE",
					}
				}
				if err := refuseDatabase(f); err != nil {
					return err
				}
				value, err := readValue(f)
				if err != nil {
					return err
				}
				changes = append(changes, satchel.Change{Name: name, Value: value})
			}
			d, err := a.device()
			if err != nil {
				return err
			}
			if err := a.otherWatched(d, files); err != nil {
				return err
			}
			b, err := a.openDevice(cmd.Context(), d)
			if err != nil {
				return err
			}
			defer b.Close()
			if len(changes) > 0 {
				return a.save(cmd.Context(), b, changes...)
			}
			r, err := b.Sync(cmd.Context())
			return a.saved(b, r, err)
		},
	}
}

// otherWatched returns an error if the name of one of the files is that of another file
// that is watched: each would overwrite what is saved of the other.
func (a *app) otherWatched(d device, files []string) error {
	w := &watch{app: a, name: d.name}
	rec, err := w.read()
	if err != nil {
		return err
	}
	for _, f := range files {
		abs, err := filepath.Abs(f)
		if err != nil {
			return err
		}
		for _, p := range rec.Paths {
			if norm.NFC.String(filepath.Base(p)) != norm.NFC.String(filepath.Base(abs)) || real(p) == real(abs) {
				continue
			}
			if info, err := os.Stat(p); err == nil && info.IsDir() {
				continue // Its files have longer names.
			}
			return &usageError{
				text: fmt.Sprintf("%s has the name of %s, which is watched: it would take its place in the backup; nothing was saved", printable(f), printable(p)),
				hint: "give it a name of your own: satchel put file/NAME FILE",
			}
		}
	}
	return nil
}

// readValue reads a file that shall become an item.
func readValue(path string) ([]byte, error) {
	value, err := durable.Disk{}.ReadFile(path, seal.MaxValue)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", printable(path), err)
	}
	return value, nil
}
