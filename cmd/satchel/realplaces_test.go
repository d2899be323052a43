//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/webdav"

	"github.com/satchel-backup/satchel/internal/fakecloud"
)

// scripted is a script that runs satchel for one user.
type scripted struct {
	t    *testing.T
	home string
	env  []string
}

// run runs satchel with secrets at the descriptors that $3, $4, … in args stand for, and
// returns the last object that it printed. It ends with the code.
func (s *scripted) run(code int, secrets []string, args ...string) map[string]any {
	s.t.Helper()
	path, err := exec.LookPath("satchel")
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(s.t.Context(), path, args...)
	cmd.Env = append([]string{"HOME=" + s.home, "SATCHEL_HOME=" + filepath.Join(s.home, "device"), "SATCHEL_KEYCHAIN=file", "PATH=" + os.Getenv("PATH")}, s.env...)
	for _, secret := range secrets {
		r, w, err := os.Pipe()
		if err != nil {
			s.t.Fatal(err)
		}
		if _, err := fmt.Fprintln(w, secret); err != nil {
			s.t.Fatal(err)
		}
		w.Close()
		defer r.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, r)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != code {
		s.t.Fatalf("satchel %s: exit code %d, want %d (%v)\n%s%s", strings.Join(args, " "), got, code, err, out.String(), errs.String())
	}
	var v map[string]any
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if json.Unmarshal([]byte(lines[len(lines)-1]), &v) != nil {
		return nil
	}
	return v
}

// journey is the life of a wallet in one place: made, changed, lost, brought back on
// another device, changed there, checked, and deleted.
func journey(t *testing.T, address, password string, env ...string) {
	s := &scripted{t: t, home: t.TempDir(), env: env}
	withPassword := func(n int, args ...string) []string {
		if password == "" {
			return args
		}
		return append(args, "--password-fd", fmt.Sprint(n))
	}
	secrets := func(list ...string) []string {
		if password != "" {
			list = append(list, password)
		}
		return list
	}
	made := s.run(0, secrets(), withPassword(3, "create", "--in", address, "--label", "Journey", "--unlock", "recovery-code", "--json")...)
	code, _ := made["secret"].(string)
	if code == "" || made["protected"] != true {
		t.Fatalf("made %v", made)
	}
	large := make([]byte, 3<<20)
	if address == "keychain:" {
		large = large[:20_000]
	}
	rand.NewChaCha8([32]byte{1}).Read(large)
	values := map[string][]byte{"settings": []byte("dark"), "contacts": []byte("ann, bob"), "file/large": large, "labels": []byte(`{"type":"tx","ref":"` + strings.Repeat("ab", 32) + `","label":"rent"}`)}
	file := filepath.Join(s.home, "value")
	put := func() {
		t.Helper()
		for name, value := range values {
			if err := os.WriteFile(file, value, 0o600); err != nil {
				t.Fatal(err)
			}
			if r := s.run(0, nil, "put", name, file, "--json"); r["protected"] != true {
				t.Errorf("put %s: %v", name, r)
			}
		}
	}
	same := func() {
		t.Helper()
		for name, value := range values {
			os.Remove(file)
			s.run(0, nil, "get", name, "--output", file)
			if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, value) {
				t.Errorf("%s: got %d other bytes, %v", name, len(got), err)
			}
		}
	}
	put()
	s.run(0, nil, "check", "--json")
	if err := os.Rename(filepath.Join(s.home, "device"), filepath.Join(s.home, "lost")); err != nil {
		t.Fatal(err)
	}
	back := s.run(0, secrets(code), withPassword(4, "restore", "--from", address, "--yes", "--json", "--secret-fd", "3")...)
	if back["fingerprint"] != made["fingerprint"] || back["protected"] != true {
		t.Errorf("restored %v", back)
	}
	same()
	values["settings"] = []byte("light")
	put()
	same()
	s.run(0, nil, "check", "--json")
	s.run(0, nil, "prune", "--json")
	s.run(0, []string{code}, "drill", "--secret-fd", "3", "--json")

	// The first device comes back, and learns that it is not the writer any more.
	if err := os.Rename(filepath.Join(s.home, "device"), filepath.Join(s.home, "second")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(s.home, "lost"), filepath.Join(s.home, "device")); err != nil {
		t.Fatal(err)
	}
	s.run(11, nil, "put", "settings", file, "--json")
	if err := os.RemoveAll(filepath.Join(s.home, "device")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(s.home, "second"), filepath.Join(s.home, "device")); err != nil {
		t.Fatal(err)
	}
	s.run(0, []string{code}, "delete", "--yes-delete-everything", "Journey", "--json", "--secret-fd", "3")
	s.run(10, secrets(), withPassword(3, "restore", "--from", address, "--list", "--json")...)
}

