package folder

import (
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/satchel-backup/satchel/internal/durable"
)

// Machine is where Detect looks.
type Machine struct {
	Home string              // the user's home directory
	Env  func(string) string // such as os.Getenv; nil means that no variable is set
	Root string              // before the paths of drives, for tests; empty means none

	// Drives are the drives that have letters; nil means those of the system, which
	// are none but on Windows.
	Drives []Drive
}

// Drive is a drive that has a letter.
type Drive struct {
	Dir       string // such as G:\
	Removable bool
}

// Candidate is a directory on this machine that something carries elsewhere.
type Candidate struct {
	Name      string // for people: "Nextcloud", "Google Drive (ann@example.org)"
	Dir       string
	Removable bool // a drive that the user plugs in, rather than a cloud
}

// maxConfig bounds the configuration files of sync programs that are read.
const maxConfig = 1 << 20

// Detect returns the sync folders and removable drives that exist on the
// machine, clouds first. It reads directories and the configuration files of
// sync programs, and changes nothing. That a folder exists does not prove that
// something still syncs it: the user chooses.
func Detect(m Machine) []Candidate {
	if m.Env == nil {
		m.Env = func(string) string { return "" }
	}
	var d detector
	home := func(elem ...string) string { return filepath.Join(append([]string{m.Home}, elem...)...) }
	// under returns a path below the directory that a variable names.
	under := func(variable string, elem ...string) string {
		if base := m.Env(variable); base != "" {
			return filepath.Join(append([]string{base}, elem...)...)
		}
		return ""
	}

	for _, config := range []struct{ name, file string }{
		{"Nextcloud", home(".config", "Nextcloud", "nextcloud.cfg")},
		{"Nextcloud", home("Library", "Preferences", "Nextcloud", "nextcloud.cfg")},
		{"Nextcloud", under("APPDATA", "Nextcloud", "nextcloud.cfg")},
		{"ownCloud", home(".config", "ownCloud", "owncloud.cfg")},
		{"ownCloud", home("Library", "Preferences", "ownCloud", "owncloud.cfg")},
		{"ownCloud", under("APPDATA", "ownCloud", "owncloud.cfg")},
	} {
		for _, dir := range localPaths(read(config.file)) {
			d.add(config.name, dir)
		}
	}
	for _, file := range []string{
		home(".dropbox", "info.json"), under("APPDATA", "Dropbox", "info.json"), under("LOCALAPPDATA", "Dropbox", "info.json"),
	} {
		for _, dir := range dropboxPaths(read(file)) {
			d.add("Dropbox", dir)
		}
	}
	d.add("Nextcloud", home("Nextcloud"))
	d.add("ownCloud", home("ownCloud"))
	d.add("Dropbox", home("Dropbox"))
	d.add("iCloud Drive", home("Library", "Mobile Documents", "com~apple~CloudDocs"))
	d.add("iCloud Drive", home("iCloudDrive")) // on Windows
	for _, mount := range subdirs(home("Library", "CloudStorage")) {
		provider, account, _ := strings.Cut(filepath.Base(mount), "-")
		switch provider {
		case "GoogleDrive":
			if own := filepath.Join(mount, "My Drive"); isDir(own) {
				mount = own // Beside it stand the drives of others.
			}
			d.add(named("Google Drive", account), mount)
		case "OneDrive":
			d.add(named("OneDrive", account), mount)
		case "Dropbox":
			d.add("Dropbox", mount)
		case "Box":
			d.add("Box", mount)
		case "Nextcloud":
			d.add(named("Nextcloud", account), mount)
		case "pCloudDrive", "pCloud":
			d.add("pCloud", mount)
		case "ProtonDrive":
			d.add(named("Proton Drive", account), mount)
		}
	}
	for _, dir := range subdirs(m.Home) { // Google Drive for desktop where it mirrors.
		base := filepath.Base(dir)
		if account, ok := strings.CutPrefix(base, "My Drive"); ok && (account == "" || strings.HasPrefix(account, " (")) {
			d.add(named("Google Drive", strings.Trim(account, " ()")), dir)
		}
	}
	lettered := m.Drives
	if lettered == nil {
		lettered = drives()
	}
	for _, drive := range lettered {
		d.addGoogle(drive.Dir)
	}
	for _, variable := range []string{"OneDrive", "OneDriveConsumer", "OneDriveCommercial"} {
		d.add("OneDrive", under(variable))
	}
	for _, dir := range subdirs(m.Home) {
		base := filepath.Base(dir)
		if rest, ok := strings.CutPrefix(base, "OneDrive"); ok && (rest == "" || strings.HasPrefix(rest, " - ") || strings.HasPrefix(rest, "-")) {
			d.add(named("OneDrive", strings.Trim(rest, " -")), dir)
		}
	}
	for _, file := range []string{
		home(".local", "state", "syncthing", "config.xml"), home(".config", "syncthing", "config.xml"),
		home("Library", "Application Support", "Syncthing", "config.xml"), under("LOCALAPPDATA", "Syncthing", "config.xml"),
		under("XDG_STATE_HOME", "syncthing", "config.xml"), under("XDG_CONFIG_HOME", "syncthing", "config.xml"),
	} {
		for _, f := range syncthingFolders(read(file)) {
			if rest, ok := strings.CutPrefix(f.Path, "~"); ok && (rest == "" || os.IsPathSeparator(rest[0])) {
				f.Path = home(rest)
			}
			d.add(named("Syncthing", f.Label), f.Path)
		}
	}
	if isDir(home("Sync", ".stfolder")) { // Syncthing's own mark: the name alone says little.
		d.add("Syncthing", home("Sync"))
	}
	for _, base := range []string{"pCloudDrive", "pCloud Drive", "pCloudSync"} {
		d.add("pCloud", home(base))
	}
	for _, base := range []string{"MEGA", "MEGAsync"} {
		d.add("MEGA", home(base))
	}
	for _, base := range []string{"Box", "Box Sync"} {
		d.add("Box", home(base))
	}

	for _, mount := range subdirs(under("XDG_RUNTIME_DIR", "gvfs")) { // what GNOME's Files has connected
		if kind, where, ok := strings.Cut(filepath.Base(mount), ":"); ok && networks[kind] {
			d.add(named("Network folder", networkName(where)), mount)
		}
	}

	root := m.Root
	if root == "" {
		root = string(filepath.Separator)
	}
	mounted := []string{filepath.Join(root, "Volumes")}
	if user := m.Env("USER"); user != "" && filepath.Base(user) == user {
		mounted = append(mounted, filepath.Join(root, "media", user), filepath.Join(root, "run", "media", user))
	}
	d.removable = true
	for _, mounts := range mounted {
		for _, dir := range subdirs(mounts) {
			d.add(filepath.Base(dir), dir)
		}
	}
	for _, drive := range lettered {
		if drive.Removable {
			d.add("Drive "+strings.TrimRight(drive.Dir, `\/`), drive.Dir)
		}
	}
	return d.found
}

