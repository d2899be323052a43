package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// program is a command to run. What it reads from the descriptors 3, 4, … is in secrets.
type program struct {
	args    []string
	dir     string   // "" is this process's
	env     []string // beside this process's own
	secrets [][]byte
}

// usage is what a run of a program took.
type usage struct {
	wall time.Duration
	cpu  time.Duration // of all cores, user and system
	peak int64         // bytes of memory; 0 if the system does not tell
	out  []byte
}

// exec runs a program and measures it. What was written before is on the disk when
// it starts, so that it does not wait for that.
func (b *bench) exec(ctx context.Context, p program) (usage, error) {
	var u usage
	cmd := exec.CommandContext(ctx, p.args[0], p.args[1:]...)
	cmd.Dir = p.dir
	cmd.Env = p.environ()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	for i, secret := range p.secrets {
		path := b.path(fmt.Sprint("secret-", i))
		if err := os.WriteFile(path, secret, 0o600); err != nil {
			return u, err
		}
		f, err := os.Open(path)
		if err != nil {
			return u, err
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	if !b.hasty {
		settle()
	}
	start := time.Now()
	err := cmd.Run()
	u.wall = time.Since(start)
	if s := cmd.ProcessState; s != nil {
		u.cpu, u.peak = s.UserTime()+s.SystemTime(), peak(s)
	}
	if err != nil {
		shown := p.args[:min(len(p.args), 6)]
		return u, fmt.Errorf("running %s: %w: %s", strings.Join(shown, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	u.out = out.Bytes()
	return u, nil
}

// environ is this process's environment without what would change how a program is
// measured, and what the program needs.
func (p program) environ() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == "GOMEMLIMIT" || name == "GOGC" || name == "GOMAXPROCS" || strings.HasPrefix(name, "SATCHEL_") || strings.HasPrefix(name, "RESTIC_")
	})
	return append(env, p.env...)
}

// times runs a program n times. before, if not nil, prepares each run.
func (b *bench) times(ctx context.Context, n int, p program, before func(i int) error) ([]usage, error) {
	var list []usage
	for i := range n {
		if before != nil {
			if err := before(i); err != nil {
				return nil, err
			}
		}
		u, err := b.exec(ctx, p)
		if err != nil {
			return nil, err
		}
		list = append(list, u)
	}
	return list, nil
}

// wall returns the times of several runs.
func wall(list []usage) []time.Duration {
	var times []time.Duration
	for _, u := range list {
		times = append(times, u.wall)
	}
	return times
}

// highest returns the largest memory of several runs.
func highest(list []usage) int64 {
	var most int64
	for _, u := range list {
		most = max(most, u.peak)
	}
	return most
}

// medianCPU returns the median of the processor time of several runs.
func medianCPU(list []usage) time.Duration {
	var times []time.Duration
	for _, u := range list {
		times = append(times, u.cpu)
	}
	return quantile(times, 50)
}

// quantile returns the value below which percent of the values are.
func quantile[T int64 | time.Duration](list []T, percent int) T {
	if len(list) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(list))
	return s[min(len(s)*percent/100, len(s)-1)]
}

func sum[T int64 | time.Duration](list []T) (n T) {
	for _, v := range list {
		n += v
	}
	return n
}

// mean returns the average.
func mean[T int64 | time.Duration](list []T) T {
	if len(list) == 0 {
		return 0
	}
	return sum(list) / T(len(list))
}

// content returns the bytes and the number of the files in a directory.
func content(dir string) (size int64, files int, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			size, files = size+info.Size(), files+1
		}
		return err
	})
	return size, files, err
}

// table prints a table.
func (b *bench) table(header string, rows [][]string) {
	b.say("\n| %s |\n|%s\n", strings.Join(strings.Split(header, "|"), " | "), strings.Repeat("---|", strings.Count(header, "|")+1))
	for _, r := range rows {
		b.say("| %s |\n", strings.Join(r, " | "))
	}
}

// ms prints a time with three digits or so.
func ms(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", d.Seconds()*1000)
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// mb prints a number of bytes.
func mb(n int64) string {
	switch {
	case n == 0:
		return "?"
	case n < 1_000_000:
		return number(n) + " B"
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

// number prints a number with commas.
func number[T int | int64](n T) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// met says whether a goal was met.
func met(ok bool) string {
	if ok {
		return "yes"
	}
	return "**no**"
}

// below is a measured time and whether it is below the goal.
func below(d, goal time.Duration) []string { return []string{ms(d), "< " + ms(goal), met(d < goal)} }
