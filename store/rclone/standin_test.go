package rclone_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The test's own binary is run as rclone where these variables are set.
const (
	standinDir    = "STANDIN_DIR"    // where the remote "cloud" has its files
	standinFault  = "STANDIN_FAULT"  // what goes wrong; see standin.run
	standinBucket = "STANDIN_BUCKET" // the remote has no directories, as S3
	standinIDs    = "STANDIN_IDS"    // the remote has IDs, and twins in files such as name~1, as Drive
	standinLog    = "STANDIN_LOG"    // a file that gets each command line
)

// quickEnd keeps the race detector from making each run a second longer.
const quickEnd = "GORACE=atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	if os.Getenv(standinDir) != "" {
		s := standin{os.Getenv(standinDir), os.Getenv(standinFault), os.Getenv(standinBucket) != "", os.Getenv(standinIDs) != ""}
		os.Exit(s.run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// standin behaves as rclone 1.60 does with a remote of the name "cloud", in as far as
// the store uses it.
type standin struct {
	dir, fault  string
	bucket, ids bool
}

func (s standin) run(args []string) int {
	if log := os.Getenv(standinLog); log != "" {
		f, _ := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		fmt.Fprintln(f, strings.Join(args, " "))
		f.Close()
	}
	flags := map[string]string{}
	var include, words []string
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		switch {
		case name == "--include":
			include = append(include, value)
		case strings.HasPrefix(a, "--"):
			flags[name] = value
		default:
			words = append(words, a)
		}
	}
	fault, only, _ := strings.Cut(s.fault, "@") // such as "exit 5@copyto"
	if only != "" && only != words[0] {
		fault = ""
	}
	code, isExit := strings.CutPrefix(fault, "exit ")
	switch {
	case fault == "hang":
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), standinFault+"=hang alone")
		if child.Start() == nil {
			os.WriteFile(filepath.Join(s.dir, ".pids"), fmt.Append(nil, os.Getpid(), "\n", child.Process.Pid, "\n"), 0o600)
		}
		time.Sleep(time.Hour)
	case fault == "hang alone":
		time.Sleep(time.Hour)
	case fault == "garbage":
		fmt.Println("<html>Welcome to this hotel</html>")
		return 0
	case fault == "nothing":
		return 0
	case fault == "huge":
		for {
			if _, err := os.Stdout.Write(make([]byte, 1<<20)); err != nil {
				return 1
			}
		}
	case isExit:
		n, _ := strconv.Atoi(code)
		return n
	}
	switch words[0] {
	case "listremotes":
		fmt.Println("cloud:\nother:")
		return 0
	case "lsjson":
		_, stat := flags["--stat"]
		_, recursive := flags["--recursive"]
		if fault == "gone below" && recursive {
			return 3
		}
		return s.lsjson(words[1], stat, recursive, include, fault)
	case "cat":
		count, _ := strconv.ParseInt(flags["--count"], 10, 64)
		return s.cat(words[1], count, fault)
	case "copyto":
		if fault == "drop" || os.Getenv("RCLONE_DRY_RUN") != "" {
			return 0
		}
		data, err := os.ReadFile(words[1])
		file := s.file(words[2])
		_, there := os.Stat(file)
		_, keep := flags["--ignore-existing"]
		_, tell := flags["--error-on-no-transfer"]
		switch {
		case err != nil:
			return 1
		case there == nil && keep && tell:
			return 9
		case there == nil && keep:
			return 0
		}
		if _, err := os.Stat(filepath.Dir(file)); err != nil {
			// A cloud may make one twice that two make at the same time.
			making := filepath.Join(s.dir, ".making")
			if os.Mkdir(making, 0o700) != nil {
				os.WriteFile(filepath.Join(s.dir, ".twice"), nil, 0o600)
			}
			defer os.Remove(making)
			time.Sleep(5 * time.Millisecond)
		}
		os.MkdirAll(filepath.Dir(file), 0o700)
		if os.WriteFile(file, data, 0o600) != nil {
			return 1
		}
		if fault == "applied" {
			return 5
		}
		return 0
	case "deletefile":
		file := s.file(words[1])
		if info, err := os.Stat(file); err != nil || info.IsDir() {
			return 1
		}
		if os.Remove(file) != nil {
			return 1
		}
		if s.ids { // Then rclone finds the next of the name.
			os.Rename(file+"~1", file)
		}
		return 0
	case "about":
		s.file(words[1])
		fmt.Println(`{"total": 100, "used": 97, "free": 3}`)
		return 0
	case "backend":
		if !s.ids || words[1] != "copyid" {
			return 1
		}
		var found int
		s.walk(func(file, name, id string) {
			if data, err := os.ReadFile(file); err == nil && id == words[3] {
				found++
				os.WriteFile(words[4], data, 0o600)
			}
		})
		return 1 - found
	}
	return 1
}

