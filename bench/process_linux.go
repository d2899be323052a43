package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// canWatch says whether the system tells what another process takes.
const canWatch = true

// tick is the unit of times in /proc, the same on all machines that Go runs on.
const tick = time.Second / 100

// ownTime returns the processor time of this process.
func ownTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// spent returns the processor time of a process that runs.
func spent(pid int) (time.Duration, error) {
	f, err := stat(pid)
	if err != nil {
		return 0, err
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}

// stat returns the fields of a process's stat after its name: the state, the parent, …
func stat(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 15 {
		return nil, errors.New("the system does not tell what a process takes")
	}
	return f, nil
}

// memory returns the resident memory of a process in bytes.
func memory(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("the system does not tell how much memory a process has")
}

// databaseTime returns the processor time of all processes of the PostgreSQL server that
// are there, 0 if it is on another machine. Connections stay open during a load.
func (r *records) databaseTime(ctx context.Context) (sum time.Duration) {
	if r.address == "" {
		return 0
	}
	c, err := pgx.Connect(ctx, r.address)
	if err != nil {
		return 0
	}
	defer c.Close(ctx)
	f, err := stat(int(c.PgConn().PID()))
	if err != nil {
		return 0
	}
	list, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, e := range list {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if of, err := stat(pid); err == nil && of[1] == f[1] {
			t, _ := spent(pid)
			sum += t
		}
	}
	return sum
}
