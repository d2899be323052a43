package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The commands that a document tells a person to type are run, in this way.
//
// A fenced block after the comment <!-- run --> is given to bash (-eu, pipefail) on a
// terminal:
//
//	<!-- run -->
//	```console
//	$ age -d -i slots/recovery-code-*.age items/keys/*.age
//	words: …
//	```
//
// In a "console" block the lines that begin with "$ " are the commands, with a
// backslash at the end where one goes on in the next line. The other lines are what
// the commands print: each must be found in the real output, in this order. Lines
// in between may be left out; a line … or ... says so to the reader. A piece with a
// digit in it (address, code, date, size) stands for any piece with a digit,
// and white space and home directories do not matter. In a block of any other
// kind, such as "sh", every line is a command.
//
// The blocks of a document run one after the other. Each begins where the one
// before ended, and the first one where documents says. The comment may say more:
//
//	<!-- run in=home -->        begins in home, backup (the backup's folder) or repo
//	<!-- run exit=12 -->        the last command ends with this code
//	<!-- run type=1,code,y -->  what is typed at the questions, in this order
//
// Of what is typed, code stands for the recovery code that was printed last,
// passphrase and words for those of the prepared wallet, same for what was typed
// before; anything else is typed as it is, nothing is Enter. Without type= a question
// for a recovery code or a passphrase is answered, and any other is an error.
//
// Names such as https://guard-ann.example stand for key servers: a real one is started
// on this machine for each name.
//
// No command may escape: a fenced or indented block that begins like one, without
// the comment, is an error. What cannot be run here says why:
//
//	<!-- not run: needs a drive -->
var documents = []struct {
	file     string
	prepared bool // There is a backup already, and the device that made it is lost.
	in       string
}{
	{"../README.md", false, "home"},
	{"../docs/recovery.md", true, "backup"},
	{"../docs/operations.md", false, "home"},
	{"../docs/providers.md", false, "home"},
	{"../docs/alarms.md", false, "home"},
}

func TestDocuments(t *testing.T) {
	for _, d := range documents {
		t.Run(filepath.Base(d.file), func(t *testing.T) {
			text, err := os.ReadFile(d.file)
			if err != nil {
				t.Fatal(err)
			}
			blocks, err := parseBlocks(string(text))
			if err != nil {
				t.Fatal(err)
			}
			if len(blocks) == 0 {
				t.Fatal("no block is marked with <!-- run -->")
			}
			r := newReader(t, d.prepared)
			r.dir = r.place(t, d.in)
			for _, b := range blocks {
				if err := r.run(t, b); err != nil {
					t.Errorf("%s:%d: %v", d.file, b.line, err)
				}
			}
		})
	}
}

// A block is what a document has after a comment <!-- run -->.
type block struct {
	line     int
	commands []string
	output   []string // that is expected
	in       string
	exit     int
	typed    []string
	asks     bool // typed was given
}

var (
	runComment    = regexp.MustCompile(`^<!-- run\b(.*)-->$`)
	notRunComment = regexp.MustCompile(`^<!-- not run: .+ -->$`)
	commandLine   = regexp.MustCompile(`^(    |\t)?(\$ )?(satchel|age|go|cd|ls|rclone|electrum|bitcoin-cli|npm|node)( [-a-z./~"$]|$)`)
)

