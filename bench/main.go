// Command bench measures how fast Satchel is and prints tables in Markdown, each
// with what was run and with the figure that is aimed at:
//
//	go run ./bench > figures.md          everything, in a quarter of an hour
//	go run ./bench -only change,watch    some of it
//	go run ./bench -only keyserver -profile cpu.pprof
//	.ci/clouds-bench                     places on servers, which it installs and starts
//
// The key server is measured on SQLite, and on PostgreSQL too if SATCHEL_POSTGRES is the
// URL of a database in which schemas may be made.
//
// Places on servers are measured on those that the environment names, as .ci/clouds
// starts them.
//
// It builds the satchel command and runs it as a user would, on files and folders
// that it makes in a temporary directory (4 GB; -dir says where) and removes at the end. Where
// restic is installed (apt-get install restic) it saves and restores the same files
// in the same folder. Machines differ and are noisy: what counts are medians of one
// run, and the ratios between them.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	out, log io.Writer
	dir      string // everything is in here
	size     size
	satchel  string // the command, built from this tree
	restic   string // "" if it is not installed
	keep     string // where to keep the key server's profiles, "" for nowhere
	hasty    bool   // does not wait for the disk before a program runs: for tests
}

// size says how much is measured.
type size struct {
	items   []int // how many items a backup has that a change is made to
	value   int   // bytes of each
	small   int   // how many changes of 100 bytes
	large   int   // how many changes of value bytes
	files   int   // how many files are saved and restored, of value bytes each
	runs    int   // of what takes seconds
	quick   int   // of what takes milliseconds
	watched int   // changes that watch sees

	cloudItems   int           // of the backup that changes on servers
	cloudChanges int           // changes there in one process
	cloudRuns    int           // of what takes long over a server
	alone        int           // items with an object each
	delay        time.Duration // of each request over a line that is long

	accounts int           // of a key server that are recovered
	rounds   int           // recoveries of each
	callers  int           // connections
	others   int           // accounts beside them
	rest     time.Duration // before a server is at rest
	bare     int           // of each operation that is measured alone
}

// full is what the figures in docs/performance.md are made with.
var full = size{
	items: []int{10, 100, 1000, 10_000}, value: 10_000, small: 2000, large: 1024,
	files: 10_000, runs: 5, quick: 31, watched: 31,
	cloudItems: 10, cloudChanges: 101, cloudRuns: 3, alone: 500, delay: 30 * time.Millisecond,
	accounts: 2048, rounds: 5, callers: 128, others: 1_000_000, rest: 5 * time.Second, bare: 2000,
}

// sections are the parts of a run. Those that measure memory are programs of their
// own, and so is what needs much of it here: the system counts what a process has
// when it starts another for the other's.
var sections = []struct {
	name string
	do   func(*bench, context.Context) error
}{
	{"command", (*bench).command},
	{"change", (*bench).change},
	{"files", (*bench).files},
	{"watch", (*bench).watch},
	{"keyserver", (*bench).keyserver},
	{"clouds", (*bench).clouds},
}

func run(ctx context.Context, args []string, out, log io.Writer) (err error) {
	if len(args) == 2 && args[0] == childArg {
		return child(ctx, args[1], out)
	}
	if len(args) == 2 && args[0] == profiledArg {
		return profiled(ctx, args[1])
	}
	var names []string
	for _, s := range sections {
		names = append(names, s.name)
	}
	fl := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := fl.String("only", strings.Join(names, ","), "the `parts` to run")
	parent := fl.String("dir", "", "the `directory` in which to make temporary files")
	keep := fl.String("profile", "", "the `file` in which to keep the key server's processor profile, with the name of the database behind it")
	if err := fl.Parse(args); err != nil {
		return err
	}
	b := &bench{out: out, log: log, size: full, keep: *keep}
	if b.dir, err = os.MkdirTemp(*parent, "satchel-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	b.note("building the command")
	b.satchel = filepath.Join(b.dir, "satchel")
	if _, err := b.exec(ctx, program{args: []string{"go", "build", "-trimpath", "-o", b.satchel, "github.com/satchel-backup/satchel/cmd/satchel"}}); err != nil {
		return err
	}
	b.restic, _ = exec.LookPath("restic")
	start := time.Now()
	if err := b.machine(ctx, strings.Join(args, " ")); err != nil {
		return err
	}
	for _, name := range strings.Split(*only, ",") {
		i := slices.Index(names, name)
		if i < 0 {
			return fmt.Errorf("no such part: %s; there are %s", name, strings.Join(names, ", "))
		}
		if err := sections[i].do(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	b.say("\nAll of it took %s.\n", time.Since(start).Round(time.Second))
	return nil
}

// machine says where and on what this runs.
func (b *bench) machine(ctx context.Context, args string) error {
	commit := "an unknown commit"
	if out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output(); err == nil {
		commit = "commit " + strings.TrimSpace(string(out))
	}
	disk, err := b.flushes()
	if err != nil {
		return err
	}
	b.say("Measured on %s at %s with `%s` on %s, %d cores, %s %s/%s, load %s before. Writing a new file of 4 KB and flushing it takes %s here (p50, p95 %s), which most of the times below consist of.\n",
		time.Now().UTC().Format(time.DateOnly), commit, strings.TrimSpace("go run ./bench "+args), processor(), runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH,
		load(), ms(quantile(disk, 50)), ms(quantile(disk, 95)))
	return nil
}

// flushes times the flushing of small files.
func (b *bench) flushes() ([]time.Duration, error) {
	var times []time.Duration
	for i := range 100 {
		start := time.Now()
		f, err := os.Create(filepath.Join(b.dir, "flushed"))
		if err != nil {
			return nil, err
		}
		_, err = f.Write(slices.Repeat([]byte{byte(i)}, 4096))
		if err := errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name())); err != nil {
			return nil, err
		}
		times = append(times, time.Since(start))
	}
	return times, nil
}

// processor names the processor, as far as the system tells.
func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if key, name, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(name)
		}
	}
	return runtime.GOARCH
}

// load is how busy the machine is.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(b), " ")
	return one
}

// childArg makes this program a child: it measures what the next argument says
// and prints the result as JSON.
const childArg = "child"

// child runs here what needs much memory.
func child(ctx context.Context, spec string, out io.Writer) error {
	var s changeSpec
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		return err
	}
	r, err := measureChanges(ctx, s)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(r)
}

func (b *bench) say(format string, args ...any)  { fmt.Fprintf(b.out, format, args...) }
func (b *bench) note(format string, args ...any) { fmt.Fprintf(b.log, "bench: "+format+"\n", args...) }

// path returns a path in the run's directory.
func (b *bench) path(elem ...string) string {
	return filepath.Join(append([]string{b.dir}, elem...)...)
}
