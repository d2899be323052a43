package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"regexp"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/front"
	"github.com/satchel-backup/satchel/secret"
)

// profiledArg makes this program a key server that writes a processor profile.
const profiledArg = "profiled"

// profiledSpec says what it serves. The master key is only of these records.
type profiledSpec struct {
	Dir, Address, Profile string
	Master                []byte
}

// profiled serves until it is ended. It is what satchel-keyserver serve is, with no more
// than that: the real one has no profile to be asked for.
func profiled(ctx context.Context, arg string) (err error) {
	var spec profiledSpec
	if err := json.Unmarshal([]byte(arg), &spec); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	r := &records{dir: spec.Dir, address: spec.Address}
	db, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if r.master, err = keyserver.NewMaster(secret.New(spec.Master)); err != nil {
		return err
	}
	counts := &front.Counts{}
	s, err := keyserver.New(ctx, keyserver.Config{Records: db, Master: r.master, Answered: counts.Answered})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	f, err := os.Create(spec.Profile)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	slog.New(slog.NewJSONHandler(os.Stderr, nil)).Info("serving", "listen", l.Addr().String())
	err = front.New(front.Config{Answer: s, Check: s.Check, Counts: counts}).Serve(ctx, l, nil)
	pprof.StopCPUProfile()
	return errors.Join(err, f.Close())
}

// profiledServer is a server on a database that writes a profile.
func profiledServer(r *records, path string) (program, error) {
	self, err := os.Executable()
	if err != nil {
		return program{}, err
	}
	spec, err := json.Marshal(profiledSpec{r.dir, r.address, path, r.key})
	return program{args: []string{self, profiledArg, string(spec)}}, err
}

// profile returns where the time of a server goes.
func (b *bench) profile(ctx context.Context, r *records) ([]share, error) {
	path := b.path("profile-" + r.kind)
	p, err := profiledServer(r, path)
	if err != nil {
		return nil, err
	}
	err = b.runServer(ctx, p, func(s *server) error {
		_, err := s.load(ctx, r, b.size.callers, max(1, b.size.rounds/2), 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	if b.keep != "" {
		data, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(b.keep+"."+r.kind, data, 0o666)
		}
		if err != nil {
			return nil, err
		}
	}
	u, err := b.exec(ctx, program{args: []string{"go", "tool", "pprof", "-traces", path}})
	if err != nil {
		return nil, err
	}
	return sorted(traces(u.out)), nil
}

// parts of the server, by the functions that are theirs. A stack belongs to the first of
// these that is in it.
var parts = []struct {
	what string
	of   *regexp.Regexp
}{
	{"Ed25519", regexp.MustCompile(`crypto/ed25519\.`)},
	{"VOPRF", regexp.MustCompile(`go-ristretto|cloudflare/circl`)},
	{"sealing records", regexp.MustCompile(`keyserver\.\(\*Master\)\.(seal|open|nonce)`)},
	{"collecting garbage", regexp.MustCompile(`runtime\.(gcBgMarkWorker|bgsweep|bgscavenge|gcAssistAlloc|gcStart)`)},
	{"database", regexp.MustCompile(`keyserver/(sqlite|postgres)\.|database/sql\.|modernc\.org|jackc/`)},
	{"encoding records and messages", regexp.MustCompile(`encoding/binary\.|protocol\.(Reply|ParseRequest)|keyserver\.(parseRecord|hold)|\(\*record\)\.bytes`)},
	{"HTTP and the network", regexp.MustCompile(`net/http\.|internal/poll\.|net\.\(`)},
	{"waiting and waking up", regexp.MustCompile(`runtime\.(mcall|schedule|findRunnable|park_m|goready|mstart|sysmon|morestack|rt0_go|systemstack|goexit)`)},
}

// traces adds up what pprof -traces prints, by part.
func traces(out []byte) map[string]float64 {
	sums := map[string]float64{}
	var took time.Duration
	var stack bytes.Buffer
	end := func() {
		if took == 0 {
			return
		}
		what := "the rest"
		for _, p := range parts {
			if p.of.Match(stack.Bytes()) {
				what = p.what
				break
			}
		}
		sums[what] += took.Seconds()
		took = 0
		stack.Reset()
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "-----------+") {
			end()
			continue
		}
		f := strings.Fields(line)
		if len(f) > 1 && took == 0 {
			if d, err := time.ParseDuration(f[0]); err == nil {
				took, f = d, f[1:]
			}
		}
		if took > 0 {
			stack.WriteString(strings.Join(f, " ") + "\n")
		}
	}
	end()
	return sums
}
