package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/protocol"
)

// server is a key server that runs.
type server struct {
	cmd     *exec.Cmd
	address string
}

func (s *server) pid() int { return s.cmd.Process.Pid }

// buildServer builds the key server. Tests of it have most of that in the build cache.
func (b *bench) buildServer(ctx context.Context) (command string, err error) {
	command = b.path("satchel-keyserver")
	_, err = b.exec(ctx, program{args: []string{"go", "build", "-o", command, "github.com/satchel-backup/satchel/cmd/satchel-keyserver"}})
	return command, err
}

// server runs the key server on a database while do does something with it.
func (b *bench) server(ctx context.Context, command string, r *records, do func(*server) error) error {
	args := []string{command, "serve", "--listen", "127.0.0.1:0", "--admin", "off", "--log-json", "--data", r.dir}
	if r.address != "" {
		args = append(args, "--database", r.address)
	}
	return b.runServer(ctx, program{args: args}, do)
}

// runServer starts a program that logs where it serves, and ends it.
func (b *bench) runServer(ctx context.Context, p program, do func(*server) error) (err error) {
	settle()
	s := &server{cmd: exec.Command(p.args[0], p.args[1:]...)}
	s.cmd.Env = p.environ()
	log, err := s.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	var said bytes.Buffer
	lines := bufio.NewScanner(io.TeeReader(log, &said))
	for s.address == "" && lines.Scan() {
		var line struct{ Listen string }
		if json.Unmarshal(lines.Bytes(), &line) == nil {
			s.address = line.Listen
		}
	}
	var rest sync.WaitGroup
	rest.Go(func() {
		for lines.Scan() {
		}
	})
	if s.address == "" {
		err = errors.New("it does not serve")
	} else {
		err = do(s)
	}
	ended := s.cmd.Process.Signal(syscall.SIGTERM)
	rest.Wait()
	if err = errors.Join(err, ended, s.cmd.Wait()); err != nil {
		return fmt.Errorf("the key server: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// restingMemory returns the memory of a server that has nothing to do.
func (s *server) restingMemory(ctx context.Context, after time.Duration) (int64, error) {
	select {
	case <-time.After(after):
		return memory(s.pid())
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// loaded is what a load of recoveries took.
type loaded struct {
	recoveries    int
	wall          time.Duration
	cpu, database time.Duration // of the server process, and of those of PostgreSQL
	evaluate      []time.Duration
}

func (l loaded) rate() float64    { return float64(l.recoveries) / l.wall.Seconds() }
func (l loaded) perCore() float64 { return float64(l.recoveries) / l.cpu.Seconds() }

// step is one recovery, ready to be sent.
type step struct {
	evaluate, finish []byte
	want             protocol.Element
}

// steps makes the requests of one recovery of an account for each round.
func (a *used) steps(rounds int, head string) (list []step) {
	seq := uint64(time.Now().UnixMilli())
	for range rounds {
		var attempt protocol.Attempt
		rand.Read(attempt[:])
		seq += 2
		list = append(list, step{
			post(protocol.Sign(a.access, seq, protocol.Evaluate{Attempt: attempt, Blinded: a.blinded, Slot: a.slot}), head),
			post(protocol.Sign(a.access, seq+1, protocol.NewFinish(a.proof, a.account, attempt, protocol.Nonce{})), head),
			a.evaluated,
		})
	}
	return list
}

func post(body []byte, host string) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", keyserver.Path, host, keyserver.ContentType, len(body), body)
}

// load recovers each account so many times over so many connections, each of which has
// accounts of its own: as fast as it is answered, or, if rate is not 0, so many recoveries
// a second in all.
func (s *server) load(ctx context.Context, r *records, connections, rounds int, rate float64) (l loaded, err error) {
	l.recoveries = len(r.used) * rounds
	plans := make([][]step, connections)
	err = at(ctx, connections, connections, func(c int) error {
		of := make([][]step, 0, len(r.used)/connections+1)
		for i := c; i < len(r.used); i += connections {
			of = append(of, r.used[i].steps(rounds, s.address))
		}
		for round := range rounds {
			for _, steps := range of {
				plans[c] = append(plans[c], steps[round])
			}
		}
		return nil
	})
	if err != nil {
		return l, err
	}
	cpu, err := spent(s.pid())
	if err != nil {
		return l, err
	}
	database := r.databaseTime(ctx)
	times := make([][]time.Duration, connections)
	start := time.Now()
	err = at(ctx, connections, connections, func(c int) error {
		conn, err := net.Dial("tcp", s.address)
		if err != nil {
			return err
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		for i, p := range plans[c] {
			sent := time.Now()
			if rate > 0 {
				// When it is due, not when the one before was answered: who comes has not
				// waited for others.
				sent = start.Add(time.Duration(float64(i*connections+c) / rate * float64(time.Second)))
				time.Sleep(time.Until(sent))
			}
			reply, err := ask(conn, in, p.evaluate)
			if err != nil {
				return err
			}
			times[c] = append(times[c], time.Since(sent))
			var e protocol.Evaluated
			if err := protocol.ParseReply(reply, &e); err != nil {
				return err
			}
			if e.Element != p.want {
				return errors.New("an evaluation is not the right one")
			}
			if reply, err = ask(conn, in, p.finish); err != nil {
				return err
			}
			var f protocol.Finished
			if err := protocol.ParseReply(reply, &f); err != nil {
				return err
			}
			if f.Wrong != 0 {
				return errors.New("there were other guesses")
			}
		}
		return nil
	})
	if err != nil {
		return l, err
	}
	l.wall = time.Since(start)
	after, err := spent(s.pid())
	if err != nil {
		return l, err
	}
	l.cpu, l.database = after-cpu, r.databaseTime(ctx)-database
	for _, t := range times {
		l.evaluate = append(l.evaluate, t...)
	}
	return l, nil
}

// ask sends a request and returns the body of the answer.
func ask(conn net.Conn, in *bufio.Reader, request []byte) ([]byte, error) {
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	length := -1
	for n := 0; ; n++ {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		text := strings.TrimSpace(string(line))
		if n == 0 && text != "HTTP/1.1 200 OK" {
			return nil, fmt.Errorf("the answer is %.40q", text)
		}
		if text == "" {
			break
		}
		if v, ok := strings.CutPrefix(text, "Content-Length: "); ok {
			if length, err = strconv.Atoi(v); err != nil || length > protocol.MaxMessage {
				return nil, errors.New("the answer has no good length")
			}
		}
	}
	if length < 0 {
		return nil, errors.New("the answer has no length")
	}
	body := make([]byte, length)
	_, err := io.ReadFull(in, body)
	return body, err
}
