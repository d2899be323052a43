package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/secret"
)

// settled is how old a key file must be before older keys are dropped: by then every
// server that reads it has the new one.
const settled = 3 * reloadEvery

// rounds is how often all records are gone through before rotate gives up.
const rounds = 20

func (a *app) rotateCommand() *cobra.Command {
	var prepare, drop bool
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Seal all records under a new master key, while the server runs",
		Long: `Makes a new master key, puts it before the others in the key file, and seals all
records anew under it. Servers that run take the new key from the file by themselves.
The older keys stay in the file until --drop takes them out, which it does only when
no record needs them. Copies of the database that were made before need the old file.

Servers that have a key file each need the new key before records are sealed under it:
call rotate --prepare, which puts it last, bring the file to all of them, wait half a
minute, and call rotate: it makes no other key then. Bring the file to all again.

With --master-command the keys are yours to change: rotate seals all records under the
first of those that it prints. Start the servers anew before, with the new key last, and
again, with the new key first.`,
		Example: "  satchel-keyserver rotate\n  satchel-keyserver rotate --drop",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if prepare && drop {
				return usage{errors.New("--prepare and --drop exclude each other")}
			}
			return a.rotate(c.Context(), prepare, drop)
		},
	}
	a.flags(c)
	c.Flags().BoolVar(&prepare, "prepare", false, "only make the key, and put it last")
	c.Flags().BoolVar(&drop, "drop", false, "take the older keys out of the file when no record needs them")
	return c
}

// preparedMark follows a key that rotate --prepare made and rotate has not used yet.
const preparedMark = "# prepared: the key above, not in use yet\n"

func (a *app) rotate(ctx context.Context, prepare, drop bool) error {
	log := slog.New(slog.NewTextHandler(a.err, nil))
	dir, err := a.folder()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, recordsFile)); a.settings.database == "" && errors.Is(err, fs.ErrNotExist) {
		return hinted{fmt.Errorf("no key server keeps its data in %s", dir), "name the folder that serve has with --data, such as /var/lib/satchel-keyserver, and run this as its user"}
	}
	records, m, err := a.open(ctx, log)
	if err != nil {
		return err
	}
	defer records.Close()
	if m.command != "" && (prepare || drop) {
		return usage{errors.New("with --master-command the keys are not in a file of this program")}
	}
	keys, err := m.read(ctx)
	if err != nil {
		return err
	}
	server := keyserver.Config{Records: records, Master: m.master, Missing: m.reload, Logger: log, Now: a.now}
	if drop {
		info, err := os.Stat(m.file)
		if err != nil {
			return err
		}
		if age := time.Since(info.ModTime()); age < settled {
			return hinted{errors.New("the key file was just changed, and servers may not have noticed yet"), fmt.Sprintf("call it again in %s", (settled - age).Round(time.Second))}
		}
		if prepared(m.file) {
			return hinted{errors.New("a key is prepared and not in use yet"), "call satchel-keyserver rotate first"}
		}
	}
	if m.command == "" && !drop {
		ready := prepared(m.file)
		var data []byte
		switch {
		case prepare && ready:
			return errors.New("a key is prepared already")
		case prepare:
			data = append(format(append(keys, secret.Random(keyserver.MasterSize))), preparedMark...)
		case ready:
			last := len(keys) - 1
			data = format(append([]secret.Bytes{keys[last]}, keys[:last]...))
		default:
			data = format(append([]secret.Bytes{secret.Random(keyserver.MasterSize)}, keys...))
		}
		// It is in the file, durably, before anything is sealed under it.
		if err := writeOwned(m.file, data); err != nil {
			return fmt.Errorf("writing the master keys: %w", err)
		}
		if prepare {
			fmt.Fprintln(a.out, "A new key is the last in", m.file+": bring it to all servers, then call satchel-keyserver rotate.")
			return nil
		}
		m.reload()
	}
	s, err := keyserver.New(ctx, server)
	if err != nil {
		return err
	}
	sealed := 0
	for round := 0; ; round++ {
		t, err := s.Tend(ctx)
		sealed += t.Resealed
		if err != nil {
			return err
		}
		if t.Unreadable > 0 {
			return hinted{fmt.Errorf("%d of %d records are under none of these keys, or damaged", t.Unreadable, t.Records), "older copies of the key file may have their key; nothing was dropped"}
		}
		if t.Resealed == 0 && t.Older == 0 {
			fmt.Fprintf(a.out, "%d records, %d sealed anew, under master key %s.\n", t.Records, sealed, m.master.ID())
			break
		}
		if round == rounds {
			return hinted{errors.New("records are still being sealed under an older key"), "a server has not got the new key: see its log, and call this again"}
		}
	}
	if !drop {
		if m.command == "" {
			fmt.Fprintln(a.out, "The older keys are still in", m.file+": satchel-keyserver rotate --drop takes them out.")
		}
		return nil
	}
	if err := writeOwned(m.file, format(slices.Clone(keys[:1]))); err != nil {
		return fmt.Errorf("writing the master keys: %w", err)
	}
	fmt.Fprintf(a.out, "%d older keys are out of %s. Copies of the database from before need the old file.\n", len(keys)-1, m.file)
	return nil
}

func prepared(file string) bool {
	b, err := os.ReadFile(file)
	return err == nil && len(b) >= len(preparedMark) && string(b[len(b)-len(preparedMark):]) == preparedMark
}
