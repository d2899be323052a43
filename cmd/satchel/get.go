package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
)

func (a *app) getCommand() *cobra.Command {
	var out string
	var yes bool
	cmd := &cobra.Command{
		Use:   "get NAME",
		Short: "Print an item",
		Long: `Prints the newest value of an item from this device, byte for byte, or writes it
to a new file that only you can read. It asks no place.

The item "keys" holds the words of the wallet: whoever sees them can take the
money. It is printed only after a confirmation.

JSON: name, generation, size, sha256, required, value (base64).`,
		Example: `  satchel get labels
  satchel get file/channel.backup -o channel.backup
  satchel get keys --yes | less`,
		Args:        args(cobra.ExactArgs(1)),
		Annotations: exits(append(slices.Clone(localExits), satchel.CodeInterrupted)...),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return a.completeItems()
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			value, err := b.Get(name)
			if err != nil {
				return err
			}
			defer value.Wipe()
			return a.sayValue(cmd.Context(), name, b.Items(), value, out, yes)
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "write to this new `file`, mode 0600")
	cmd.Flags().BoolVar(&yes, "yes", false, "print keys without asking")
	return cmd
}

// sayValue prints the value of an item, or writes it to a file. The keys it only
// shows to who said yes.
func (a *app) sayValue(ctx context.Context, name string, items []satchel.ItemInfo, value secret.Bytes, out string, yes bool) error {
	if name == seal.ItemKeys {
		if err := a.confirm(ctx, yes, "--yes", "This shows the words of the wallet: whoever sees them can take the money.\nGo on?"); err != nil {
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
	_, err := a.stdout.Write(value.Open())
	return err
}

// writeNew writes a file that nobody else can read, where none is yet.
func writeNew(path string, data []byte) error {
	err := durable.Disk{}.CreateFile(path, data, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &hintedError{fmt.Errorf("%s exists already", printable(path)), "choose another name; nothing is overwritten"}
	}
	return err
}
