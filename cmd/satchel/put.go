package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/wallet"
)

func (a *app) putCommand() *cobra.Command {
	var required, remove, yes bool
	cmd := &cobra.Command{
		Use:   "put NAME [FILE|-] | NAME=FILE...",
		Short: "Save items under names",
		Long: `Saves an item: a named piece of the wallet, such as labels, contacts, settings,
lightning/scb or file/NAME. The value comes from a file or the standard input (-).
Several NAME=FILE pairs are saved together, all of them or none. With --remove a name
that ends in "/" stands for all items below it; they are shown, and a yes is needed.

The item "labels" must be a BIP 329 file. The items "keys" and "descriptors" are
made by create and import, and nothing else may change them.

` + saveJSONHelp,
		Example: `  satchel put labels labels.jsonl
  some-program | satchel put settings -
  satchel put --required lightning/scb channel.backup
  satchel put contacts=contacts.vcf labels=labels.jsonl
  satchel put --remove file/old.txt
  satchel put --remove file/old-folder/`,
		Args:        args(cobra.MinimumNArgs(1)),
		Annotations: exits(saveExits...),
		RunE: func(cmd *cobra.Command, args []string) error {
			var below []string // prefixes of names to remove
			if remove {
				for _, name := range args {
					if strings.HasSuffix(name, "/") {
						below = append(below, name)
					}
				}
				args = slices.DeleteFunc(slices.Clone(args), func(name string) bool { return strings.HasSuffix(name, "/") })
			}
			changes, err := a.changes(cmd.Context(), args, required, remove)
			if err != nil {
				return err
			}
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			if len(below) > 0 {
				items, err := chooseItems(b.Items(), below)
				if err != nil {
					return err
				}
				if err := a.confirmRemoval(cmd.Context(), items, yes); err != nil {
					return err
				}
				for _, i := range items {
					if !slices.ContainsFunc(changes, func(c satchel.Change) bool { return c.Name == i.Name }) {
						changes = append(changes, satchel.Change{Name: i.Name, Remove: true})
					}
				}
			}
			return a.save(cmd.Context(), b, changes...)
		},
	}
	cmd.Flags().BoolVar(&required, "required", false, "a restore without this item counts as incomplete")
	cmd.Flags().BoolVar(&remove, "remove", false, "remove the items of these names; one that ends in \"/\" stands for all below it")
	cmd.Flags().BoolVar(&yes, "yes", false, "remove all below a name without asking")
	return cmd
}

// confirmRemoval shows what is to be removed, and asks.
func (a *app) confirmRemoval(ctx context.Context, items []satchel.ItemInfo, yes bool) error {
	if yes {
		return nil
	}
	a.say("These go from the backup (%s):", count(len(items), "item"))
	for _, i := range items[:min(maxLeft, len(items))] {
		a.say("  %s", printable(i.Name))
	}
	if more := len(items) - maxLeft; more > 0 {
		a.say("  and %d more", more)
	}
	return a.confirm(ctx, false, "--yes", "Earlier states that hold them stay until they are pruned. Go on?")
}

// changes reads the arguments of put.
func (a *app) changes(ctx context.Context, args []string, required, remove bool) ([]satchel.Change, error) {
	var changes []satchel.Change
	add := func(name, file string) error {
		if err := seal.CheckItemName(name); err != nil {
			return usagef("%v", err)
		}
		for _, c := range changes {
			if c.Name == name {
				return usagef("the same name twice: %s", printable(name))
			}
		}
		if remove {
			changes = append(changes, satchel.Change{Name: name, Remove: true})
			return nil
		}
		value, err := a.value(ctx, file)
		if err != nil {
			return err
		}
		if name == seal.ItemLabels {
			if _, err := wallet.ParseLabels(value); err != nil {
				return err
			}
		}
		changes = append(changes, satchel.Change{Name: name, Value: value, Required: required})
		return nil
	}
	switch {
	case remove && required:
		return nil, usagef("--remove and --required exclude each other")
	case remove:
		for _, name := range args {
			if err := add(name, ""); err != nil {
				return nil, err
			}
		}
	case strings.Contains(args[0], "="):
		for _, pair := range args {
			name, file, ok := strings.Cut(pair, "=")
			if !ok || file == "" {
				return nil, &usageError{text: "not of the form NAME=FILE: " + printable(pair), hint: "satchel put NAME=FILE NAME=FILE"}
			}
			if err := add(name, file); err != nil {
				return nil, err
			}
		}
	case len(args) == 2:
		if err := add(args[0], args[1]); err != nil {
			return nil, err
		}
	case len(args) == 1:
		if _, tty := asTerminal(a.stdin); tty {
			return nil, &usageError{text: "the value is missing", hint: "satchel put NAME FILE, or NAME - to read the standard input"}
		}
		if err := add(args[0], "-"); err != nil {
			return nil, err
		}
	default:
		return nil, &usageError{text: "too many arguments", hint: "several items at once: satchel put NAME=FILE NAME=FILE"}
	}
	return changes, nil
}

// value reads a file, or the standard input for "-".
func (a *app) value(ctx context.Context, file string) ([]byte, error) {
	if file != "-" {
		return readValue(file)
	}
	value, err := await(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(a.stdin, seal.MaxValue+1)) })
	if err != nil {
		return nil, fmt.Errorf("reading the standard input: %w", err)
	}
	if len(value) > seal.MaxValue {
		return nil, usagef("the value has more than %d bytes", seal.MaxValue)
	}
	return value, nil
}
