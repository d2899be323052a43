package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The way out of docs/recovery.md that needs a PIN, key servers and the plugin, and no
// Satchel.
const (
	pinWords = `age -d -j satchel slots/pin-*.age | age -d -i - items/keys/*.age`
	pinKey   = `age -d -j satchel slots/pin-*.age >~/key.txt`
	keyWords = `age -d -i ~/key.txt items/keys/*.age`
	keyList  = `age -d -i ~/key.txt "$(ls snapshots/*.age | tail -n 1)"`
)

// The stock age command opens a PIN slot through age-plugin-satchel, a wrong PIN costs one
// guess, one of three key servers may be away, and none is asked before the user said so.
func TestStockAgePIN(t *testing.T) {
	text, err := os.ReadFile("../docs/recovery.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{pinWords, pinKey, keyWords, keyList} {
		if !strings.Contains(string(text), "\n$ "+c+"\n") {
			t.Errorf("docs/recovery.md does not have the command %s", c)
		}
	}
	pinned := filepath.Join(t.TempDir(), "pinned")
	for to, from := range map[string]string{
		pinned:                                   "./e2e/testdata/pinned/main.go",
		filepath.Join(bin, "age-plugin-satchel"): "./cmd/age-plugin-satchel",
	} {
		if out, err := exec.Command("go", "-C", "..", "build", "-o", to, from).CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", from, err, out)
		}
	}
	buildKeyServer(t)
	var servers []*keyServer
	var names []string
	for range 3 {
		s := startKeyServer(t)
		servers, names = append(servers, s), append(names, s.name)
	}
	const pin = "402917"
	m := newMachine(t)
	made := exec.Command(pinned, append([]string{m.newPlace(t), pin}, names...)...)
	made.Env = m.env()
	out, err := made.Output()
	if err != nil {
		t.Fatalf("making the backup: %v", err)
	}
	words := strings.TrimSpace(string(out))
	found, _ := filepath.Glob(filepath.Join(m.home, "Nextcloud", "BitcoinWalletBackup-*"))
	if len(found) != 1 || len(strings.Fields(words)) != 12 {
		t.Fatalf("got folders %q and %d words", found, len(strings.Fields(words)))
	}
	// open runs a command in the backup's folder and answers what is asked in it.
	open := func(command, key, pin string) (text []byte, screen string, err error) {
		cmd := exec.Command("bash", "-euo", "pipefail", "-c", command)
		cmd.Dir, cmd.Env = found[0], m.env()
		var stdout bytes.Buffer
		cmd.Stdout = &stdout
		screen, err = onTerminal(t, cmd, func(prompt string) (string, error) {
			switch {
			case strings.Contains(prompt, "names the key servers "+strings.Join(names, ", ")+": ask them?"):
				return key, nil
			case strings.HasSuffix(strings.TrimSpace(prompt), "PIN:") && pin != "":
				return pin, nil
			}
			return "", errors.New("nobody should ask that")
		})
		return stdout.Bytes(), screen, err
	}

	t.Run("words", func(t *testing.T) {
		text, screen, err := open(pinWords, "1", pin)
		if err != nil {
			t.Fatalf("%v\n%s", err, screen)
		}
		if got := member(t, text, "words"); got != words {
			t.Error("the words are not those of the wallet")
		}
		if !strings.Contains(screen, "guesses left: 5") {
			t.Errorf("the guesses are not shown:\n%s", screen)
		}
	})
	t.Run("key file", func(t *testing.T) {
		text, screen, err := open("umask 077\n"+pinKey+"\n"+keyWords+"\n"+keyList+"\nrm ~/key.txt", "1", pin)
		if err != nil {
			t.Fatalf("%v\n%s", err, screen)
		}
		if got := member(t, text, "words"); got != words {
			t.Error("the words are not those of the wallet")
		}
		if !bytes.Contains(text, []byte(`{"satchel-snapshot":1,`)) {
			t.Error("no snapshot was printed")
		}
	})
	t.Run("wrong PIN", func(t *testing.T) {
		text, screen, err := open(pinWords, "1", "402971")
		if err == nil || len(text) > 0 || !strings.Contains(screen, "wrong PIN, nothing was opened: 4 guesses left") {
			t.Errorf("got %d bytes, %v\n%s", len(text), err, screen)
		}
		// The guess comes back with the right one, and is told of.
		text, screen, err = open(pinWords, "1", pin)
		if err != nil || member(t, text, "words") != words || !strings.Contains(screen, "wrong guesses since the last success: 1") {
			t.Errorf("%v\n%s", err, screen)
		}
	})
	t.Run("declined", func(t *testing.T) {
		var before, after []string
		for _, s := range servers {
			before = append(before, s.answers(t)...)
		}
		text, screen, err := open(pinWords, "2", "")
		if err == nil || len(text) > 0 || !strings.Contains(screen, "the key servers were not asked") {
			t.Errorf("got %d bytes, %v\n%s", len(text), err, screen)
		}
		for _, s := range servers {
			after = append(after, s.answers(t)...)
		}
		if len(before) == 0 || !slices.Equal(before, after) {
			t.Errorf("the key servers were asked: before %q, after %q", before, after)
		}
	})
	t.Run("servers away", func(t *testing.T) {
		servers[0].stop()
		text, screen, err := open(pinWords, "1", pin)
		if err != nil || member(t, text, "words") != words {
			t.Errorf("one of three is away: %v\n%s", err, screen)
		}
		if !strings.Contains(screen, "key server "+names[0]+" was not told") {
			t.Errorf("it is not said which is away:\n%s", screen)
		}
		servers[1].stop()
		text, screen, err = open(pinWords, "1", pin)
		if err == nil || len(text) > 0 || !strings.Contains(screen, "1 of 3 key servers can be used, 2 are needed") {
			t.Errorf("two of three are away: got %d bytes, %v\n%s", len(text), err, screen)
		}
	})
}

