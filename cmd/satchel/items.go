package main

import (
	"encoding/hex"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
)

func (a *app) itemsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "items",
		Short: "List what is backed up",
		Long: `Lists the items of the wallet, from this device: name, size, the generation that
wrote the value, and whether a restore needs it. It asks no place.

JSON, one object an item: name, generation, size, sha256, required.`,
		Example: `  satchel items
  satchel items --json`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(localExits...),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			items := b.Items()
			a.sayItems(items)
			for _, i := range items {
				if err := a.emit(toItemJSON(i)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (a *app) sayItems(items []satchel.ItemInfo) {
	width := len("item")
	for _, i := range items {
		width = max(width, columns(printable(i.Name)))
	}
	width = min(width, 40)
	a.say("%-*s  %8s  %10s  %s", width, "item", "size", "generation", "required")
	for _, i := range items {
		a.say("%-*s  %8s  %10d  %s", width, printable(i.Name), size(i.Size), i.Generation, yesNo(i.Required))
	}
}

type itemJSON struct {
	Name       string `json:"name"`
	Generation uint64 `json:"generation"`
	Size       int64  `json:"size"`
	SHA256     string `json:"sha256"`
	Required   bool   `json:"required"`
}

func toItemJSON(i satchel.ItemInfo) itemJSON {
	return itemJSON{i.Name, i.Generation, i.Size, hex.EncodeToString(i.SHA256[:]), i.Required}
}

// glance opens the wallet that is meant, without waiting, to complete a command.
func (a *app) glance() (*satchel.Backup, bool) {
	d, err := a.device()
	if err != nil {
		return nil, false
	}
	cfg, err := a.deviceConfig(d)
	if err != nil {
		return nil, false
	}
	b, err := satchel.Open(cfg)
	return b, err == nil
}

func (a *app) completeItems() ([]string, cobra.ShellCompDirective) {
	b, ok := a.glance()
	if !ok {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer b.Close()
	var names []string
	for _, i := range b.Items() {
		names = append(names, i.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