type detector struct {
	found     []Candidate
	removable bool
}

// add adds dir unless it is missing or known already under another path.
func (d *detector) add(name, dir string) {
	if !filepath.IsAbs(dir) {
		return
	}
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() {
		return
	}
	for _, c := range d.found {
		if known, err := os.Stat(c.Dir); err == nil && os.SameFile(info, known) {
			return
		}
	}
	d.found = append(d.found, Candidate{name, filepath.Clean(dir), d.removable})
}

// addGoogle adds the user's own part of a drive that Google Drive for desktop has
// made. What that is called depends on the language; beside it stand the drives of
// others and hidden folders, which give it away.
func (d *detector) addGoogle(drive string) {
	if !isDir(filepath.Join(drive, ".shortcut-targets-by-id")) && !isDir(filepath.Join(drive, "My Drive")) {
		return
	}
	own := ""
	for _, dir := range subdirs(drive) {
		switch base := filepath.Base(dir); {
		case slices.Contains(myDrive, base):
			d.add("Google Drive", dir)
			return
		case !strings.HasPrefix(base, "$") && !systems(base):
			own = dir
		}
	}
	if all := subdirs(drive); len(all) == 1 && own != "" { // In another language, and nothing shared.
		d.add("Google Drive", own)
	}
}

// myDrive is "My Drive" in the languages that many people use.
var myDrive = []string{
	"My Drive", "Meine Ablage", "Mon Drive", "Mi unidad", "Il mio Drive", "Mijn Drive", "Meu Drive", "O meu disco", "Mój dysk", "Мой диск",
	"Mitt Drive", "Min enhet", "Mit drev", "Oma Drive", "マイドライブ", "내 드라이브", "我的云端硬盘", "我的雲端硬碟", "Drive'ım", "Můj disk",
}

// networks are the kinds of GNOME's mounts that keep files under the names they were
// given; those of Google Drive and OneDrive there do not.
var networks = map[string]bool{"dav": true, "davs": true, "smb-share": true, "sftp": true}

// networkName makes "host/share" of what such a mount is named:
// "server=host,share=share,user=ann".
func networkName(mount string) string {
	var host, share string
	for part := range strings.SplitSeq(mount, ",") {
		switch key, value, _ := strings.Cut(part, "="); key {
		case "host", "server":
			host = value
		case "share":
			share = "/" + value
		}
	}
	return host + share
}

func named(name, account string) string {
	if account == "" {
		return name
	}
	return name + " (" + account + ")"
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// subdirs returns the directories in dir, links left out, in the order of their names.
func subdirs(dir string) []string {
	entries, _ := os.ReadDir(dir) // What cannot be read offers nothing.
	var out []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out
}

// read returns a small file's content, or nothing.
func read(file string) []byte {
	if file == "" {
		return nil
	}
	data, err := durable.Disk{}.ReadFile(file, maxConfig)
	if err != nil {
		return nil
	}
	return data
}

// localPaths returns the folders in a configuration file of the Nextcloud or the
// ownCloud client, which has lines such as "0\Folders\1\localPath=/home/ann/Nextcloud/".
func localPaths(config []byte) []string {
	var dirs []string
	for line := range strings.Lines(string(config)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && strings.HasSuffix(key, `\localPath`) && value != "" {
			dirs = append(dirs, filepath.FromSlash(value))
		}
	}
	return dirs
}

// dropboxPaths returns the folders in Dropbox's info.json.
func dropboxPaths(info []byte) []string {
	var accounts map[string]struct {
		Path string `json:"path"`
	}
	if json.Unmarshal(info, &accounts) != nil {
		return nil
	}
	var dirs []string
	for _, a := range accounts {
		if a.Path != "" {
			dirs = append(dirs, a.Path)
		}
	}
	slices.Sort(dirs)
	return dirs
}

// syncthingFolder is a folder in Syncthing's configuration.
type syncthingFolder struct {
	Label string `xml:"label,attr"`
	Path  string `xml:"path,attr"`
	Type  string `xml:"type,attr"`
}

// syncthingFolders returns the folders in Syncthing's config.xml whose changes go to
// others.
func syncthingFolders(config []byte) []syncthingFolder {
	var c struct {
		Folders []syncthingFolder `xml:"folder"`
	}
	if xml.Unmarshal(config, &c) != nil {
		return nil
	}
	return slices.DeleteFunc(c.Folders, func(f syncthingFolder) bool {
		return f.Path == "" || f.Type == "receiveonly" || f.Type == "receiveencrypted"
	})
}
