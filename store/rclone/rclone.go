// Package rclone keeps a store in any cloud that the user's own rclone reaches,
// by running that program:
//
//	s, err := rclone.New("gdrive:Backups", rclone.Config{})
//
// The remote is one that the user has configured ("rclone config") and may be a
// crypt, an alias or a union of others. Objects are files of their names below
// the path. The user's sign-in stays with rclone, which also refreshes it.
//
// Each step is one run of rclone: a Put, a Get by hash and a List are one, a Delete
// is one or two. Starting it costs 0.1 s of computing, measured, and its cloud is
// asked anew for what it knew a moment ago. A server of rclone's own ("rclone rcd")
// would save that, and would be a second process to guard, which can reach all of
// the user's clouds and lives on when a satchel is killed. So there is none.
//
// What rclone says to people is never read. What it did is known from its
// documented exit codes and from its JSON alone, and so some facts stay unknown:
// that a sign-in has ended looks like any other trouble, is store.ErrUnreachable,
// and the error says which command tells more. That a cloud is full is known
// where "rclone about" works. The account behind a remote is not known: that it is
// another one, or a drive not connected, is seen by a mark that is missing there;
// see [Config.Marked].
//
// Nothing that exists is replaced: rclone looks before it writes
// ("--ignore-existing"), and a lock of this process is held for the name. Between
// that look and the upload two processes that put different bytes under one name
// can still both write; callers have the content's hash in the name. Where two
// files of one name are possible (Google Drive), Get finds the right one among
// them, and Delete removes none while rclone would take another than the one
// listed. Of two folders of one name rclone sees only one: one process makes none
// twice; of two that put their first objects at the same moment, one may have to
// put them again. A deleted object leaves its directories, even empty ones. What is sent
// is a file first, so a satchel that is killed never cuts an object short.
//
// It was run against rclone 1.60.1 with the remotes local, alias, crypt and memory,
// with rclone's own Google Drive pointed at a stand-in for that, and against no
// real cloud.
package rclone

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/satchel-backup/satchel/internal/program"
	"github.com/satchel-backup/satchel/store"
)

// Config holds what may be chosen. Its zero value is the usual one.
type Config struct {
	// Program is rclone's name or path; "" means "rclone".
	Program string
	// Env is the environment of rclone; nil means this process's own. It may name
	// the configuration (RCLONE_CONFIG) and its password (RCLONE_CONFIG_PASS).
	// Variables that set rclone's filters, or make it only pretend, are left out.
	Env []string
	// Marked says that Create left a mark where the store is. Nothing is absent then
	// where the mark is missing: the drive may be away, or the remote of another account.
	Marked bool
}

// marker is what Create leaves. It is that of packages folder and webdav: a place may be
// one of those too.
const (
	marker     = ".satchel-folder"
	markerText = "Satchel keeps backups in this folder. This file shows that its drive is connected; please leave it here.\n"
)

// Limits on what rclone may answer.
const (
	maxListing = 256 << 20 // bytes in the listing of a store
	maxAnswer  = 1 << 20   // bytes in any other answer
	maxRuns    = 4         // runs of rclone at once, for they are large
	listTries  = 3         // of a listing while directories go away
)

// The exit codes that rclone documents and that tell something here.
const (
	exitDirNotFound   = 3
	exitFileNotFound  = 4
	exitNoTransferred = 9 // with --error-on-no-transfer
)

// Facts behind store.ErrUnreachable and store.ErrSignIn.
var (
	ErrNotInstalled = errors.New("rclone is not installed, or not where programs are looked for")
	ErrNoRemote     = errors.New("rclone has no remote of this name; run: rclone config")
	ErrConfig       = errors.New("rclone cannot read its configuration; if it is encrypted, set RCLONE_CONFIG_PASS")
	ErrMark         = errors.New("the mark is missing that shows the right folder; is it the right path, its drive connected, and rclone signed in to the right account")
	ErrRefused      = errors.New("rclone could not do it")
)

