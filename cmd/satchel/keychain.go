package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/keychain"
)

// openKeychain opens the keychain of this home. Which one it is, is found out or
// told at the first use and remembered: a keychain that is locked today must not
// make this device look for its keys elsewhere.
func (a *app) openKeychain(home string) (keychain.Keychain, error) {
	dir := filepath.Join(home, "keychain")
	want := keychain.Kind(a.keychain)
	if want == "" {
		want = keychain.Kind(a.getenv("SATCHEL_KEYCHAIN"))
	}
	if want != "" && want != keychain.KindFile && want != keychain.KindSystem {
		return nil, &usageError{text: "no such keychain: " + printable(string(want)), hint: "--keychain system or file"}
	}
	c, err := a.readConfig(home)
	switch {
	case err == nil && want != "" && want != c.Keychain:
		return nil, &usageError{
			text: fmt.Sprintf("the keys of this device are in the %s keychain, not in the %s one", c.Keychain, want),
			hint: "leave --keychain and SATCHEL_KEYCHAIN away; it is chosen once",
		}
	case err == nil:
		return keychain.ByKind(c.Keychain, dir)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	devices, err := a.devices()
	if err != nil {
		return nil, err
	}
	if len(devices) > 0 && want == "" {
		return nil, &usageError{
			text: filepath.Join(home, "config.json") + " is missing, which says where the keys of this device are",
			hint: "say it once with --keychain system or file",
		}
	}
	k, kind, warning := keychain.Keychain(nil), want, ""
	if want == "" {
		k, kind, warning = keychain.Open(dir)
	} else if k, err = keychain.ByKind(want, dir); err != nil {
		return nil, err
	}
	var disk durable.Disk
	if err := disk.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	data, err := json.Marshal(homeConfig{kind})
	if err != nil {
		return nil, err
	}
	err = disk.CreateFile(filepath.Join(home, "config.json"), append(data, '\n'), 0o600)
	if errors.Is(err, fs.ErrExist) {
		return a.openKeychain(home) // another satchel was first
	}
	if err != nil {
		return nil, err
	}
	if warning != "" {
		a.note("no system keychain here: the key of this device is kept in a file only you can read")
		if a.verbose {
			a.note("%s", warning)
		}
	}
	return k, nil
}

// homeConfig is config.json: what was chosen at the first use of the home.
type homeConfig struct {
	Keychain keychain.Kind `json:"keychain"`
}

const maxConfig = 4096 // bytes in config.json

func (a *app) readConfig(home string) (homeConfig, error) {
	var c homeConfig
	path := filepath.Join(home, "config.json")
	data, err := durable.Disk{}.ReadFile(path, maxConfig)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("%s is not what satchel wrote", path)
	}
	return c, nil
}