// keyServer is a process of satchel-keyserver with a database of its own.
type keyServer struct {
	name, admin string
	stop        func()
}

var servingLine = regexp.MustCompile(`msg=serving .*\blisten=(\S+) .*\badmin=(\S+)`)

func buildKeyServer(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("go", "-C", "..", "build", "-o", filepath.Join(bin, "satchel-keyserver"), "./cmd/satchel-keyserver").CombinedOutput(); err != nil {
		t.Fatalf("building satchel-keyserver: %v\n%s", err, out)
	}
}

func startKeyServer(t *testing.T) *keyServer {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "satchel-keyserver"), "serve", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &keyServer{}
	ended := make(chan struct{})
	s.stop = func() {
		cmd.Process.Kill()
		<-ended
	}
	t.Cleanup(s.stop)
	serving := make(chan []string, 1)
	go func() {
		defer close(ended)
		var all strings.Builder
		for lines := bufio.NewScanner(log); lines.Scan(); {
			all.WriteString(lines.Text() + "\n")
			if m := servingLine.FindStringSubmatch(lines.Text()); m != nil {
				serving <- m
			}
		}
		cmd.Wait()
		serving <- []string{all.String()}
	}()
	select {
	case m := <-serving:
		if len(m) != 3 {
			t.Fatalf("the key server ended:\n%s", m[0])
		}
		s.name, s.admin = "http://"+m[1], "http://"+m[2]
	case <-time.After(terminalLimit):
		t.Fatal("the key server does not serve")
	}
	return s
}

// answers is what the server counts of its answers.
func (s *keyServer) answers(t *testing.T) (counts []string) {
	t.Helper()
	resp, err := http.Get(s.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "answers_total") && !strings.HasPrefix(line, "#") {
			counts = append(counts, line)
		}
	}
	return counts
}