var (
	errTwins    = errors.New("there are several files of this name, and rclone would take another; run: rclone dedupe")
	errGarbage  = errors.New("rclone's answer cannot be read")
	errChanging = errors.New("directories keep going away while rclone lists them")
	errShort    = errors.New("rclone gave other bytes than it announced")
)

// Store is a [store.Store] in a remote of rclone.
type Store struct {
	program string
	env     []string
	remote  string // without the colon
	path    string // in the remote, without a slash at its end unless it is "/"
	marked  bool

	runs  chan struct{}     // a token for each run
	seed  maphash.Seed      // of locks
	locks [64]chan struct{} // who holds the token of a name's lock puts that name

	// making holds a token for one who may make directories, and made those that
	// are there. Of two of one path, which two runs can make on Google Drive,
	// rclone sees only one.
	making chan struct{}
	mu     sync.Mutex
	made   map[string]bool // guarded by mu
}

var _ store.Store = (*Store)(nil)

// validRemote reports whether rclone takes this for the name of a remote, except that it
// begins with a letter, a digit or an underscore.
func validRemote(name string) bool {
	for i, r := range name {
		if !unicode.IsLetter(r) && !unicode.IsNumber(r) && r != '_' && (i == 0 || !strings.ContainsRune(".+@ -", r)) {
			return false
		}
	}
	return name != ""
}

// New returns the store at an address such as "remote:path". It runs nothing. A
// remote that is described in the address itself (":s3,secret=…:") is refused:
// other users of the machine could read it.
func New(address string, c Config) (*Store, error) {
	remote, dir, ok := strings.Cut(address, ":")
	switch {
	case !ok || !validRemote(remote) || strings.HasSuffix(remote, " "):
		return nil, errors.New("opening rclone: the address is not the name of a remote, a colon and a path")
	case strings.ContainsFunc(dir, func(r rune) bool { return r < ' ' }):
		return nil, errors.New("opening rclone: unusable path")
	}
	if dir != "" {
		dir = path.Clean(dir)
	}
	if dir == "." {
		dir = ""
	}
	if dir == ".." || strings.HasPrefix(dir, "../") {
		return nil, errors.New("opening rclone: the path leads out of the remote")
	}
	if c.Program == "" {
		c.Program = "rclone"
	}
	if c.Env == nil {
		c.Env = os.Environ()
	}
	s := &Store{
		program: c.Program, env: clean(c.Env), remote: remote, path: dir, marked: c.Marked,
		runs: make(chan struct{}, maxRuns), seed: maphash.MakeSeed(),
		making: make(chan struct{}, 1), made: map[string]bool{},
	}
	for i := range s.locks {
		s.locks[i] = make(chan struct{}, 1)
	}
	return s, nil
}

// Address returns what New takes, in one form for one place.
func (s *Store) Address() string { return s.remote + ":" + s.path }

// changing are variables that make rclone see or do less, each with all that
// begin with it.
var changing = []string{
	"RCLONE_BACKUP_DIR", "RCLONE_COMPARE_DEST", "RCLONE_COPY_DEST", "RCLONE_CUTOFF", "RCLONE_DRY_RUN", "RCLONE_EXCLUDE",
	"RCLONE_FILES_FROM", "RCLONE_FILTER", "RCLONE_HASH_FILTER", "RCLONE_IGNORE", "RCLONE_INCLUDE", "RCLONE_INTERACTIVE", "RCLONE_MAX_",
	"RCLONE_METADATA", "RCLONE_MIN_", "RCLONE_RC", "RCLONE_SUFFIX", "RCLONE_ERROR_ON_NO_TRANSFER", "RCLONE_UPDATE",
}

// clean returns the environment without such variables.
func clean(env []string) []string {
	var out []string
	for _, v := range env {
		keep := true
		for _, c := range changing {
			keep = keep && !strings.HasPrefix(strings.ToUpper(v), c)
		}
		if keep {
			out = append(out, v)
		}
	}
	return out
}

