package onepassword_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The test's own binary is run as op where these variables are set.
const (
	standinDir   = "STANDIN_DIR"   // where the vault "Private" has its items, as NUMBER.json and NUMBER.data
	standinFault = "STANDIN_FAULT" // what goes wrong; see standin.run
	standinLog   = "STANDIN_LOG"   // a file that gets each command line
	standinUser  = "STANDIN_USER"  // who is signed in; "" means user A of account X
)

// quickEnd keeps the race detector from making each run a second longer.
const quickEnd = "GORACE=atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	if os.Getenv(standinDir) != "" {
		s := standin{os.Getenv(standinDir), os.Getenv(standinFault)}
		os.Exit(s.run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// standin behaves as the documentation of 1Password CLI 2 says, in as far as the
// store uses it:
//
//	op whoami
//	op vault list
//	op vault get VAULT
//	op item list --categories Document --vault VAULT
//	op item get ID --vault VAULT
//	op item delete ID --vault VAULT
//	op document create FILE --title TITLE --file-name NAME --tags TAGS --vault VAULT
//	op document get ID --vault VAULT
//
// Every error is a line on the standard error and the code 1. Titles may repeat.
type standin struct{ dir, fault string }

type item struct {
	ID       string    `json:"id"`
	Title    string    `json:"title"`
	Tags     []string  `json:"tags,omitempty"`
	Version  int       `json:"version"`
	Vault    vault     `json:"vault"`
	Category string    `json:"category"`
	Created  time.Time `json:"created_at"`
	Updated  time.Time `json:"updated_at"`
}

type vault struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

var private = vault{"vaultidvaultidvaultidvault", "Private"}

func refuse(text string) int {
	fmt.Fprintf(os.Stderr, "[ERROR] 2026/11/26 12:00:00 %s\n", text)
	return 1
}

func (s standin) run(args []string) int {
	if log := os.Getenv(standinLog); log != "" {
		f, _ := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		fmt.Fprintln(f, strings.Join(args, " "))
		f.Close()
	}
	flags := map[string]string{}
	var words []string
	for i, a := range args {
		if a == "--" {
			words = append(words, args[i+1:]...)
			break
		}
		if name, value, _ := strings.Cut(a, "="); strings.HasPrefix(a, "--") {
			flags[name] = value
		} else {
			words = append(words, a)
		}
	}
	if flags["--cache"] != "false" {
		return refuse("this test wants no cache")
	}
	verb := strings.Join(words[:min(2, len(words))], " ")
	fault, only, _ := strings.Cut(s.fault, "@") // such as "refuse@item list"
	if only != "" && only != verb {
		fault = ""
	}
	asked := filepath.Join(s.dir, "asked")
	switch fault {
	case "refuse":
		return refuse("something went wrong")
	case "signed out":
		return refuse("account is not signed in")
	case "shy": // whoami knows nothing until another command made the app ask.
		if _, err := os.Stat(asked); err != nil && verb == "whoami" {
			return refuse("account is not signed in")
		}
		os.WriteFile(asked, nil, 0o600)
	case "hang":
		time.Sleep(time.Hour)
	case "garbage":
		fmt.Println("<html>")
		return 0
	case "nothing":
		return 0
	case "huge":
		for {
			if _, err := os.Stdout.Write(make([]byte, 1<<20)); err != nil {
				return 1
			}
		}
	}
	switch verb {
	case "whoami":
		user := os.Getenv(standinUser)
		if user == "" {
			user = "X/A"
		}
		account, id, _ := strings.Cut(user, "/")
		return show(map[string]string{"url": "https://my.1password.com", "email": "ann@example.org", "user_uuid": id, "account_uuid": account})
	case "vault list":
		return show([]vault{private})
	}
	named := flags["--vault"]
	if verb == "vault get" {
		named = words[2]
	}
	if named != private.Name && named != private.ID {
		return refuse(`"` + named + `" isn't a vault in this account`)
	}
	switch verb {
	case "vault get":
		return show(private)
	case "item list":
		if flags["--categories"] != "Document" || flags["--format"] != "json" {
			return refuse("unexpected flags")
		}
		out, _ := json.Marshal(s.items())
		if fault == "half" {
			out = out[:len(out)/2]
		}
		os.Stdout.Write(out)
		return 0
	case "item get":
		data, err := os.ReadFile(filepath.Join(s.dir, strings.TrimPrefix(words[2], "id")+".data"))
		if err != nil || flags["--format"] != "json" {
			return refuse(`"` + words[2] + `" isn't an item`)
		}
		return show(map[string]any{"id": words[2], "category": "DOCUMENT", "files": []map[string]any{
			{"id": "fileid", "name": "a", "size": len(data), "content_path": "/v1/vaults/x/items/y/files/z/content"},
		}})
	case "item delete":
		file := filepath.Join(s.dir, strings.TrimPrefix(words[2], "id"))
		if os.Remove(file+".json") != nil {
			return refuse(`"` + words[2] + `" isn't an item`)
		}
		return 0
	case "document create":
		if fault == "drop" {
			return show(map[string]string{"uuid": "id0"})
		}
		data, err := os.ReadFile(words[2])
		if words[2] == "-" {
			data, err = io.ReadAll(os.Stdin)
		}
		if err != nil {
			return refuse("cannot read the file")
		}
		s.add(flags["--title"], strings.Split(flags["--tags"], ","), data)
		if fault == "applied" {
			return refuse("the connection was lost")
		}
		return show(map[string]string{"uuid": "idN", "vaultUuid": private.ID})
	case "document get":
		data, err := os.ReadFile(filepath.Join(s.dir, strings.TrimPrefix(words[2], "id")+".data"))
		if _, there := os.Stat(filepath.Join(s.dir, strings.TrimPrefix(words[2], "id")+".json")); err != nil || there != nil {
			return refuse(`"` + words[2] + `" isn't an item`)
		}
		if fault == "short" {
			data = data[:len(data)/2]
		}
		os.Stdout.Write(data)
		return 0
	}
	return refuse("unknown command")
}

func show(v any) int {
	out, _ := json.MarshalIndent(v, "", "  ")
	fmt.Println(string(out))
	return 0
}

func (s standin) items() []item {
	files, _ := filepath.Glob(filepath.Join(s.dir, "*.json"))
	sort.Strings(files)
	items := []item{}
	for _, f := range files {
		var i item
		if data, err := os.ReadFile(f); err == nil && json.Unmarshal(data, &i) == nil {
			items = append(items, i)
		}
	}
	return items
}

// add makes a document.
func (s standin) add(title string, tags []string, data []byte) {
	n := 1
	for ; ; n++ { // Numbers are not used again.
		if _, err := os.Stat(filepath.Join(s.dir, strconv.Itoa(n)+".data")); err != nil {
			break
		}
	}
	now := time.Date(2026, 11, 26, 12, 0, n, 0, time.UTC)
	i := item{"id" + strconv.Itoa(n), title, tags, 1, private, "DOCUMENT", now, now}
	out, _ := json.Marshal(i)
	base := filepath.Join(s.dir, strconv.Itoa(n))
	os.WriteFile(base+".data", data, 0o600)
	os.WriteFile(base+".json", out, 0o600)
}
