package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel/internal/durable"
)

// tokens are the registration tokens in a file: for each a line with its SHA-256 in hex,
// its name and its day. A token has 130 random bits, so that its hash tells nothing.
type tokens struct {
	file string

	mu   sync.Mutex
	seen time.Time
	size int64
	list []token
}

type token struct{ hash, name, day string }

// maxTokens is the size of the largest file of tokens in bytes.
const maxTokens = 16 << 20

func (t *tokens) read() ([]token, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	info, err := os.Stat(t.file)
	if errors.Is(err, fs.ErrNotExist) {
		t.list = nil
		return nil, nil
	}
	if err == nil && info.ModTime().Equal(t.seen) && info.Size() == t.size {
		return t.list, nil
	}
	var b []byte
	if err == nil {
		b, err = durable.Disk{}.ReadFile(t.file, maxTokens)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the registration tokens: %w", err)
	}
	t.list = nil
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && !strings.HasPrefix(f[0], "#") {
			t.list = append(t.list, token{f[0], f[1], f[2]})
		}
	}
	t.seen, t.size = info.ModTime(), info.Size()
	return t.list, nil
}

func (t *tokens) write(list []token) error {
	var b strings.Builder
	for _, k := range list {
		fmt.Fprintln(&b, k.hash, k.name, k.day)
	}
	if err := writeOwned(t.file, []byte(b.String())); err != nil {
		return fmt.Errorf("writing the registration tokens: %w", err)
	}
	return nil
}

func hashOf(text string) string {
	h := sha256.Sum256([]byte(text))
	return hex.EncodeToString(h[:])
}

// allowed reports whether a token is in the file. If that cannot be read nobody is let in.
func (t *tokens) allowed(text string) bool {
	list, err := t.read()
	hash := hashOf(text)
	return err == nil && slices.ContainsFunc(list, func(k token) bool { return k.hash == hash })
}

func (a *app) tokens() (*tokens, error) {
	dir, err := a.folder()
	return &tokens{file: filepath.Join(dir, "tokens")}, err
}

func (a *app) tokenCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "token",
		Short: "Say who may make accounts here",
		Long: `Says who may make accounts, if the server runs with --require-token. Everybody with
an account goes on using it, with or without a token. A server that runs notices
changes by itself.`,
		Example: "  satchel-keyserver token add ann\n  satchel-keyserver token list\n  satchel-keyserver token remove ann",
	}
	c.PersistentFlags().StringVar(&a.settings.data, "data", "", "folder of the data, as for serve")
	c.AddCommand(&cobra.Command{
		Use: "add NAME", Short: "Make a token and print it: only its hash is kept",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, names []string) error {
			if !regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}$`).MatchString(names[0]) {
				return usage{errors.New("a name has 1 to 64 letters, digits, or any of ._@-")}
			}
			t, err := a.tokens()
			if err != nil {
				return err
			}
			list, err := t.read()
			if err != nil {
				return err
			}
			if slices.ContainsFunc(list, func(k token) bool { return k.name == names[0] }) {
				return hinted{fmt.Errorf("there is a token %s", names[0]), "remove it first, or take another name"}
			}
			text := rand.Text()
			if err := t.write(append(slices.Clone(list), token{hashOf(text), names[0], time.Now().UTC().Format(time.DateOnly)})); err != nil {
				return err
			}
			fmt.Fprintln(a.out, text)
			fmt.Fprintln(a.err, "It counts for the server whose --data is", filepath.Dir(t.file)+".")
			return nil
		},
	}, &cobra.Command{
		Use: "list", Short: "List names and days", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			t, err := a.tokens()
			if err != nil {
				return err
			}
			list, err := t.read()
			for _, k := range list {
				fmt.Fprintln(a.out, k.day, k.name)
			}
			return err
		},
	}, &cobra.Command{
		Use: "remove NAME", Short: "Let nobody make accounts with this token any more", Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, names []string) error {
			t, err := a.tokens()
			if err != nil {
				return err
			}
			list, err := t.read()
			if err != nil {
				return err
			}
			rest := slices.DeleteFunc(slices.Clone(list), func(k token) bool { return k.name == names[0] })
			if len(rest) == len(list) {
				return fmt.Errorf("there is no token %s", names[0])
			}
			return t.write(rest)
		},
	})
	return c
}
