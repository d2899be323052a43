package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/secret"
)

// maxKeyFile is the size of the largest file of master keys in bytes.
const maxKeyFile = 64 << 10

// commandTime is what a command that prints the keys may take.
const commandTime = 30 * time.Second

// masterKeys are the keys in a file, or that a command prints: one a line in hex, the
// newest first. Lines that begin with # say what people want to know.
type masterKeys struct {
	file    string
	command string
	master  *keyserver.Master
	log     *slog.Logger

	mu   sync.Mutex
	seen time.Time // when the file was changed that is in use
}

const keyFileHead = `# Master keys of a Satchel key server, the newest first. Whoever has these and the
# database can try all PINs; without them the database is worth nothing, for ever.
# Keep a copy, and keep it apart from copies of the database.
`

// openMasterKeys reads the keys. At the first start, which is when the database is empty
// too, it makes one.
func (a *app) openMasterKeys(ctx context.Context, records keyserver.Records, log *slog.Logger) (*masterKeys, error) {
	s := &a.settings
	m := &masterKeys{file: s.masterKeys, command: s.masterCommand, log: log}
	if m.command != "" && m.file != "" {
		return nil, usage{errors.New("--master-keys and --master-command exclude each other")}
	}
	if _, err := hex.DecodeString(m.file); err == nil && len(m.file) >= 2*keyserver.MasterSize {
		return nil, usage{errors.New("--master-keys is the name of a file, and this is a key: whoever could read it here may have it")}
	}
	if m.file == "" {
		m.file = filepath.Join(s.data, "master-keys")
	}
	keys, err := m.read(ctx)
	if m.command == "" && errors.Is(err, fs.ErrNotExist) {
		switch _, e := records.Get(ctx, keyserver.ID{}); {
		case e == nil:
			return nil, hinted{fmt.Errorf("the database is in use, and its master keys are not there: %w", err),
				"put the copy of that file back, or name it with --master-keys; a new key would open nothing"}
		case !errors.Is(e, keyserver.ErrNoRecord):
			return nil, e
		}
		key := secret.Random(keyserver.MasterSize)
		err = durable.Disk{}.CreateFile(m.file, format([]secret.Bytes{key}), 0o600)
		if err == nil {
			log.Warn("A NEW MASTER KEY WAS MADE. Copy this file to a safe place, apart from the database: without it all accounts are lost.", "file", m.file)
		} else if !errors.Is(err, fs.ErrExist) { // Another server that starts was first.
			return nil, fmt.Errorf("making the master key: %w", err)
		}
		keys, err = m.read(ctx)
	}
	if err != nil {
		return nil, err
	}
	if m.master, err = keyserver.NewMaster(keys...); err != nil {
		return nil, fmt.Errorf("reading the master keys: %w", err)
	}
	return m, nil
}

// read reads the keys.
func (m *masterKeys) read(ctx context.Context) ([]secret.Bytes, error) {
	var b []byte
	var err error
	if m.command != "" {
		ctx, cancel := context.WithTimeout(ctx, commandTime)
		defer cancel()
		cmd := exec.CommandContext(ctx, "sh", "-c", m.command)
		cmd.Stderr = os.Stderr
		b, err = cmd.Output()
	} else {
		var info fs.FileInfo
		if info, err = os.Stat(m.file); err == nil {
			m.mu.Lock()
			if info.Mode().Perm()&0o007 != 0 && m.seen.IsZero() {
				m.log.Warn("everybody on this machine may read the master keys: chmod 600", "file", m.file)
			}
			m.seen = info.ModTime()
			m.mu.Unlock()
			// It may be a link, as secrets of containers are.
			if b, err = os.ReadFile(m.file); len(b) > maxKeyFile {
				err = durable.ErrTooLarge
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the master keys: %w", err)
	}
	keys, err := parse(b)
	clear(b)
	if err != nil {
		return nil, fmt.Errorf("reading the master keys: %w", err)
	}
	return keys, nil
}

func parse(b []byte) (keys []secret.Bytes, err error) {
	for i, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		k, err := hex.DecodeString(line)
		if err != nil || len(k) != keyserver.MasterSize {
			return nil, fmt.Errorf("line %d is not %d hex digits", i+1, 2*keyserver.MasterSize)
		}
		keys = append(keys, secret.New(k))
	}
	if len(keys) == 0 {
		return nil, errors.New("there is none")
	}
	return keys, nil
}

func format(keys []secret.Bytes) []byte {
	var b bytes.Buffer
	b.WriteString(keyFileHead)
	for _, k := range keys {
		fmt.Fprintln(&b, hex.EncodeToString(k.Open()))
	}
	return b.Bytes()
}

// reload takes the keys as they are now. What cannot be read changes nothing.
func (m *masterKeys) reload() {
	keys, err := m.read(context.Background())
	before := m.master.ID()
	if err == nil {
		err = m.master.Set(keys...)
	}
	if err != nil {
		m.log.Error("the master keys stay as they were", "err", err)
		return
	}
	if id := m.master.ID(); id != before {
		m.log.Info("another master key seals records now", "key", id)
	}
}

// changed reports whether the file is another one than that which is in use.
func (m *masterKeys) changed() bool {
	if m.command != "" {
		return false
	}
	info, err := os.Stat(m.file)
	m.mu.Lock()
	defer m.mu.Unlock()
	return err == nil && !info.ModTime().Equal(m.seen)
}
