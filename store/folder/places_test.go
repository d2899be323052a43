package folder_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/store/folder"
)

// fake makes the directories and files given, paths that end in a slash being
// directories, and returns the base.
func fake(t testing.TB, files map[string]string) string {
	t.Helper()
	base := t.TempDir()
	for name, content := range files {
		path := filepath.Join(base, filepath.FromSlash(name))
		dir := filepath.Dir(path)
		if strings.HasSuffix(name, "/") {
			dir = path
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if dir != path {
			if err := os.WriteFile(path, []byte(strings.ReplaceAll(content, "BASE", filepath.ToSlash(base))), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return base
}

func TestDetect(t *testing.T) {
	base := fake(t, map[string]string{
		"ann/Nextcloud/": "",
		"ann/.config/Nextcloud/nextcloud.cfg": "[Accounts]\nversion=2\n" + `0\Folders\1\localPath=BASE/ann/Nextcloud/` + "\n" +
			`1\Folders\1\localPath=BASE/data/work cloud/` + "\n" + `2\Folders\1\localPath=BASE/gone/` + "\n" + `3\Folders\1\localPath=relative` + "\n",
		"data/work cloud/":        "",
		"ann/.dropbox/info.json":  `{"personal": {"path": "BASE/data/My Dropbox", "host": 5}, "business": {"path": "BASE/gone"}}`,
		"data/My Dropbox/":        "",
		"ann/Dropbox":             "a file",
		"ann/OneDrive - Work/":    "",
		"ann/OneDriveway/":        "",
		"ann/Sync/":               "",
		"ann/MEGA/":               "",
		"media/ann/STICK/":        "",
		"run/media/ann/BACKUP 1/": "",
		"media/bob/HIS/":          "",
	})
	env := map[string]string{"USER": "ann"}
	got := folder.Detect(folder.Machine{Home: filepath.Join(base, "ann"), Env: func(v string) string { return env[v] }, Root: base})
	want := []folder.Candidate{
		{Name: "Nextcloud", Dir: filepath.Join(base, "ann/Nextcloud")},
		{Name: "Nextcloud", Dir: filepath.Join(base, "data/work cloud")},
		{Name: "Dropbox", Dir: filepath.Join(base, "data/My Dropbox")},
		{Name: "OneDrive (Work)", Dir: filepath.Join(base, "ann/OneDrive - Work")},
		{Name: "MEGA", Dir: filepath.Join(base, "ann/MEGA")},
		{Name: "STICK", Dir: filepath.Join(base, "media/ann/STICK"), Removable: true},
		{Name: "BACKUP 1", Dir: filepath.Join(base, "run/media/ann/BACKUP 1"), Removable: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDetectMac(t *testing.T) {
	base := fake(t, map[string]string{
		"Users/ann/Library/Mobile Documents/com~apple~CloudDocs/":                   "",
		"Users/ann/Library/CloudStorage/GoogleDrive-ann@example.org/My Drive/":      "",
		"Users/ann/Library/CloudStorage/GoogleDrive-ann@example.org/Shared drives/": "",
		"Users/ann/Library/CloudStorage/OneDrive-Personal/":                         "",
		"Users/ann/Library/CloudStorage/Dropbox/":                                   "",
		"Users/ann/Library/CloudStorage/Box-Box/":                                   "",
		"Users/ann/Library/CloudStorage/Unknown-x/":                                 "",
		"Users/ann/Sync/.stfolder/":                                                 "",
		"Users/ann/pCloud Drive/":                                                   "",
		"Volumes/STICK/":                                                            "",
	})
	symlink(t, "/", filepath.Join(base, "Volumes", "Macintosh HD"))
	home := filepath.Join(base, "Users/ann")
	symlink(t, "Library/CloudStorage/Dropbox", filepath.Join(home, "Dropbox"))
	got := folder.Detect(folder.Machine{Home: home, Root: base})
	want := []folder.Candidate{
		{Name: "Dropbox", Dir: filepath.Join(home, "Dropbox")},
		{Name: "iCloud Drive", Dir: filepath.Join(home, "Library/Mobile Documents/com~apple~CloudDocs")},
		{Name: "Box", Dir: filepath.Join(home, "Library/CloudStorage/Box-Box")},
		{Name: "Google Drive (ann@example.org)", Dir: filepath.Join(home, "Library/CloudStorage/GoogleDrive-ann@example.org/My Drive")},
		{Name: "OneDrive (Personal)", Dir: filepath.Join(home, "Library/CloudStorage/OneDrive-Personal")},
		{Name: "Syncthing", Dir: filepath.Join(home, "Sync")},
		{Name: "pCloud", Dir: filepath.Join(home, "pCloud Drive")},
		{Name: "STICK", Dir: filepath.Join(base, "Volumes/STICK"), Removable: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDetectWindows(t *testing.T) {
	base := fake(t, map[string]string{
		"G/My Drive/": "", "G/Shared drives/": "", "G/.shortcut-targets-by-id/": "", "G/$RECYCLE.BIN/": "",
		"H/.shortcut-targets-by-id/": "", "H/Meine Ablage/": "", "H/Geteilte Ablagen/": "",
		"I/.shortcut-targets-by-id/": "", "I/Мій диск/": "",
		"J/.shortcut-targets-by-id/": "", "J/x/": "", "J/y/": "",
		"C/Windows/": "", "E/photos/": "",
		"ann/My Drive (ann@example.org)/": "", "ann/My Drives/": "", "ann/iCloudDrive/": "",
		"local/Syncthing/config.xml": `<configuration version="37"><folder id="x" label="Wallets" path="BASE/data/sync" type="sendreceive"/>` +
			`<folder id="y" label="" path="~/other" type="sendonly"></folder><folder id="z" label="z" path="BASE/data/in" type="receiveonly"/>` +
			`<folder id="g" label="gone" path="BASE/data/gone"/></configuration>`,
		"data/sync/": "", "data/in/": "", "ann/other/": "",
	})
	drive := func(letter string, removable bool) folder.Drive {
		return folder.Drive{Dir: filepath.Join(base, letter) + string(filepath.Separator), Removable: removable}
	}
	env := map[string]string{"LOCALAPPDATA": filepath.Join(base, "local")}
	home := filepath.Join(base, "ann")
	got := folder.Detect(folder.Machine{
		Home: home, Root: filepath.Join(base, "none"), Env: func(v string) string { return env[v] },
		Drives: []folder.Drive{drive("C", false), drive("E", true), drive("G", false), drive("H", false), drive("I", false), drive("J", false), drive("K", true)},
	})
	want := []folder.Candidate{
		{Name: "iCloud Drive", Dir: filepath.Join(home, "iCloudDrive")},
		{Name: "Google Drive (ann@example.org)", Dir: filepath.Join(home, "My Drive (ann@example.org)")},
		{Name: "Google Drive", Dir: filepath.Join(base, "G/My Drive")},
		{Name: "Google Drive", Dir: filepath.Join(base, "H/Meine Ablage")},
		{Name: "Google Drive", Dir: filepath.Join(base, "I/Мій диск")},
		{Name: "Syncthing (Wallets)", Dir: filepath.Join(base, "data/sync")},
		{Name: "Syncthing", Dir: filepath.Join(home, "other")},
		{Name: "Drive " + filepath.Join(base, "E"), Dir: filepath.Join(base, "E"), Removable: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDetectGnome(t *testing.T) {
	base := fake(t, map[string]string{
		"run/gvfs/smb-share:server=nas.local,share=home,user=ann/": "", "run/gvfs/dav:host=cloud.example.org,ssl=true,prefix=%2Fdav/": "",
		"run/gvfs/google-drive:host=gmail.com,user=ann/": "", "run/gvfs/mtp:host=Phone/": "", "run/gvfs/sftp/": "",
		"ann/.local/state/syncthing/config.xml": `<configuration><folder id="x" label="Sync" path="~/Sync"/></configuration>`,
		"ann/Sync/.stfolder/":                   "",
	})
	env := map[string]string{"XDG_RUNTIME_DIR": filepath.Join(base, "run")}
	got := folder.Detect(folder.Machine{Home: filepath.Join(base, "ann"), Root: base, Env: func(v string) string { return env[v] }})
	want := []folder.Candidate{
		{Name: "Syncthing (Sync)", Dir: filepath.Join(base, "ann/Sync")},
		{Name: "Network folder (cloud.example.org)", Dir: filepath.Join(base, "run/gvfs/dav:host=cloud.example.org,ssl=true,prefix=%2Fdav")},
		{Name: "Network folder (nas.local/home)", Dir: filepath.Join(base, "run/gvfs/smb-share:server=nas.local,share=home,user=ann")},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDetectNothing(t *testing.T) {
	if got := folder.Detect(folder.Machine{Home: t.TempDir(), Root: t.TempDir()}); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	if got := folder.Detect(folder.Machine{Home: t.TempDir(), Root: t.TempDir(), Env: func(string) string { return "../.." }}); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// R18: the configuration of other programs may hold anything.
func FuzzDetect(f *testing.F) {
	f.Add([]byte(`{"personal": {"path": "/home/ann/Dropbox"}}`))
	f.Add([]byte(`<configuration><folder label="x" path="~/x"/></configuration>`))
	f.Add([]byte("0\\Folders\\1\\localPath=/home/ann/Nextcloud/\n"))
	home := fake(f, map[string]string{".dropbox/": "", ".config/Nextcloud/": "", ".config/syncthing/": ""})
	f.Fuzz(func(t *testing.T, config []byte) {
		for _, file := range []string{".dropbox/info.json", ".config/Nextcloud/nextcloud.cfg", ".config/syncthing/config.xml"} {
			if err := os.WriteFile(filepath.Join(home, file), config, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range folder.Detect(folder.Machine{Home: home, Root: home}) {
			if info, err := os.Stat(c.Dir); err != nil || !info.IsDir() || !filepath.IsAbs(c.Dir) {
				t.Errorf("offers %q: %v", c.Dir, err)
			}
		}
	})
}
