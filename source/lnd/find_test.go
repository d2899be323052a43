package lnd_test

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/source/lnd"
)

// install writes files below a directory and returns it.
func install(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFind(t *testing.T) {
	const home = "data/chain/bitcoin/"
	plain := map[string]string{"tls.cert": "c", home + "mainnet/admin.macaroon": "m", home + "mainnet/readonly.macaroon": "r"}
	with := func(conf string, more ...string) map[string]string {
		files := maps.Clone(plain)
		files["lnd.conf"] = conf
		for _, m := range more {
			files[m] = "x"
		}
		return files
	}
	for name, c := range map[string]struct {
		files   map[string]string
		network string
		want    lnd.Install // paths relative to the directory
		err     error
	}{
		"plain": {files: plain, want: lnd.Install{Network: "mainnet", Address: "localhost:8080"}},
		"conf": {
			files: with("[Application Options]\n; a comment\n# one more\nalias=hunter = 2\nrestlisten=192.168.0.2:8090\nrestlisten=unix:///x\nrestlisten=127.0.0.1:8081\n" +
				"wallet-unlock-password-file=/secret\n[Bitcoin]\nbitcoin.active=1\nbitcoin.mainnet=1\nbitcoin.testnet=0\nbackupfilepath=\"there/channel.backup\"\n"),
			want: lnd.Install{Network: "mainnet", Address: "127.0.0.1:8081", Backup: "there/channel.backup"},
		},
		"everywhere":  {files: with("restlisten=0.0.0.0:8082\n"), want: lnd.Install{Network: "mainnet", Address: "127.0.0.1:8082"}},
		"a port":      {files: with("restlisten=8083"), want: lnd.Install{Network: "mainnet", Address: "localhost:8083"}},
		"a host":      {files: with("restlisten=node.lan"), want: lnd.Install{Network: "mainnet", Address: "node.lan:8080"}},
		"six":         {files: with("restlisten=[::]:8084"), want: lnd.Install{Network: "mainnet", Address: "[::1]:8084"}},
		"two":         {files: with("", home+"regtest/admin.macaroon"), err: &lnd.NetworksError{}},
		"one of two":  {files: with("bitcoin.regtest=true", home+"regtest/admin.macaroon"), want: lnd.Install{Network: "regtest", Address: "localhost:8080"}},
		"named":       {files: with("", home+"regtest/admin.macaroon"), network: "regtest", want: lnd.Install{Network: "regtest", Address: "localhost:8080"}},
		"two in conf": {files: with("bitcoin.regtest=true\nbitcoin.signet=true"), err: &lnd.NetworksError{}},
		"no REST":     {files: with("norest=true"), err: lnd.ErrNoREST},
		"no TLS":      {files: with("no-rest-tls=1"), err: lnd.ErrNoREST},
		"broken":      {files: with("what is this"), err: lnd.ErrConf},
		"large":       {files: with(strings.Repeat("#\n", 1<<20)), err: lnd.ErrConf},
		"empty":       {files: nil, err: lnd.ErrNotFound},
		"no cert":     {files: map[string]string{home + "mainnet/admin.macaroon": "m"}, err: lnd.ErrNotFound},
		"elsewhere": {
			files: map[string]string{"lnd.conf": "datadir=~/.lnd/d\ntlscertpath=~/.lnd/c.pem\nadminmacaroonpath=~/.lnd/a.macaroon\n", "d/chain/bitcoin/signet/x.macaroon": "", "c.pem": "", "a.macaroon": ""},
			want: lnd.Install{Network: "signet", Address: "localhost:8080", Cert: "c.pem", Admin: "a.macaroon", Backup: "d/chain/bitcoin/signet/channel.backup",
				Macaroons: []string{"d/chain/bitcoin/signet/x.macaroon", "a.macaroon"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := install(t, c.files)
			if name == "elsewhere" {
				moved := filepath.Join(t.TempDir(), ".lnd")
				if err := os.Rename(dir, moved); err != nil {
					t.Fatal(err)
				}
				dir = moved
			}
			got, err := lnd.Find(dir, c.network)
			if want, ok := c.err.(*lnd.NetworksError); ok {
				ne, ok := errors.AsType[*lnd.NetworksError](err)
				if !ok || len(ne.Networks) != 2 || !strings.Contains(err.Error(), "regtest") {
					t.Errorf("got %v, want %T", err, want)
				}
				return
			}
			if c.err != nil || err != nil {
				if !errors.Is(err, c.err) {
					t.Errorf("got %v, want %v", err, c.err)
				}
				return
			}
			want := c.want
			if want.Cert == "" {
				want.Cert = "tls.cert"
			}
			base := home + want.Network + "/"
			if want.Backup == "" {
				want.Backup = base + "channel.backup"
			}
			if want.Admin == "" {
				want.Admin = base + "admin.macaroon"
			}
			if want.Macaroons == nil {
				want.Macaroons = []string{base + "admin.macaroon"}
				if want.Network == "mainnet" {
					want.Macaroons = append(want.Macaroons, base+"readonly.macaroon")
				}
			}
			for _, p := range []*string{&want.Dir, &want.Cert, &want.Backup, &want.Admin} {
				*p = filepath.Join(dir, filepath.FromSlash(*p))
			}
			for i, p := range want.Macaroons {
				want.Macaroons[i] = filepath.Join(dir, filepath.FromSlash(p))
			}
			if diff := cmp.Diff(&want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := lnd.Find(filepath.Join(t.TempDir(), "none"), ""); !errors.Is(err, lnd.ErrNotFound) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, lnd.ErrNotFound)
	}
	if _, err := lnd.Find(t.TempDir(), "litecoin"); err == nil {
		t.Error("it knows a network that lnd does not")
	}
	if dirs := lnd.Directories(); len(dirs) == 0 || !slices.ContainsFunc(dirs, filepath.IsAbs) {
		t.Errorf("got %v", dirs)
	}
}

// Whatever is in lnd.conf, reading it ends, and the address can be one.
func FuzzConf(f *testing.F) {
	f.Add([]byte("[Application Options]\nrestlisten=0.0.0.0:8090\nbitcoin.mainnet=1\n;x\n"))
	f.Add([]byte("restlisten=[::]:1\nrestlisten=\"a\\\"b:1\"\ndatadir=~"))
	f.Add([]byte("restlisten=:A"))
	f.Add([]byte("restlisten=0.0ions]8090:8080"))
	f.Add([]byte("\xef\xbb\xbfrestlisten=99999\nbitcoin.regtest="))
	f.Fuzz(func(t *testing.T, data []byte) {
		address, network, err := lnd.ReadConf(data)
		if err != nil {
			return
		}
		if _, err := lnd.New(lnd.Config{Address: address}); err != nil {
			t.Errorf("the address %q is none", address)
		}
		_ = network
	})
}
