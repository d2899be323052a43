package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/postgres"
	"github.com/satchel-backup/satchel/keyserver/sqlite"
)

// settings are those of every command that uses the database.
type settings struct {
	data          string
	database      string
	masterKeys    string
	masterCommand string
}

func (a *app) flags(c *cobra.Command) {
	c.Flags().StringVar(&a.settings.data, "data", "", "folder of the database, master keys and tokens (default: $STATE_DIRECTORY, or satchel-keyserver in your data folder)")
	c.Flags().StringVar(&a.settings.database, "database", "", "address of a PostgreSQL database, as libpq takes it; without, SQLite in the data folder")
	c.Flags().StringVar(&a.settings.masterKeys, "master-keys", "", "file of the master keys (default: master-keys in the data folder)")
	c.Flags().StringVar(&a.settings.masterCommand, "master-command", "", "shell command that prints what the file of the master keys would hold, for a KMS")
}

// folder returns the data folder, and makes it.
func (a *app) folder() (string, error) {
	s := &a.settings
	if s.data == "" {
		s.data = a.getenv("STATE_DIRECTORY") // of systemd
	}
	if s.data == "" {
		base := a.getenv("XDG_DATA_HOME")
		if home := a.getenv("HOME"); base == "" && home != "" {
			base = filepath.Join(home, ".local", "share")
		}
		if base == "" {
			return "", hinted{errors.New("there is no folder for the data"), "name one with --data"}
		}
		s.data = filepath.Join(base, "satchel-keyserver")
	}
	if err := (durable.Disk{}).MkdirAll(s.data, 0o700); err != nil {
		return "", fmt.Errorf("making the data folder: %w", err)
	}
	return s.data, nil
}

// writeOwned replaces a file that the server reads, which may run as another user.
func writeOwned(file string, data []byte) error {
	if err := (durable.Disk{}).WriteFile(file, data, 0o600); err != nil {
		return err
	}
	return keepOwner(file)
}

// recordsFile is the SQLite database in the data folder.
const recordsFile = "records.db"

// open opens the database and the master keys.
func (a *app) open(ctx context.Context, log *slog.Logger) (keyserver.Records, *masterKeys, error) {
	dir, err := a.folder()
	if err != nil {
		return nil, nil, err
	}
	var records keyserver.Records
	if a.settings.database == "" {
		file := filepath.Join(dir, recordsFile)
		records, err = sqlite.Open(ctx, file)
		if err == nil {
			err = os.Chmod(file, 0o600)
		}
		if err != nil {
			return nil, nil, hinted{err, "it is " + file + ": the folder must be on a disk that this user can write to"}
		}
	} else {
		records, err = postgres.Open(ctx, a.settings.database)
	}
	if err != nil {
		return nil, nil, err
	}
	keys, err := a.openMasterKeys(ctx, records, log)
	if err != nil {
		return nil, nil, errors.Join(err, records.Close())
	}
	return records, keys, nil
}

// kind names the database, without what is secret in its address.
func (s *settings) kind() string {
	if s.database == "" {
		return "sqlite"
	}
	return "postgresql"
}