// The journey over a WebDAV server in this process.
func TestJourneyWebDAV(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(&webdav.Handler{FileSystem: webdav.Dir(t.TempDir()), LockSystem: webdav.NewMemLS()})
	t.Cleanup(srv.Close)
	journey(t, "webdav+"+srv.URL+"/new", "")
}

// The journey over real servers, one after another, where the environment names them.
func TestJourneys(t *testing.T) {
	getenv := os.Getenv
	below := func(address string) string {
		if address == "" {
			return ""
		}
		return address + "/journey"
	}
	s3 := below(getenv("SATCHEL_TEST_S3"))
	if s3 != "" {
		s3 = strings.Replace(s3, "://", "://"+getenv("SATCHEL_TEST_S3_ACCESS_KEY")+"@", 1)
	}
	dav := getenv("SATCHEL_TEST_WEBDAV_PASSWORD")
	disk, drive, rclone := "", "", getenv("SATCHEL_TEST_RCLONE")
	env := []string{"PATH=" + filepath.Dir(rclone) + ":" + getenv("PATH")}
	if rclone != "" {
		cloud := fakecloud.New()
		proxy, err := fakecloud.NewProxy(cloud, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(proxy.Close)
		text := fmt.Sprintf("[disk]\ntype = alias\nremote = %s\n\n%s", t.TempDir(),
			fakecloud.RcloneDrive("drive", cloud.Token(cloud.AddAccount("1001", "ann@example.org")), "drive.file"))
		conf := filepath.Join(t.TempDir(), "rclone.conf")
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		env = append(append(env, proxy.Env()...), "RCLONE_CONFIG="+conf)
		disk, drive = "rclone:disk:wallets", "rclone:drive:wallets"
	}
	keychain := ""
	if getenv("SATCHEL_TEST_KEYCHAIN") != "" {
		keychain = "keychain:"
	}
	for _, place := range []struct {
		name, address, password string
		env                     []string
	}{
		{"apache", below(getenv("SATCHEL_TEST_WEBDAV_APACHE")), dav, nil},
		{"nginx", below(getenv("SATCHEL_TEST_WEBDAV_NGINX")), dav, nil},
		{"sabre", below(getenv("SATCHEL_TEST_WEBDAV_SABRE")), dav, nil},
		{"rclone-webdav", below(getenv("SATCHEL_TEST_WEBDAV_RCLONE")), dav, nil},
		{"s3", s3, getenv("SATCHEL_TEST_S3_SECRET_KEY"), nil},
		{"rclone", disk, "", env},
		{"rclone-drive", drive, "", env}, // rclone's own Google Drive, and the fake behind it
		{"keychain", keychain, "", []string{"DBUS_SESSION_BUS_ADDRESS=" + getenv("DBUS_SESSION_BUS_ADDRESS"), "XDG_RUNTIME_DIR=" + getenv("XDG_RUNTIME_DIR")}},
	} {
		t.Run(place.name, func(t *testing.T) {
			if place.address == "" {
				t.Skip("no such server in the environment")
			}
			journey(t, place.address, place.password, place.env...)
		})
	}
}
