package folder

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/internal/program"
	"github.com/satchel-backup/satchel/store"
)

// A sync program may know of a file and not have it on this device: it was taken
// off to save room, or it is on its way. Some put another file in its place, and
// where that stands the object exists. Others show the file itself and fetch it
// when it is read: newer macOS, Windows with OneDrive, Dropbox, iCloud and Google
// Drive. There is nothing to do about those but to wait for the system.

// decorations are the forms of names of such other files.
var decorations = []struct {
	before, after string
	tiny          bool // it holds a byte or none; a larger file is just one of this name
}{
	{".", ".icloud", false},        // iCloud before macOS 14
	{".syncthing.", ".tmp", false}, // Syncthing, while it fetches
	{"~syncthing~", ".tmp", false}, // the same on Windows
	{"", ".nextcloud", true},       // Nextcloud's virtual files on Linux
	{"", ".owncloud", true},        // ownCloud's
	{"", ".opencloud", true},       // OpenCloud's
}

// placeholder returns the name of the object that a file stands for, if its name
// says that it does, and whether only a tiny file does.
func placeholder(file string) (name string, tiny, ok bool) {
	dir, base := path.Split(file)
	for _, d := range decorations {
		inner, ok := strings.CutPrefix(base, d.before)
		if ok {
			inner, ok = strings.CutSuffix(inner, d.after)
		}
		if ok && inner != "" && store.CheckName(dir+inner) == nil {
			return dir + inner, d.tiny, true
		}
	}
	return "", false, false
}

// awaited returns the file that stands for an object whose own file is not there,
// or "".
func awaited(root *os.Root, name string) string {
	dir, base := path.Split(name)
	for _, d := range decorations {
		file := filepath.FromSlash(dir + d.before + base + d.after)
		info, err := root.Lstat(file)
		if err != nil || !info.Mode().IsRegular() || d.tiny && info.Size() > 1 {
			continue
		}
		if _, err := root.Lstat(filepath.FromSlash(name)); err == nil {
			return ""
		}
		return file
	}
	return ""
}

// usualPatience is how long to wait for a file by default, and pollPause how long
// before each look.
const (
	usualPatience = 30 * time.Second
	pollPause     = 250 * time.Millisecond
)

// errAway is a fact behind store.ErrUnreachable.
var errAway = fmt.Errorf("%w: not downloaded yet: the cloud has the file and this device has not", store.ErrUnreachable)

// arrive waits while something stands for the object whose file is not there yet,
// and has the file fetched where that can be asked for.
func (s *Store) arrive(ctx context.Context, root *os.Root, name string) error {
	file := awaited(root, name)
	if file == "" {
		return nil
	}
	end := time.Now().Add(s.patience)
	s.fetch(ctx, filepath.Join(s.dir, file))
	for awaited(root, name) != "" {
		left := time.Until(end)
		if left <= 0 {
			return errAway
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(left, pollPause)):
		}
	}
	return nil
}

// fetch asks macOS to download a file from iCloud. Its answer counts for nothing:
// the file is there or it is not.
func fetch(ctx context.Context, file string) {
	if runtime.GOOS != "darwin" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	program.Run(ctx, program.Command{Path: "/usr/bin/brctl", Args: []string{"download", file}, Limit: 1 << 16})
}
