package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/folder"
)

// schemes are the kinds of places there are, as they begin an address.
var schemes = []string{"folder:/PATH"}

// openPlace opens the place at an address, such as folder:/home/ann/Nextcloud. The
// path of a folder alone is an address too. create is for the moment in which the
// user chooses a new place: then a folder may be made, or be empty.
func openPlace(address string, create bool) (store.Place, error) {
	scheme, path, ok := strings.Cut(address, ":")
	switch {
	case ok && scheme == "folder":
		return openFolder(path, create)
	case ok && len(scheme) > 1 && !strings.ContainsAny(scheme, `/\.~`):
		return store.Place{}, &usageError{
			text: "no such kind of place: " + printable(scheme),
			hint: "what there is: " + strings.Join(schemes, ", "),
		}
	}
	return openFolder(address, create)
}

// samePlace reports whether two addresses lead to one place, such as a folder and a link
// to it: what is there twice is one copy.
func samePlace(a, b string) bool {
	if a == b {
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
		p, err := openPlace(address, false)
		if err != nil {
			return err
		}
		if !seen[p.Address] {
			seen[p.Address] = true
			places = append(places, p)
		}
		return nil
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
