//go:build unix

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/satchel-backup/satchel/internal/durable"
)

// person is somebody at a terminal who runs satchel.
type person struct {
	t    *testing.T
	dir  string
	more []string // of the environment
	tty  *os.File
	cmd  *exec.Cmd
	done chan struct{} // closed when the screen has all that there is

	mu     sync.Mutex
	screen strings.Builder
	seen   int // up to where expect has read
}

// newPerson has a home with a Dropbox in it, and no wallet.
func newPerson(t *testing.T) *person {
	dir := t.TempDir()
	for _, d := range []string{"Dropbox", ".dropbox", "elsewhere"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	info := fmt.Sprintf(`{"personal":{"path":%q}}`, filepath.Join(dir, "Dropbox"))
	if err := os.WriteFile(filepath.Join(dir, ".dropbox", "info.json"), []byte(info), 0o600); err != nil {
		t.Fatal(err)
	}
	return &person{t: t, dir: dir}
}

// run starts satchel on a terminal of its own.
func (p *person) run(args ...string) {
	p.t.Helper()
	path, err := exec.LookPath("satchel") // testscript.Main puts it there
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.CommandContext(p.t.Context(), path, args...)
	p.cmd.Env = p.env()
	p.tty, err = pty.StartWithSize(p.cmd, &pty.Winsize{Rows: 40, Cols: 80})
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	p.screen.Reset()
	p.seen = 0
	p.mu.Unlock()
	p.done = make(chan struct{})
	go func() {
		defer close(p.done)
		buf := make([]byte, 4096)
		for {
			n, err := p.tty.Read(buf)
			p.mu.Lock()
			p.screen.Write(buf[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	p.t.Cleanup(func() { p.tty.Close() })
}

func (p *person) env() []string {
	return append([]string{"HOME=" + p.dir, "SATCHEL_HOME=" + filepath.Join(p.dir, "device"), "SATCHEL_KEYCHAIN=file", "TERM=xterm", "NO_COLOR=1", "PATH=" + os.Getenv("PATH")}, p.more...)
}

// expect waits until the screen shows what matches, after what was expected
// before, and returns the match and its groups.
func (p *person) expect(pattern string) []string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.Now().Add(2 * time.Minute) // scrypt under the race detector
	for {
		p.mu.Lock()
		text := p.screen.String()[p.seen:]
		at := re.FindStringSubmatchIndex(text)
		if at != nil {
			p.seen += at[1]
		}
		p.mu.Unlock()
		if at != nil {
			return re.FindStringSubmatch(text)
		}
		ended := false
		select {
		case <-p.done:
			ended = true
		case <-time.After(5 * time.Millisecond):
		}
		if ended && !re.MatchString(p.shown()) || time.Now().After(deadline) {
			p.t.Fatalf("the screen does not show %q:\n%s", pattern, p.shown())
		}
	}
}

func (p *person) shown() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.screen.String()
}

// answer types a line once the screen shows the question.
func (p *person) answer(question, line string) {
	p.t.Helper()
	p.expect(question)
	p.typed(line + "\n")
}

func (p *person) typed(keys string) {
	p.t.Helper()
	// A person sees the echo go before they type a secret; so does this one.
	time.Sleep(20 * time.Millisecond)
	if _, err := p.tty.WriteString(keys); err != nil {
		p.t.Fatal(err)
	}
}

// ends waits for the end and returns all that was on the screen.
func (p *person) ends(code int) string {
	p.t.Helper()
	<-p.done
	err := p.cmd.Wait()
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else if err != nil {
		p.t.Fatal(err)
	}
	if got != code {
		p.t.Fatalf("exit code %d, want %d:\n%s", got, code, p.shown())
	}
	return p.shown()
}

// A newcomer's first five minutes: satchel alone, create, forget, restore.
func TestNewcomer(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	p.run()
	p.expect("1  Create a wallet")
	p.expect("2  Restore a wallet")
	p.answer(`Number \[1\]: `, "")
	p.expect("You own it")
	p.expect("How you get it back")
	p.expect("How it is protected")
	p.expect("everyday amounts")
	p.expect("Where shall the encrypted backup be kept")
	p.expect("1  Dropbox")
	p.answer(`Number \[1\]: `, "7")
	p.answer(`from 1 to 2(?s:.*)Number \[1\]: `, "1")
	p.expect("How do you want to open it again")
	p.answer(`Number \[1\]: `, "")
	// The code is in their hands before there is anything that only it opens.
	code := p.expect(`((?:[0-9a-z]{4}-){8}[0-9a-z]{4})`)[1]
	p.answer("Type its last group to be sure, or press Enter", "nope")
	p.expect("not the last group(?s:.*)press Enter")
	if _, err := os.Stat(filepath.Join(p.dir, "device", "wallets")); err == nil {
		t.Error("something was made before the code was written down")
	}
	p.typed(code[len(code)-4:] + "\n")
	fingerprint := p.expect(`Fingerprint +([0-9a-f]{8})`)[1]
	address := p.expect(`First address +(bc1q\w+)`)[1]
	p.expect("Protected +yes, since 20")
	p.ends(0)

	p.run()
	p.expect("fingerprint " + fingerprint)
	p.expect("Protected: generation 1")
	p.ends(0)

	p.run("drill")
	p.answer(`Recovery code \(not shown\): `, code)
	p.expect("All is well")
	if screen := p.ends(0); strings.Contains(screen, code) {
		t.Error("a secret was echoed")
	}

	// R20, and the name must be typed.
	p.run("forget")
	p.expect("stays in:")
	p.answer("Type the name of the wallet", "no")
	p.ends(1)
	p.run("forget")
	p.answer("Type the name of the wallet", "Wallet")
	p.expect("Forgotten on this device")
	p.ends(0)

	// Back again, with a mistyped code first.
	p.run()
	p.answer(`Number \[1\]: `, "2")
	p.expect("There is 1 backup")
	p.expect("generation 1, fingerprint sealed")
	p.expect("opens with a recovery code")
	p.answer("Open this one", "y")
	wrong := "0000" + code[4:]
	if strings.HasPrefix(code, "0000") {
		wrong = "1111" + code[4:]
	}
	p.answer(`Recovery code \(not shown\): `, wrong)
	p.answer(`did not open it(?s:.*)Recovery code \(not shown\): `, strings.ToUpper(strings.ReplaceAll(code, "-", " ")))
	p.expect("Fingerprint +" + fingerprint)
	p.answer("Restore this wallet to this device", "")
	p.expect("Restored")
	p.expect(address)
	p.expect("Compared +yes")
	p.ends(0)

	// R3: creating where a backup of another device is offers to restore it first.
	if err := os.RemoveAll(filepath.Join(p.dir, "device")); err != nil {
		t.Fatal(err)
	}
	p.run("create")
	p.answer(`Number \[1\]: `, "1")
	p.expect("there is 1 backup here already")
	p.answer(`1  Restore a wallet(?s:.*)Number \[1\]: `, "")
	p.answer("Open this one", "")
	p.answer(`Recovery code \(not shown\): `, code)
	p.answer("Restore this wallet to this device", "y")
	p.expect("Fingerprint +" + fingerprint)
	p.ends(0)

	// Words are shown to a person who says so, and to nobody else.
	p.run("export", "words")
	p.answer("Show them", "n")
	p.expect("nothing was done")
	p.ends(1)
	p.run("export", "words")
	p.answer("Show them", "y")
	p.expect(`1  [a-z]+ +5  [a-z]+ +9  [a-z]+`)
	p.expect("m/84h/0h/0h")
	p.ends(0)
	p.run("get", "keys")
	p.answer("Go on", "")
	if screen := p.ends(1); strings.Contains(screen, "words:") {
		t.Error("keys were shown without a yes")
	}
}

// A passphrase of one's own: weak ones are refused with a reason, and both
// must be the same.
func TestOwnPassphrase(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	p.run("create", "--new", "--label", "Margarethe")
	p.answer(`Number \[1\]: `, "2")
	p.answer("Path or address: ", "~/nowhere/at all")
	p.expect("That did not work: there is no folder")
	p.answer(`Number \[1\]: `, "2")
	p.answer("Path or address: ", "~/elsewhere")
	p.answer(`Number \[1\]: `, "2")
	p.answer(`New passphrase \(not shown\): `, "margarethe1234")
	p.expect("Not this one: ")
	p.expect("Better: ")
	const good = "gravel umbrella sextant walnut 93"
	p.answer(`New passphrase \(not shown\): `, good)
	p.expect(`Strength: about \d+ bits`)
	p.answer(`The same again: `, good+"x")
	p.answer(`The two differ(?s:.*)New passphrase \(not shown\): `, good)
	p.answer(`The same again: `, good)
	p.expect("Backup +folder:" + regexp.QuoteMeta(filepath.Join(p.dir, "elsewhere")))
	p.expect("Protected +yes")
	if screen := p.ends(0); strings.Contains(screen, "gravel") {
		t.Error("the passphrase was echoed")
	}
}

// Words that are typed: a wrong one is marked by its number and typed again
// alone, and four letters are enough.
func TestTypedWords(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	p.run("import", "--new", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code")
	p.answer(`Words \(not shown\): `, "aban aban abandonx abandon abandon abandon abandon abandon abandon abandon abandon")
	p.answer(`Not yet: (?s:.*)Words \(not shown\): `, "aban aban abandonx abandon abandon abandon abandon abandon abandon abandon abandon abou")
	p.answer(`Word 3 again \(not shown\): `, "abandon")
	p.expect("fingerprint 73c5da0a")
	p.answer("press Enter", "")
	p.expect("bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu")
	screen := p.ends(0)
	if strings.Contains(screen, "aban") {
		t.Error("words were echoed")
	}
}

// R6: with no backup in sight it says where it looked and asks for another
// folder. A wallet that is lost is never answered by an offer to make one.
func TestNothingFound(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	dir := filepath.Join(p.dir, "Dropbox")
	if err := os.WriteFile(filepath.Join(dir, "photo.jpg"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.run("restore")
	p.expect("no backup found")
	p.expect("Dropbox")
	p.answer(`Another folder or address to look in \(Enter to stop\): `, "~/elsewhere")
	p.expect("No backup there: the folder") // it is empty, as a drive that is not mounted would be
	p.answer(`Another folder or address to look in \(Enter to stop\): `, "")
	if screen := p.ends(27); strings.Contains(screen, "create") {
		t.Error("it offers to create a wallet")
	}
}

// Ctrl-C at a question ends the command with 130, leaves nothing behind, and the
// terminal as it was.
func TestCtrlC(t *testing.T) {
	for _, args := range [][]string{
		{}, {"create"}, {"restore"},
		{"create", "--new", "--in", "elsewhere", "--unlock", "passphrase"},
		{"create", "--new", "--in", "elsewhere", "--unlock", "recovery-code"}, // while the code is shown
	} {
		p := newPerson(t)
		for i, arg := range args {
			if arg == "elsewhere" {
				args[i] = filepath.Join(p.dir, arg)
			}
		}
		p.run(args...)
		p.expect(`: $`)
		p.typed("\x03")
		p.ends(130)
		if _, err := os.Stat(filepath.Join(p.dir, "device", "wallets")); err == nil {
			t.Errorf("%v: something was made", args)
		}
	}
}

// Ctrl-D is no answer: it ends the command as Ctrl-C does, and it is said.
func TestCtrlD(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	p.run("create", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code")
	p.answer("press Enter", "")
	p.ends(0)
	p.run("words", "verify")
	p.answer(`Word \d+ of 12: $`, "abandon")
	p.expect(`Word \d+ of 12: $`)
	p.typed("\x04")
	p.expect("satchel: ended: no answer was given")
	if strings.Contains(p.shown(), "abandon") {
		t.Errorf("a word is shown:\n%s", p.shown())
	}
	p.ends(130)
	p.run("get", "keys") // a question with an echo
	p.expect(`\[y/N\] $`)
	p.typed("\x04")
	p.expect("satchel: ended: no answer was given")
	p.ends(130)
}

// With --json nobody is asked, terminal or not.
func TestJSONNeverAsks(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	p.run("create", "--json")
	p.expect(`"code":2`)
	p.ends(2)
}

// beside prepares satchel beside the terminal, with its output.
func (p *person) beside(args ...string) (*exec.Cmd, *bytes.Buffer, io.Reader) {
	p.t.Helper()
	path, err := exec.LookPath("satchel")
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.CommandContext(p.t.Context(), path, args...)
	cmd.Env = p.env()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal
	var out bytes.Buffer
	cmd.Stdout = &out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	return cmd, &out, stderr
}

// A wallet that another satchel has open is waited for.
func TestWaitsForAnother(t *testing.T) {
	p := newPerson(t)
	p.run("create", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code")
	p.answer("press Enter", "")
	p.ends(0)

	// A question holds nobody up.
	p.run("get", "keys")
	p.expect("Go on")
	cmd, out, _ := p.beside("status")
	if err := cmd.Run(); err != nil || !strings.Contains(out.String(), "Protected: ") {
		t.Errorf("beside a question: got %v and %q", err, out)
	}
	p.typed("n\n")
	p.ends(1)

	locks, err := filepath.Glob(filepath.Join(p.dir, "device", "wallets", "*", "lock"))
	if err != nil || len(locks) != 1 {
		t.Fatal(locks, err)
	}
	lock, err := durable.Disk{}.Lock(locks[0])
	if err != nil {
		t.Fatal(err)
	}
	cmd, out, stderr := p.beside("status")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stderr).ReadString('\n')
	if err != nil || line != "satchel: waiting for another satchel\n" {
		t.Errorf("got %q, %v", line, err)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "Protected: ") {
		t.Errorf("got %v and %q", err, out)
	}

	// An agent is named.
	if err := os.MkdirAll(filepath.Join(p.dir, "device", "agent"), 0o700); err != nil {
		t.Fatal(err)
	}
	agent, err := durable.Disk{}.Lock(filepath.Join(p.dir, "device", "agent", "run.lock"))
	if err != nil {
		t.Fatal(err)
	}
	if lock, err = (durable.Disk{}).Lock(locks[0]); err != nil {
		t.Fatal(err)
	}
	cmd, _, stderr = p.beside("items")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err = bufio.NewReader(stderr).ReadString('\n')
	if err != nil || line != "satchel: waiting: the agent is saving this wallet\n" {
		t.Errorf("got %q, %v", line, err)
	}
	if err := errors.Join(lock.Unlock(), agent.Unlock()); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it did not go on: %v", err)
	}

	// Waiting ends with the first signal.
	if lock, err = (durable.Disk{}).Lock(locks[0]); err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	cmd, _, stderr = p.beside("status")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(stderr).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	signalled(t, cmd, syscall.SIGTERM)
}

// signalled sends signals and expects an end with 130.
func signalled(t *testing.T, cmd *exec.Cmd, signals ...os.Signal) {
	t.Helper()
	for _, s := range signals {
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	err := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 130 {
		t.Errorf("%v: got %v, want exit code 130", signals, err)
	}
}

// The terminal goes away, or somebody ends the command: 130, also where it hangs
// in what knows nothing of an end, after a while or at the second signal. Words that
// nobody takes out of a full pipe hold nothing up.
func TestSignals(t *testing.T) {
	p := newPerson(t)
	p.run("create", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code")
	p.answer("press Enter", "")
	p.ends(0)
	// A program that was started to ignore SIGHUP, as by nohup, hands that on.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for _, c := range []struct {
		args    []string
		atOnce  bool // without grace
		signals []os.Signal
	}{
		{[]string{"export", "words", "--to-fd", "3"}, true, []os.Signal{syscall.SIGHUP}},
		{[]string{"export", "words", "--yes"}, true, []os.Signal{syscall.SIGTERM}},
		{[]string{"status"}, false, []os.Signal{syscall.SIGHUP}},
		{[]string{"status"}, true, []os.Signal{syscall.SIGTERM, syscall.SIGINT}},
	} {
		signals := c.signals
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		// With a pipe that is full the command hangs in writing.
		if err := w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = w.Write(make([]byte, 4096))
		}
		// Nothing tells when it hangs. If the signal came before the program was
		// ready for it, which a busy machine makes likely, it gets more time.
		for wait := 300 * time.Millisecond; ; wait *= 3 {
			cmd, _, _ := p.beside(c.args...)
			cmd.Stdout, cmd.ExtraFiles = w, []*os.File{w}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(wait)
			sent := time.Now()
			for _, s := range signals {
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
			}
			err := cmd.Wait()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if ok && exit.ExitCode() == 130 {
				if took := time.Since(sent); c.atOnce && took >= grace {
					t.Errorf("%v, %v: it took %v to end", c.args, signals, took)
				}
				break
			}
			if ok && exit.ExitCode() == -1 && wait < 10*time.Second {
				continue // Ended by the signal itself.
			}
			t.Errorf("%v, %v: got %v, want exit code 130", c.args, signals, err)
			break
		}
	}
}

// Nobody reads the result any more: no end by a signal in the middle of the work, an
// error where something is lost by it, and else the silence of "| head".
func TestClosedPipe(t *testing.T) {
	p := newPerson(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	cmd, _, stderr := p.beside("create", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code", "--json")
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(stderr)
	if err != nil || !strings.Contains(string(said), "was made, but nobody has the secret") {
		t.Errorf("got %q, %v", said, err)
	}
	if exit, ok := errors.AsType[*exec.ExitError](cmd.Wait()); !ok || exit.ExitCode() != 1 {
		t.Errorf("got %v, want exit code 1", exit)
	}
	for _, args := range [][]string{{"status"}, {"items", "--json"}, {"get", "descriptors"}, {"export", "descriptors"}, {"completion", "bash"}} {
		cmd, _, stderr := p.beside(args...)
		cmd.Stdout = w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if said, err := io.ReadAll(stderr); err != nil || len(said) > 0 {
			t.Errorf("%v: got %q, %v, want silence", args, said, err)
		}
		if exit, ok := errors.AsType[*exec.ExitError](cmd.Wait()); !ok || exit.ExitCode() != 141 {
			t.Errorf("%v: got %v, want exit code 141", args, exit)
		}
	}
}

// A wallet whose key is lost here is set aside only after a yes; Enter is a no.
func TestSetAsideAsks(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	p.run("create", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "passphrase")
	const good = "gravel umbrella sextant walnut 93"
	p.answer(`New passphrase \(not shown\): `, good)
	p.answer(`The same again: `, good)
	p.ends(0)
	if err := os.Rename(filepath.Join(p.dir, "device", "keychain"), filepath.Join(p.dir, "lost")); err != nil {
		t.Fatal(err)
	}
	p.run("restore", "--from", filepath.Join(p.dir, "elsewhere"))
	p.answer("Open this one", "")
	p.answer(`Passphrase \(not shown\): `, good)
	p.answer(`aside \(nothing is deleted\) and restore\? \[y/N\] `, "")
	p.ends(1)
	if _, err := os.Stat(filepath.Join(p.dir, "device", "set-aside")); err == nil {
		t.Error("it was set aside without a yes")
	}
}

// R19: a person types words back, takes them out of the cloud with a new code, and gives
// them again when the device is lost.
func TestGrowingUp(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	p.run("create", "--in", filepath.Join(p.dir, "Dropbox"), "--unlock", "recovery-code")
	code := p.expect(`((?:[0-9a-z]{4}-){8}[0-9a-z]{4})`)[1]
	p.answer("press Enter", "")
	p.ends(0)
	p.run("export", "words")
	p.answer("Show them", "y")
	p.expect("satchel words")
	var words []string
	for _, m := range regexp.MustCompile(`\d+  ([a-z]+)`).FindAllStringSubmatch(p.shown(), -1) {
		words = append(words, m[1])
	}
	p.ends(0)
	if len(words) != 12 {
		t.Fatalf("%d words on the screen", len(words))
	}
	// They stand in three columns of four.
	at := func(n int) string { return words[(n-1)%4*3+(n-1)/4] }

	verify := func(change string) {
		p.run("words", "verify")
		for range 4 {
			n, err := strconv.Atoi(p.expect(`Word (\d+) of 12: `)[1])
			if err != nil {
				t.Fatal(err)
			}
			p.typed(change + at(n) + "\n")
		}
	}
	verify("x")
	p.expect("nothing was recorded")
	p.ends(12)
	p.run("rekey", "--drop-keys")
	p.expect("satchel words verify")
	p.ends(1)
	verify("")
	p.expect("Right")
	if screen := p.ends(0); regexp.MustCompile(`of 12: [a-z]`).MatchString(screen) { // A word may be part of what is said.
		t.Errorf("a word was echoed:\n%s", screen)
	}

	p.run("rekey", "--drop-keys")
	p.expect("the words leave the cloud")
	p.expect("still open with the old secrets")
	p.answer("Go on", "n")
	p.ends(1)
	p.run("rekey", "--drop-keys")
	p.answer("Go on", "y")
	p.answer(`Recovery code \(not shown\): `, code)
	p.answer(`How do you want to open it again(?s:.*)Number \[1\]: `, "")
	code2 := p.expect(`((?:[0-9a-z]{4}-){8}[0-9a-z]{4})`)[1]
	p.expect("words: those you have on paper and on this device only")
	p.answer("press Enter", "")
	p.expect("Old backup +deleted")
	p.ends(0)

	p.run("history", "--open")
	p.answer(`Recovery code \(not shown\): `, code2)
	p.expect("changed: descriptors")
	p.ends(0)

	if err := os.RemoveAll(filepath.Join(p.dir, "device")); err != nil {
		t.Fatal(err)
	}
	p.run("restore")
	p.answer("Open this one", "y")
	p.answer(`Recovery code \(not shown\): `, code2)
	p.answer("Type them now", "y")
	p.answer(`Words \(not shown\): `, "abandon")
	p.expect("1 word was typed")
	p.answer(`Words \(not shown\): `, "") // The paper is not at hand after all.
	p.answer("Restore this wallet to this device", "n")
	p.ends(1)
	p.run("restore")
	p.answer("Open this one", "y")
	p.answer(`Recovery code \(not shown\): `, code2)
	p.answer("Type them now", "y")
	var sentence []string
	for n := range 12 {
		sentence = append(sentence, at(n+1))
	}
	p.answer(`Words \(not shown\): `, strings.Join(sentence, " "))
	p.answer("Restore this wallet to this device", "y")
	p.expect("Compared +yes")
	p.ends(0)
	p.run("status")
	p.expect("Words +not in the backup: on this device")
	p.ends(0)
	p.run("restore") // It is here: no secret is asked for.
	p.answer("Open this one", "y")
	p.expect("is on this device already")
	if screen := p.ends(21); strings.Contains(screen, "Recovery code") {
		t.Error("a secret is asked for")
	}
}