// at returns what rclone calls the thing of a name, or with "" the store itself.
func (s *Store) at(name string) string {
	switch {
	case name == "":
		return s.remote + ":" + s.path
	case s.path == "" || strings.HasSuffix(s.path, "/"):
		return s.remote + ":" + s.path + name
	}
	return s.remote + ":" + s.path + "/" + name
}

// run runs rclone. Retrying is left to the caller, and to rclone only for a
// single request, where it knows the cloud's own words for "slow down".
func (s *Store) run(ctx context.Context, limit int64, args ...string) ([]byte, error) {
	select {
	case s.runs <- struct{}{}:
		defer func() { <-s.runs }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	args = append([]string{"--ask-password=false", "--quiet", "--retries=1", "--low-level-retries=3"}, args...)
	out, err := program.Run(ctx, program.Command{
		Path: s.program, Args: args, Env: s.env, Limit: limit, NewSession: true,
	})
	if errors.Is(err, program.ErrNotInstalled) {
		return nil, fmt.Errorf("%w: %w", store.ErrUnreachable, ErrNotInstalled)
	}
	return out, err
}

// ended reports whether rclone ended with one of the codes.
func ended(err error, codes ...int) bool {
	exit, ok := errors.AsType[*program.ExitError](err)
	return ok && slices.Contains(codes, exit.Code)
}

// notFound reports whether rclone said that there is no such file or directory.
func notFound(err error) bool { return ended(err, exitDirNotFound, exitFileNotFound) }

// explain finds out what an exit code of rclone means that says little.
func (s *Store) explain(ctx context.Context, err error) error {
	exit, ok := errors.AsType[*program.ExitError](err)
	if !ok {
		return err
	}
	out, listErr := s.run(ctx, maxAnswer, "listremotes")
	switch _, refused := errors.AsType[*program.ExitError](listErr); {
	case refused:
		return fmt.Errorf("%w: %w", store.ErrSignIn, ErrConfig)
	case listErr == nil && !listsRemote(out, s.remote):
		return fmt.Errorf("%w: %w", store.ErrSignIn, ErrNoRemote)
	}
	// The path is not told: errors name no places. The user knows it.
	return fmt.Errorf("%w: %w (%w); \"rclone lsd %s:\" tells why", store.ErrUnreachable, ErrRefused, exit, s.remote)
}

func listsRemote(out []byte, remote string) bool {
	for line := range strings.Lines(string(out)) {
		if strings.TrimSpace(line) == remote+":" {
			return true
		}
	}
	return false
}

// entry is what rclone's lsjson shows of a file. Sizes that it does not know,
// such as those of Google's own documents, are -1.
type entry struct {
	Path    string
	Size    int64
	ModTime string
	IsDir   bool
	ID      string
}

// stat returns the file of a name, or store.ErrNotExist where there is none.
func (s *Store) stat(ctx context.Context, name string) (entry, error) {
	out, err := s.run(ctx, maxAnswer, "lsjson", "--stat", "--no-mimetype", "--no-modtime", s.at(name))
	if notFound(err) {
		return entry{}, store.ErrNotExist
	}
	if err != nil {
		return entry{}, s.explain(ctx, err)
	}
	var e *entry
	if err := json.Unmarshal(out, &e); err != nil {
		return entry{}, fmt.Errorf("%w: %w", store.ErrUnreachable, errGarbage)
	}
	if e == nil || e.IsDir {
		return entry{}, store.ErrNotExist
	}
	return *e, nil
}

// stands reports whether there is a file or directory of a name.
func (s *Store) stands(ctx context.Context, name string) (bool, error) {
	out, err := s.run(ctx, maxAnswer, "lsjson", "--stat", "--no-mimetype", "--no-modtime", s.at(name))
	if notFound(err) {
		return false, nil
	}
	if err != nil {
		return false, s.explain(ctx, err)
	}
	var e *entry
	if err := json.Unmarshal(out, &e); err != nil {
		return false, fmt.Errorf("%w: %w", store.ErrUnreachable, errGarbage)
	}
	return e != nil, nil
}

// lsjson lists files below a directory, with paths relative to it. A directory
// that is missing has none.
func (s *Store) lsjson(ctx context.Context, dir string, flags ...string) ([]entry, error) {
	args := append([]string{"lsjson", "--files-only", "--no-mimetype"}, flags...)
	out, err := s.run(ctx, maxListing, append(args, s.at(dir))...)
	for try := 1; notFound(err); try++ {
		// It says so too where one of those below went away while it listed.
		switch there, err := s.stands(ctx, dir); {
		case err != nil:
			return nil, err
		case !there:
			return nil, nil
		case try == listTries:
			return nil, errChanging
		}
		out, err = s.run(ctx, maxListing, append(args, s.at(dir))...)
	}
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	var list []entry
	if err := json.Unmarshal(out, &list); err != nil || list == nil {
		return nil, errGarbage
	}
	return list, nil
}

// Create leaves the mark, and makes the folder for it. It is meant for the moment in which
// a user chooses a new place. Creating again is fine.
func (s *Store) Create(ctx context.Context) error {
	err := s.upload(ctx, marker, []byte(markerText))
	if err == nil || ended(err, exitNoTransferred) {
		_, err = s.stat(ctx, marker)
	}
	if errors.Is(err, store.ErrNotExist) {
		err = fmt.Errorf("%w: it does not keep what it took", store.ErrUnreachable)
	}
	if err != nil {
		return fmt.Errorf("making the place: %w", s.explain(ctx, err))
	}
	return nil
}

// standing returns an error unless the mark is there, if there has to be one.
func (s *Store) standing(ctx context.Context) error {
	if !s.marked {
		return nil
	}
	_, err := s.stat(ctx, marker)
	if errors.Is(err, store.ErrNotExist) {
		return fmt.Errorf("%w: %w", store.ErrUnreachable, ErrMark)
	}
	return err
}

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	err := store.CheckPut(name, data)
	if err == nil {
		err = s.put(ctx, name, data)
	}
	if err != nil {
		return fmt.Errorf("putting object: %w", err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, name string, data []byte) error {
	lock := s.locks[maphash.String(s.seed, name)%uint64(len(s.locks))]
	select {
	case lock <- struct{}{}:
		defer func() { <-lock }()
	case <-ctx.Done():
		return ctx.Err()
	}
	err := s.upload(ctx, name, data)
	exit, ok := errors.AsType[*program.ExitError](err)
	if !ok {
		return err
	}
	if exit.Code == exitNoTransferred {
		return s.same(ctx, name, data) // Something is there.
	}
	// The answer may have been lost on the way, or another process came first.
	if _, err := s.stat(ctx, name); err == nil {
		return s.same(ctx, name, data)
	}
	if s.full(ctx, len(data)) {
		return store.ErrFull
	}
	return s.explain(ctx, exit)
}

// same returns nil if the object that stands there has these bytes.
func (s *Store) same(ctx context.Context, name string, data []byte) error {
	got, err := s.get(ctx, name, store.Sum(data), int64(len(data)))
	switch {
	case errors.Is(err, store.ErrDamaged), errors.Is(err, store.ErrTooLarge), err == nil && !bytes.Equal(got, data):
		return store.ErrExist
	}
	return err
}

func (s *Store) upload(ctx context.Context, name string, data []byte) error {
	f, err := os.CreateTemp("", "satchel-*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	dir := path.Dir(name)
	if !s.isMade(dir) {
		select {
		case s.making <- struct{}{}:
			defer func() { <-s.making }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	_, err = s.run(ctx, maxAnswer, "copyto", "--ignore-existing", "--error-on-no-transfer", f.Name(), s.at(name))
	if err == nil || ended(err, exitNoTransferred) {
		s.mu.Lock()
		s.made[dir] = true
		s.mu.Unlock()
	}
	return err
}

func (s *Store) isMade(dir string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.made[dir]
}

// full reports whether the cloud says that it has less room than size.
func (s *Store) full(ctx context.Context, size int) bool {
	out, err := s.run(ctx, maxAnswer, "about", "--json", s.remote+":")
	if err != nil {
		return false // Many remotes cannot say.
	}
	var about struct{ Free *int64 }
	return json.Unmarshal(out, &about) == nil && about.Free != nil && *about.Free < int64(size)
}

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	err := store.CheckName(name)
	var data []byte
	if err == nil {
		data, err = s.get(ctx, name, want, limit)
	}
	if errors.Is(err, store.ErrNotExist) {
		if away := s.standing(ctx); away != nil {
			err = away
		}
	}
	if err != nil {
		return nil, fmt.Errorf("getting object: %w", err)
	}
	return data, nil
}

func (s *Store) get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	// Right bytes need no other question. What else cat prints, such as the files of
	// a directory, or nothing where a bucket has no such file, tells nothing.
	if want != "" {
		data, err := s.cat(ctx, name, limit)
		if err == nil && len(data) > 0 && int64(len(data)) <= limit && want.Matches(data) {
			return data, nil
		}
		if _, ok := errors.AsType[*program.ExitError](err); err != nil && !ok && !errors.Is(err, program.ErrOutput) {
			return nil, err
		}
	}
	there, err := s.stat(ctx, name)
	if err != nil {
		return nil, err
	}
	var bad error // what kept the bytes of the one that rclone takes from being read
	if there.Size <= limit {
		data, err := s.cat(ctx, name, limit)
		switch {
		case errors.Is(err, program.ErrOutput): // It is one of several.
		case err != nil:
			bad = err
		case there.Size >= 0 && int64(len(data)) != there.Size:
			// A part of it, or several files at once: that says nothing about this one.
			bad = fmt.Errorf("%w: %w", store.ErrUnreachable, errShort)
		case int64(len(data)) <= limit && want.Matches(data):
			return data, nil
		}
	}
	if there.ID != "" {
		switch data, several, err := s.twin(ctx, name, want, limit); {
		case err != nil || data != nil:
			return data, err
		case several && there.Size <= limit:
			return nil, store.ErrDamaged // Each was read, and none is it.
		}
	}
	switch {
	case there.Size > limit:
		return nil, store.ErrTooLarge
	case bad != nil:
		return nil, s.explain(ctx, bad)
	}
	return nil, store.ErrDamaged
}

// cat returns what rclone prints of a file, cut after limit and one more byte. More
// than that, of several files, is program.ErrOutput.
func (s *Store) cat(ctx context.Context, name string, limit int64) ([]byte, error) {
	count := min(max(limit, 0), store.MaxObject) + 1
	return s.run(ctx, count, "cat", "--count="+strconv.FormatInt(count, 10), s.at(name))
}

// named returns the files of a name. Several are possible where rclone tells IDs.
func (s *Store) named(ctx context.Context, name string) ([]entry, error) {
	dir, leaf := path.Split(name)
	all, err := s.lsjson(ctx, strings.TrimSuffix(dir, "/"), "--no-modtime")
	var list []entry
	for _, e := range all {
		if e.Path == leaf && !e.IsDir {
			list = append(list, e)
		}
	}
	return list, err
}

// twin looks for the wanted bytes among several files of a name, which only
// Google Drive's own remotes can hand out one by one. It returns nil if none has
// them, and whether there are several. One that could not be had is an error: it
// may have them.
func (s *Store) twin(ctx context.Context, name string, want store.Hash, limit int64) (data []byte, several bool, err error) {
	list, err := s.named(ctx, name)
	if err != nil || len(list) < 2 {
		return nil, false, err
	}
	dir, err := os.MkdirTemp("", "satchel-*.tmp")
	if err != nil {
		return nil, true, err
	}
	defer os.RemoveAll(dir)
	var unread error
	for i, e := range list {
		if e.ID == "" || e.Size < 0 || e.Size > limit {
			continue
		}
		file := filepath.Join(dir, strconv.Itoa(i))
		_, err := s.run(ctx, maxAnswer, "backend", "copyid", s.at(""), e.ID, file)
		if err == nil {
			data, err = os.ReadFile(file)
		}
		switch {
		case ctx.Err() != nil:
			return nil, true, err
		case err != nil: // Not on this kind of remote, or gone, or out of reach.
			unread = s.explain(ctx, err)
		case int64(len(data)) != e.Size:
			unread = fmt.Errorf("%w: %w", store.ErrUnreachable, errShort)
		case want.Matches(data):
			return data, true, nil
		}
	}
	return nil, true, unread
}

// List implements [store.Store].
func (s *Store) List(ctx context.Context, prefix string) ([]store.Object, error) {
	list, err := s.list(ctx, prefix)
	if err == nil && len(list) == 0 {
		err = s.standing(ctx)
	}
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, store.ErrUnreachable) && !errors.Is(err, store.ErrSignIn) {
			err = fmt.Errorf("%w: %w", store.ErrListing, err)
		}
		return nil, fmt.Errorf("listing objects: %w", err)
	}
	return list, nil
}

// isPlain reports whether the beginning of a name means itself in rclone's patterns.
func isPlain(s string) bool {
	other := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_.-", r)
	}
	return s != "" && !strings.ContainsFunc(s, other)
}