// file returns the file of a target such as cloud:base/name.
func (s standin) file(target string) string {
	remote, name, _ := strings.Cut(target, ":")
	if remote != "cloud" {
		os.Exit(1) // A remote that is not configured.
	}
	return filepath.Join(s.dir, filepath.FromSlash(name))
}

var twin = regexp.MustCompile(`~[0-9]$`)

// walk visits all files with the names and IDs they are shown with.
func (s standin) walk(visit func(file, name, id string)) {
	filepath.WalkDir(s.dir, func(file string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && (!strings.HasPrefix(e.Name(), ".") || e.Name() == ".satchel-folder") {
			rel, _ := filepath.Rel(s.dir, file)
			name, id := filepath.ToSlash(rel), ""
			if s.ids {
				id = fmt.Sprintf("%x", name)
				name = twin.ReplaceAllString(name, "")
			}
			visit(file, name, id)
		}
		return nil
	})
}

type jsonEntry struct {
	Path    string
	Name    string
	Size    int64
	ModTime string
	IsDir   bool
	ID      string `json:",omitempty"`
}

func (s standin) lsjson(target string, stat, recursive bool, include []string, fault string) int {
	file := s.file(target)
	rel, _ := filepath.Rel(s.dir, file)
	rel = filepath.ToSlash(rel)
	info, err := os.Stat(file)
	list := []jsonEntry{}
	single := err == nil && !info.IsDir()
	s.walk(func(f, name, id string) {
		below, ok := strings.CutPrefix(name, rel+"/")
		switch {
		case single && (f == file || !stat && name == rel):
			below = path.Base(name)
		case single, rel != "." && !ok, stat:
			return
		case rel == ".":
			below = name
		}
		if !recursive && strings.Contains(below, "/") || !included(below, include) {
			return
		}
		info, err := os.Stat(f)
		if err != nil {
			return
		}
		list = append(list, jsonEntry{below, path.Base(below), info.Size(), info.ModTime().Format(time.RFC3339Nano), false, id})
	})
	if stat {
		switch {
		case err == nil && info.IsDir() && !s.bucket:
			list = []jsonEntry{{Path: path.Base(rel), IsDir: true, Size: -1}}
		case len(list) == 0:
			fmt.Println("null")
			return 0
		}
		out, _ := json.MarshalIndent(list[0], "", "\t")
		fmt.Println(string(out))
		return 0
	}
	if errors.Is(err, fs.ErrNotExist) && !s.bucket {
		return 3
	}
	out, _ := json.Marshal(list)
	if fault == "half" {
		out = out[:len(out)/2]
	}
	os.Stdout.Write(out)
	return 0
}

// included says whether one of the patterns /x* and /x*/** takes the path.
func included(name string, include []string) bool {
	if include == nil {
		return true
	}
	return slices.ContainsFunc(include, func(p string) bool {
		p = regexp.QuoteMeta(strings.TrimPrefix(p, "/"))
		p = strings.ReplaceAll(strings.ReplaceAll(p, `\*\*`, ".*"), `\*`, "[^/]*")
		return regexp.MustCompile("^" + p + "$").MatchString(name)
	})
}

func (s standin) cat(target string, count int64, fault string) int {
	file := s.file(target)
	info, err := os.Stat(file)
	if err != nil {
		if s.bucket {
			return 0 // An empty directory, to rclone.
		}
		return 3
	}
	var files []string
	rel, _ := filepath.Rel(s.dir, file)
	s.walk(func(f, name, _ string) {
		if f == file || info.IsDir() && strings.HasPrefix(f, file+string(filepath.Separator)) || s.ids && name == filepath.ToSlash(rel) {
			files = append(files, f)
		}
	})
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return 1
		}
		data = data[:min(int64(len(data)), count)]
		if fault == "short" {
			data = data[:len(data)/2]
		}
		os.Stdout.Write(data)
	}
	return 0
}
