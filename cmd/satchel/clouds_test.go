//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/satchel-backup/satchel/internal/fakecloud"
)

// online is a person with accounts at the clouds, behind a proxy that plays them.
func online(t *testing.T) (*person, *fakecloud.Cloud, *fakecloud.Proxy) {
	t.Helper()
	cloud := fakecloud.New()
	p := newPerson(t)
	proxy, err := fakecloud.NewProxy(cloud, p.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	p.more = append(proxy.Env(), "SATCHEL_CA_FILE="+proxy.CA, "BROWSER=browse",
		"SATCHEL_GDRIVE_CLIENT_ID=wallet", "SATCHEL_GDRIVE_CLIENT_SECRET=known to all",
		"SATCHEL_DROPBOX_CLIENT_ID=wallet", "SATCHEL_ONEDRIVE_CLIENT_ID=wallet",
	)
	return p, cloud, proxy
}

// Whoever has an account at a cloud makes a wallet, loses the device, signs in and has it
// again; and is told at once when the permission ends, and when it is another account.
func TestClouds(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"gdrive", "dropbox", "onedrive"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			p, cloud, proxy := online(t)
			ann := cloud.AddAccount("1001", "ann@example.org")
			address := scheme + ":ann@example.org"

			p.run("create", "--in", scheme+":", "--label", "Samantha")
			p.expect("Signing in to (Google Drive|Dropbox|OneDrive), in the browser")
			p.answer(`Signed in to .* as ann@example.org. Is that your account\?`, "")
			p.answer(`Number \[1\]: `, "1")
			code := p.expect(`((?:[0-9a-z]{4}-){8}[0-9a-z]{4})`)[1]
			p.answer("press Enter", "")
			fingerprint := p.expect(`Fingerprint +([0-9a-f]{8})`)[1]
			p.expect(`Backup +` + address)
			p.expect("Protected +yes")
			p.ends(0)

			p.run("put", "labels", "--value", "rent")
			p.ends(2)
			if err := os.WriteFile(filepath.Join(p.dir, "note"), []byte("from the first device"), 0o600); err != nil {
				t.Fatal(err)
			}
			p.run("put", "settings", filepath.Join(p.dir, "note"))
			p.ends(0)
			p.run("check")
			p.ends(0)

			// R9: the permission ends.
			cloud.Revoke(ann)
			asked := cloud.Counts()["token"]
			p.run("backup")
			p.expect("sign-in needed")
			p.ends(0) // What is there was verified, and nothing is new.
			p.run("put", "contacts", filepath.Join(p.dir, "note"))
			p.expect("sign-in needed")
			p.ends(24)
			p.run("status")
			p.expect("sign-in needed")
			p.expect(`next: satchel store signin '?` + address)
			p.ends(3)
			if n := cloud.Counts()["token"] - asked; n > 1 {
				t.Errorf("%d requests for tokens after the permission ended, want 1", n)
			}
			// R10: somebody else is signed in at the browser.
			bob := cloud.AddAccount("1002", "bob@example.org")
			p.run("store", "signin", address)
			p.expect(`signed in to \S+bob@example.org, and not to\s+\S+ann@example.org`)
			p.ends(25)
			cloud.Browse(ann)
			p.run("store", "signin", address)
			p.expect(address + ` +3 .* protected`)
			p.ends(0)
			// The place was looked at with the new sign-in, and got what it lacked.
			p.run("status")
			p.expect("Protected: generation 3")
			p.ends(0)
			p.run("backup")
			p.ends(0)
			// R10: the tokens are suddenly of another account.
			cloud.Swap(ann, bob)
			cloud.Expire()
			if err := os.WriteFile(filepath.Join(p.dir, "note"), []byte("changed"), 0o600); err != nil {
				t.Fatal(err)
			}
			p.run("put", "settings", filepath.Join(p.dir, "note"))
			p.expect("wrong account")
			p.ends(25)
			cloud.Swap(bob, ann)
			cloud.Expire()
			p.run("backup")
			p.ends(0)

			// The device is lost. Another one: sign in, type the code, go on.
			if err := os.RemoveAll(filepath.Join(p.dir, "device")); err != nil {
				t.Fatal(err)
			}
			p.run("restore", "--from", scheme)
			p.answer(`Signed in to .* as ann@example.org. Is that your account\?`, "")
			p.answer("Open this one", "y")
			p.answer(`Recovery code \(not shown\): `, code)
			p.answer("Restore this wallet to this device", "y")
			p.expect(fingerprint)
			p.ends(0)
			p.run("get", "settings")
			p.expect("changed")
			p.ends(0)
			p.run("store", "signout", address)
			p.ends(0)
			p.run("put", "contacts", filepath.Join(p.dir, "device", "config.json"))
			p.ends(24)

			sent := string(proxy.Sent())
			for _, secret := range []string{code, "changed", "from the first device"} {
				if strings.Contains(sent, secret) {
					t.Errorf("%q was sent", secret)
				}
			}
		})
	}
}