func (s *Store) list(ctx context.Context, prefix string) ([]store.Object, error) {
	dir, rest := "", prefix
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir, rest = prefix[:i], prefix[i+1:]
		if store.CheckName(dir) != nil {
			return nil, nil // No object has such a name.
		}
	}
	flags := []string{"--recursive", "--use-server-modtime"}
	if isPlain(rest) {
		// The user's other files are not walked.
		flags = append(flags, "--include=/"+rest+"*", "--include=/"+rest+"*/**")
	} else {
		flags = append(flags, "--fast-list")
	}
	all, err := s.lsjson(ctx, dir, flags...)
	if err != nil {
		return nil, err
	}
	if len(all) == 1 && all[0].Path == path.Base(dir) {
		// Rclone shows a file alone like a file of its name in a directory of its name.
		switch _, err := s.stat(ctx, dir); {
		case err == nil:
			return nil, nil
		case !errors.Is(err, store.ErrNotExist):
			return nil, err
		}
	}
	var list []store.Object
	for _, e := range all {
		name := e.Path
		if dir != "" {
			name = dir + "/" + name
		}
		if e.IsDir || e.Size < 0 || !strings.HasPrefix(name, prefix) || store.CheckName(name) != nil {
			continue
		}
		modified, _ := time.Parse(time.RFC3339, e.ModTime) // The zero time where it is none.
		list = append(list, store.Object{Name: name, Size: e.Size, Modified: modified, ID: e.ID})
	}
	return list, nil
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, o store.Object) error {
	err := store.CheckName(o.Name)
	if err == nil {
		err = s.delete(ctx, o)
	}
	if err != nil {
		return fmt.Errorf("deleting object: %w", err)
	}
	return nil
}

func (s *Store) delete(ctx context.Context, o store.Object) error {
	if o.ID != "" {
		// What rclone would take must be what was listed.
		there, err := s.stat(ctx, o.Name)
		switch {
		case errors.Is(err, store.ErrNotExist):
			return nil
		case err != nil:
			return err
		case there.ID != o.ID:
			list, err := s.named(ctx, o.Name)
			for _, e := range list {
				if e.ID == o.ID {
					return errTwins
				}
			}
			return err
		}
	}
	_, err := s.run(ctx, maxAnswer, "deletefile", s.at(o.Name))
	exit, ok := errors.AsType[*program.ExitError](err)
	if !ok {
		return err
	}
	// Some versions have no code for a file that is not there.
	if _, err := s.stat(ctx, o.Name); errors.Is(err, store.ErrNotExist) {
		return nil
	}
	return s.explain(ctx, exit)
}
