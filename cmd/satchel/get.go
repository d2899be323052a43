package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/source/cln"
)

func (a *app) getCommand() *cobra.Command {
	var out, into string
	var yes bool
	cmd := &cobra.Command{
		Use:   "get NAME | --into DIR [NAME|PREFIX/]...",
		Short: "Print an item, or write many to a folder",
		Long: `Prints the newest value of an item from this device, byte for byte, or writes it
to a new file that only you can read. It asks no place.

With --into it writes items to a folder, each below its name: file/a/b to
DIR/file/a/b. A name that ends in "/" stands for all items below it; with no name
it is file/, all that "satchel watch" and "satchel backup" saved. The folder is made
if there is none. Nothing is overwritten: a file that is there already and differs
stays as it is, is told, and the code is 1; the others are written. After an
interruption, call it again.

The item "keys" holds the words of the wallet: whoever sees them can take the
money. It is printed only after a confirmation.

JSON: name, generation, size, sha256, required, value (base64). With --into, one
object an item: name, path, state (written, there already, not written), size,
error; and a last one: into, written, bytes, there, failed.`,
		Example: `  satchel get labels
  satchel get file/channel.backup -o channel.backup
  satchel get keys --yes | less
  satchel get --into ~/restored
  satchel get --into ~/restored file/.electrum/ labels`,
		Args: args(func(cmd *cobra.Command, got []string) error {
			switch {
			case into == "" && !cmd.Flags().Changed("into"):
				return cobra.ExactArgs(1)(cmd, got)
			case into == "":
				return errors.New("--into needs a folder")
			case out != "":
				return errors.New("-o is for one item, --into for a folder")
			}
			return nil
		}),
		Annotations: exits(append(slices.Clone(localExits), satchel.CodeInterrupted)...),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return a.completeItems()
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			if into != "" {
				return a.getInto(cmd.Context(), b, into, args, yes)
			}
			name := args[0]
			value, err := b.Get(name)
			if err != nil {
				if name == seal.ItemKeys {
					err = wordsElsewhere(b, err)
				}
				return err
			}
			defer value.Wipe()
			return a.sayValue(cmd.Context(), name, b.Items(), value, out, yes)
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "write to this new `file`, mode 0600")
	cmd.Flags().StringVar(&into, "into", "", "write items to this `folder`, below their names, mode 0600")
	cmd.Flags().BoolVar(&yes, "yes", false, "print or write keys without asking")
	return cmd
}

// revealsWords is asked before an item is taken out that reveals keys.
const revealsWords = "This shows the words or keys of the wallet: whoever sees them can take the money.\nGo on?"

// reveals reports whether an item holds the keys of a wallet or of a node.
func reveals(name string) bool {
	return name == seal.ItemKeys || name == cln.ItemSecret || strings.HasPrefix(name, cln.ItemSecret+"/")
}

// sayValue prints the value of an item, or writes it to a file. The keys it only
// shows to who said yes.
func (a *app) sayValue(ctx context.Context, name string, items []satchel.ItemInfo, value secret.Bytes, out string, yes bool) error {
	if reveals(name) {
		if err := a.confirm(ctx, yes, "--yes", revealsWords); err != nil {
			return err
		}
	}
	if out != "" {
		return writeNew(out, value.Open())
	}
	if a.json {
		type valueJSON struct {
			itemJSON
			Value []byte `json:"value"`
		}
		for _, i := range items {
			if i.Name == name {
				return a.emit(valueJSON{toItemJSON(i), value.Open()})
			}
		}
		return fmt.Errorf("%s: %w", printable(name), satchel.ErrNoItem)
	}
	a.progress.pause()
	return unread(writeTo(ctx, a.stdout, bytes.Clone(value.Open())))
}

// writeNew writes a file that nobody else can read, where none is yet.
func writeNew(path string, data []byte) error {
	err := durable.Disk{}.CreateFile(path, data, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &hintedError{fmt.Errorf("%s exists already", printable(path)), "choose another name; nothing is overwritten"}
	}
	return err
}
