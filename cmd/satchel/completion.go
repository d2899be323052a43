package main

import (
	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
)

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print the script that completes commands in a shell",
		Long: `Prints a script for your shell, with which the Tab key completes commands, flags,
wallets and items.`,
		Example: `  satchel completion bash > ~/.local/share/bash-completion/completions/satchel
  satchel completion fish > ~/.config/fish/completions/satchel.fish
  satchel completion zsh > "${fpath[1]}/_satchel"`,
		Args:        args(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		ValidArgs:   shells,
		Annotations: exits(satchel.CodeDone, satchel.CodeUsage),
		RunE: func(cmd *cobra.Command, got []string) error {
			root := cmd.Root()
			switch got[0] {
			case "bash":
				return unread(root.GenBashCompletionV2(a.stdout, true))
			case "zsh":
				return unread(root.GenZshCompletion(a.stdout))
			case "fish":
				return unread(root.GenFishCompletion(a.stdout, true))
			}
			return unread(root.GenPowerShellCompletionWithDesc(a.stdout))
		},
	}
}
