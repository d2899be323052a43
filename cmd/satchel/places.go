package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/folder"
)

// forms are how the addresses of places look.
func forms() []string {
	list := []string{"folder:/PATH"}
	for _, k := range cloudKinds() {
		if k.form != "" {
			list = append(list, k.form)
		}
	}
	return list
}

// placesHelp lists the kinds of places for --help.
func placesHelp() string {
	var b strings.Builder
	line := func(form, name string, fake bool) {
		if fake {
			name += " *"
		}
		fmt.Fprintf(&b, "  %-29s %s\n", form, name)
	}
	line("~/FOLDER or folder:/PATH", "a folder that is synced, or on a drive", false)
	for _, k := range cloudKinds() {
		if k.form != "" {
			line(k.form, k.name, k.fake)
		}
	}
	return b.String() + `
* Written from the provider's documents and tested with a stand-in: the makers of
Satchel never ran it with an account there. Keep a second place beside it.`
}

// openPlace opens the place at an address, such as folder:/home/ann/Nextcloud or
// s3://KEY@host/bucket. The path of a folder alone is an address too. create is for the
// moment in which the user chooses a new place: then a folder may be made, or be empty.
func (a *app) openPlace(address string, create bool) (store.Place, error) {
	if k := cloudOf(address); k != nil {
		return a.openCloud(k, address)
	}
	scheme, path, ok := strings.Cut(address, ":")
	switch {
	case ok && (scheme == "https" || scheme == "http"):
		return store.Place{}, &usageError{
			text: "no such kind of place: " + printable(scheme),
			hint: "the address of a WebDAV server, such as Nextcloud's, begins with webdav+" + scheme + "://",
		}
	case ok && scheme == "folder":
		return openFolder(path, create)
	case ok && len(scheme) > 1 && !strings.ContainsAny(scheme, `/\.~`):
		return store.Place{}, &usageError{
			text: "no such kind of place: " + printable(scheme),
			hint: "what there is: " + strings.Join(forms(), ", "),
		}
	}
	if create && likelyMistyped(address) {
		return store.Place{}, &usageError{
			text: "there is no folder " + printable(address) + " here",
			hint: "a new folder of that name is ./" + printable(address) + "; other kinds of places: " + strings.Join(forms()[1:], ", "),
		}
	}
	return openFolder(address, create)
}

// samePlace reports whether two addresses lead to one place, such as a folder and a link
// to it: what is there twice is one copy.
func samePlace(a, b string) bool {
	if oneForm(a) == oneForm(b) {
		return true
	}
	x, isX := strings.CutPrefix(a, "folder:")
	y, isY := strings.CutPrefix(b, "folder:")
	if !isX || !isY {
		return false
	}
	ix, errX := os.Stat(x)
	iy, errY := os.Stat(y)
	return errX == nil && errY == nil && os.SameFile(ix, iy)
}

// likelyMistyped reports whether a bare name that stands for no folder here was meant as
// another kind of place.
func likelyMistyped(name string) bool {
	if strings.ContainsAny(name, "/"+string(filepath.Separator)) || name == "" || name[0] == '.' || name[0] == '~' {
		return false
	}
	if _, err := os.Stat(name); err == nil {
		return false
	}
	kind := strings.ToLower(name) == "webdav" || strings.Contains(name, ".") || strings.Contains(name, `\`)
	for _, k := range cloudKinds() {
		kind = kind || strings.EqualFold(name, k.scheme)
	}
	return kind
}

// otherKey reports whether two addresses of one place differ in the key to it: then the
// second one takes the place of the first, as after a key was replaced.
func otherKey(a, b string) bool {
	return a != b && strings.HasPrefix(a, "s3") && samePlace(a, b)
}

func openFolder(path string, create bool) (store.Place, error) {
	if path == "" {
		return store.Place{}, usagef("the path of a folder is missing")
	}
	dir, err := filepath.Abs(path)
	if err != nil {
		return store.Place{}, err
	}
	// A person may well point at the backup itself.
	if strings.HasPrefix(filepath.Base(dir), seal.FolderPrefix) {
		dir = filepath.Dir(dir)
	}
	if !create {
		// What stands there now, the place itself finds out and says.
	} else if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return store.Place{}, usagef("not a folder: %s", printable(dir))
	} else if err != nil {
		if _, err := os.Stat(filepath.Dir(dir)); err != nil {
			return store.Place{}, usagef("there is no folder %s to make %s in", printable(filepath.Dir(dir)), printable(filepath.Base(dir)))
		}
	}
	s, err := folder.New(dir, folder.Config{Create: create})
	if err != nil {
		return store.Place{}, err
	}
	return store.Place{Address: "folder:" + s.Dir(), Store: s}, nil
}

// expandHome turns ~ into the home directory in a path that was typed at a
// question, where no shell does it.
func (a *app) expandHome(path string) string {
	if rest, ok := strings.CutPrefix(path, "~"); ok && (rest == "" || os.IsPathSeparator(rest[0])) {
		return a.userHome() + rest
	}
	return path
}

// syncFolders are the folders on this machine that something carries elsewhere.
func (a *app) syncFolders() []folder.Candidate {
	return folder.Detect(folder.Machine{Home: a.userHome(), Env: a.getenv})
}

func (a *app) userHome() string {
	if runtime.GOOS == "windows" {
		return a.getenv("USERPROFILE")
	}
	return a.getenv("HOME")
}

// likelyPlaces are where backups may be: the sync folders, and the places of the
// wallets on this device. Each folder comes once.
func (a *app) likelyPlaces() ([]store.Place, error) {
	var places []store.Place
	seen := map[string]bool{}
	add := func(address string) error {
		p, err := a.openPlace(address, false)
		if err != nil {
			return err
		}
		if !seen[p.Address] {
			seen[p.Address] = true
			places = append(places, p)
		}
		return nil
	}
	// Where it signs in to, a backup may be that no wallet here has.
	logins, err := a.keeper().List()
	if err != nil {
		return nil, err
	}
	for _, login := range logins {
		if k := cloudOf(login); k != nil && k.signing == browser {
			if err := add(login); err != nil {
				a.note("leaving out %s: %s", printable(login), errorText(err))
			}
		}
	}
	devices, err := a.devices()
	if err != nil {
		return nil, err
	}
	for _, d := range devices {
		for _, address := range d.info.Places {
			if err := add(address); err != nil {
				a.note("leaving out %s: %s", address, errorText(err))
			}
		}
	}
	for _, c := range a.syncFolders() {
		if err := add("folder:" + c.Dir); err != nil {
			a.note("leaving out %s: %s", c.Dir, errorText(err))
		}
	}
	return places, nil
}