func parseBlocks(text string) ([]block, error) {
	var blocks []block
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		match := runComment.FindStringSubmatch(strings.TrimSpace(lines[i]))
		if match == nil {
			end, err := passBlock(lines, i)
			if err != nil {
				return nil, err
			}
			i = end
			continue
		}
		b := block{line: i + 1}
		for _, option := range strings.Fields(match[1]) {
			name, value, _ := strings.Cut(option, "=")
			switch name {
			case "in":
				b.in = value
			case "exit":
				code, err := strconv.Atoi(value)
				if err != nil {
					return nil, fmt.Errorf("line %d: %w", i+1, err)
				}
				b.exit = code
			case "type":
				b.typed, b.asks = strings.Split(value, ","), true
			default:
				return nil, fmt.Errorf("line %d: unknown option %q", i+1, name)
			}
		}
		i++
		kind, ok := strings.CutPrefix(lines[min(i, len(lines)-1)], "```")
		if !ok {
			return nil, fmt.Errorf("line %d: a fenced block must follow the comment", i)
		}
		goesOn := false
		for i++; ; i++ {
			if i == len(lines) {
				return nil, fmt.Errorf("line %d: the block has no end", b.line)
			}
			if lines[i] == "```" {
				break
			}
			command, isCommand := strings.CutPrefix(lines[i], "$ ")
			switch {
			case goesOn:
				command = strings.TrimPrefix(lines[i], "> ")
				b.commands[len(b.commands)-1] += "\n" + command
			case kind != "console":
				command = lines[i]
				b.commands = append(b.commands, command)
			case isCommand:
				b.commands = append(b.commands, command)
			default:
				command = ""
				b.output = append(b.output, lines[i])
			}
			goesOn = strings.HasSuffix(command, "\\")
		}
		if len(b.commands) == 0 {
			return nil, fmt.Errorf("line %d: the block has no commands", b.line)
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}

// passBlock looks at a line that is not marked and passes a block that begins there.
// It returns the last line it looked at.
func passBlock(lines []string, i int) (int, error) {
	escapes := func(from, to int) error {
		for n, l := range lines[from:to] {
			if commandLine.MatchString(l) {
				return fmt.Errorf("line %d: a command that no test runs: put <!-- run -->, or <!-- not run: why -->, before its block", from+n+1)
			}
		}
		return nil
	}
	// The comment stands right before a fence, or before an indented block and the
	// empty line that this needs.
	excused := i > 0 && notRunComment.MatchString(lines[i-1]) || i > 1 && lines[i-1] == "" && notRunComment.MatchString(lines[i-2])
	end := i
	switch kind, fenced := strings.CutPrefix(lines[i], "```"); {
	case fenced:
		for end++; end < len(lines) && lines[end] != "```"; end++ {
		}
		if excused || kind != "console" && kind != "sh" && kind != "" {
			return end, nil
		}
		return end, escapes(i+1, min(end, len(lines)))
	case strings.HasPrefix(lines[i], "    "):
		for end+1 < len(lines) && strings.HasPrefix(lines[end+1], "    ") {
			end++
		}
		if excused {
			return end, nil
		}
		return end, escapes(i, end+1)
	}
	return i, nil
}

// A reader follows a document on a machine of their own.
type reader struct {
	machine
	dir   string            // where they are
	code  string            // the last recovery code they saw
	guard map[string]string // addresses of the key servers, by the name that the document gives them
	words string            // of the prepared wallet
}

// newReader makes a reader who has a cloud folder, or also a backup in it, with
// several items, a recovery code and a passphrase, and has lost the device.
func newReader(t *testing.T, prepared bool) *reader {
	t.Helper()
	r := &reader{machine: newMachine(t)}
	r.newPlace(t)
	if !prepared {
		return r
	}
	w := r.create(t, "create", "mainnet", nil)
	w.satchel(t, []string{w.code, passphrase}, "slot", "add", "passphrase", "--secret-fd", "3", "--new-secret-fd", "4")
	w.write(t, "notes.txt", bytes.Repeat([]byte("The key is under the mat.\n"), 200))
	w.satchel(t, nil, "backup", "notes.txt")
	w.write(t, "labels.jsonl", []byte(`{"type":"addr","ref":"`+firstOf(t, w.firsts(t), "bip84", false)[0]+`","label":"Rent"}`+"\n"))
	w.satchel(t, nil, "put", "labels", "labels.jsonl")
	r.code, r.words = w.code, w.words(t)

	entries, err := os.ReadDir(r.home)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if path := filepath.Join(r.home, e.Name()); path != filepath.Dir(w.folder) {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	return r
}

// place is a directory by the name that a comment gives it.
func (r *reader) place(t *testing.T, name string) string {
	t.Helper()
	switch name {
	case "home":
		return r.home
	case "backup":
		found, _ := filepath.Glob(filepath.Join(r.home, "*", "BitcoinWalletBackup-*"))
		var names []string
		for _, f := range found {
			names = append(names, filepath.Base(f))
		}
		if len(slices.Compact(names)) == 1 { // In several places it is the same.
			return found[0]
		}
	case "repo":
		repo, err := filepath.Abs("..")
		if err != nil {
			t.Fatal(err)
		}
		return repo
	}
	t.Fatalf("no such place: %s", name)
	return ""
}

func (r *reader) run(t *testing.T, b block) error {
	t.Helper()
	if b.in != "" {
		r.dir = r.place(t, b.in)
	}
	// Where the reader is afterwards is told on a descriptor of its own.
	pwd, err := os.Create(filepath.Join(t.TempDir(), "pwd"))
	if err != nil {
		t.Fatal(err)
	}
	defer pwd.Close()
	commands := guardName.ReplaceAllStringFunc(strings.Join(b.commands, "\n"), func(name string) string {
		if r.guard[name] == "" {
			buildKeyServer(t)
			if r.guard == nil {
				r.guard = map[string]string{}
			}
			r.guard[name] = startKeyServer(t).name
		}
		return r.guard[name]
	})
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", "trap 'pwd >&3' EXIT\n"+commands)
	cmd.Dir, cmd.Env, cmd.ExtraFiles = r.dir, r.env(), []*os.File{pwd}
	typed, before := b.typed, ""
	screen, err := onTerminal(t, cmd, func(prompt string) (string, error) {
		word := ""
		switch lower := strings.ToLower(prompt); {
		case b.asks && len(typed) > 0:
			word, typed = typed[0], typed[1:]
		case b.asks:
			return "", errors.New("nothing is left to type")
		case strings.Contains(lower, "recovery-code"), strings.Contains(lower, "recovery code"):
			word = "code"
		case strings.Contains(lower, "passphrase"):
			word = "passphrase"
		default:
			return "", errors.New("the comment does not say what to type")
		}
		switch word {
		case "code":
			before = r.code
		case "passphrase":
			before = passphrase
		case "words":
			before = r.words
		case "same":
		default:
			before = word
		}
		return before, nil
	})
	for name, address := range r.guard {
		screen = strings.ReplaceAll(screen, address, name)
	}
	if codes := codeForm.FindAllString(screen, -1); len(codes) > 0 {
		r.code = codes[len(codes)-1]
	}
	if to, readErr := os.ReadFile(pwd.Name()); readErr == nil && len(to) > 0 {
		r.dir = strings.TrimSuffix(string(to), "\n")
	}
	exit := 0
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		exit = ended.ExitCode()
	} else if err != nil {
		return fmt.Errorf("%w\n%s", err, screen)
	}
	switch {
	case exit != b.exit:
		return fmt.Errorf("got exit code %d, want %d\n%s", exit, b.exit, screen)
	case len(typed) > 0:
		return fmt.Errorf("nobody asked for %q\n%s", typed, screen)
	}
	if missing, ok := r.missing(b.output, screen); ok {
		return fmt.Errorf("this line is not in what was printed, or not in this order:\n%s\n\nprinted:\n%s", missing, screen)
	}
	return nil
}

// missing returns the first expected line that the screen does not have after
// those before it.
func (r *reader) missing(want []string, screen string) (string, bool) {
	got := strings.Split(strings.ReplaceAll(screen, r.home, "~"), "\n")
	for _, w := range want {
		form := normal(w)
		if form == "" || form == "…" || form == "..." {
			continue
		}
		for len(got) > 0 && normal(got[0]) != form {
			got = got[1:]
		}
		if len(got) == 0 {
			return w, true
		}
		got = got[1:]
	}
	return "", false
}

var (
	guardName  = regexp.MustCompile(`https://guard-[a-z]+\.example`)
	homes      = regexp.MustCompile(`/(home|Users)/\w+`)
	changing   = regexp.MustCompile(`-[0-9a-f]{4}\b|\b[0-9a-f]{8}\b`) // a digit is only likely in these
	withDigits = regexp.MustCompile(`\S*\d\S*`)
)

// normal is a line without what is different every time.
func normal(line string) string {
	line = changing.ReplaceAllString(homes.ReplaceAllString(line, "~"), "-0")
	return strings.Join(strings.Fields(withDigits.ReplaceAllString(line, "0")), " ")
}

// The extractor itself: what it takes and what it finds wrong.
func TestExtractor(t *testing.T) {
	fence := "```"
	document := "# Title\n\n<!-- not run: it fails -->\n" + fence + "console\n$ satchel nonsense\n" + fence + "\n\n    satchel-keys: 1\n\n" +
		"<!-- run -->\n" + fence + "console\n$ mkdir a\n$ cd a; printf '%s\\n' one \\\n    two 33-x; pwd\none\n…\n7   \n/home/bob/a\n" + fence + "\n" +
		"<!-- run exit=3 type=yes,,same,code -->\n" + fence + "sh\n" +
		"[ \"$(basename \"$PWD\")\" = a ]\nread -r -p 'Sure? ' a; read -r -p 'Name: ' b; read -r -p 'Once more: ' c\n" +
		"echo 7kkk-7kkk-7kkk-7kkk-7kkk-7kkk-7kkk-7kkk-7kk8; exit $((${#a} + ${#b} + ${#c}))\n" + fence + "\n" +
		"<!-- run -->\n" + fence + "console\n$ read -rs -p 'Recovery code (not shown): ' code; echo; echo \"got ${code:0:4}\"\ngot 7kkk\n" + fence + "\n" +
		"<!-- run -->\n" + fence + "console\n$ echo one; echo two\ntwo\none\n" + fence + "\n"
	blocks, err := parseBlocks(document)
	if err != nil {
		t.Fatal(err)
	}
	if len(blocks) != 4 {
		t.Fatalf("got %d blocks, want 4", len(blocks))
	}
	r := newReader(t, false)
	r.dir = r.home
	if err := r.run(t, blocks[0]); err != nil {
		t.Error(err)
	}
	// One word too many for the questions.
	if err := r.run(t, blocks[1]); err == nil || !strings.Contains(err.Error(), `nobody asked for ["code"]`) {
		t.Errorf("got %v", err)
	}
	if err := r.run(t, blocks[2]); err != nil {
		t.Error(err)
	}
	if err := r.run(t, blocks[3]); err == nil || !strings.Contains(err.Error(), "not in this order:\none") {
		t.Errorf("got %v", err)
	}
	for _, bad := range []string{
		"<!-- run -->\ntext\n",
		"<!-- run -->",
		"<!-- run -->\n" + fence + "console\n$ true\n",
		"<!-- run -->\n" + fence + "console\nonly output\n" + fence + "\n",
		"<!-- run at=home -->\n" + fence + "sh\ntrue\n" + fence + "\n",
		fence + "console\n$ satchel status\n" + fence + "\n",
		fence + "\nage -d -i slots/x items/y\n" + fence + "\n",
		"Then:\n\n    cd there\n    satchel status\n",
	} {
		if _, err := parseBlocks(bad); err == nil {
			t.Errorf("taken: %q", bad)
		}
	}
}
