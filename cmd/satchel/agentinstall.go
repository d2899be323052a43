package main

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/keychain"
)

const (
	unitName = "satchel-agent.service"
	plistID  = "io.github.satchel-backup.agent"

	// unitMark is in every file that install writes: uninstall removes no other.
	unitMark = "Written by satchel agent install"

	managerTime = time.Minute // for the service manager
	maxUnit     = 64 << 10    // bytes
)

// service is what install writes, and for whom.
type service struct {
	program string   // absolute
	args    []string // behind "agent run"
	env     []string // NAME=value
	system  bool     // for the whole system, as a user of it
	user    string   // that one
}

func (a *app) agentInstallCommand() *cobra.Command {
	var system, now, show bool
	var as string
	var every time.Duration
	var keep int
	var numbers string
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Have the system start the agent and keep it running",
		Long: `Writes a service of your user (systemd's ~/.config/systemd/user, launchd's
~/Library/LaunchAgents) that runs "satchel agent run", begins it anew if it ends or
hangs, and says what to do next. With --now it is started, too. Called again it writes
the service anew, as after satchel was moved.

A service of your user runs while you are signed in. On a server "loginctl
enable-linger" makes it run from the start of the machine on. With --system, as root, it
writes a service of the whole system instead, which runs as the user of --user, or as
the one who called sudo.

The service gets the SATCHEL_ and proxy variables and the PATH of this call. What
systemd allows is used to keep the agent from what it does not need. The service for
macOS was never run by the makers of Satchel: look after it with "satchel agent status".

JSON: path, text, next (commands).`,
		Example: `  satchel agent install --now
  satchel agent install --print
  sudo satchel agent install --system --now`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if keep < 0 || every < 0 {
				return usagef("--keep and --every are not less than 0")
			}
			s, err := a.serviceHere(system, as)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("every") {
				s.args = append(s.args, "--every", every.String())
			}
			if keep > 0 {
				s.args = append(s.args, "--keep", strconv.Itoa(keep))
			}
			if numbers != "" {
				s.args = append(s.args, "--metrics", numbers)
			}
			if show {
				text, err := s.text(runtime.GOOS)
				if err != nil {
					return err
				}
				a.say("%s", strings.TrimSuffix(text, "\n"))
				path, err := a.servicePath(s)
				if err != nil {
					return err
				}
				return a.emit(installJSON{path, text, s.start(runtime.GOOS, path)})
			}
			return a.install(cmd.Context(), s, now)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().BoolVar(&now, "now", false, "start it, too")
	cmd.Flags().BoolVar(&show, "print", false, "print what would be written, and write nothing")
	cmd.Flags().BoolVar(&system, "system", false, "a service of the whole system; needs root")
	cmd.Flags().StringVar(&as, "user", "", "with --system, the `name` of the user whose wallets they are")
	cmd.Flags().DurationVar(&every, "every", 24*time.Hour, "how often all places of a wallet are compared; 0 for never")
	cmd.Flags().IntVar(&keep, "keep", 0, "after a comparison that found nothing wrong, prune what is older than this many checkpoints; 0 keeps all")
	cmd.Flags().StringVar(&numbers, "metrics", "", metricsHelp)
	return cmd
}

func (a *app) agentUninstallCommand() *cobra.Command {
	var system bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "End the agent and take its service away",
		Long: `Ends the agent that the system runs and removes what "satchel agent install" wrote.
Wallets, backups, what is watched and the agent's log stay; nothing saves changes by
itself afterwards, unless another agent runs, which it says.

JSON: removed (a path, or null), running (whether an agent still runs).`,
		Example: `  satchel agent uninstall
  sudo satchel agent uninstall --system`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.uninstall(cmd.Context(), &service{system: system})
		},
	}
	cmd.Flags().BoolVar(&system, "system", false, "the service of the whole system; needs root")
	return cmd
}

type installJSON struct {
	Path string   `json:"path"`
	Text string   `json:"text"`
	Next []string `json:"next"`
}

// passed are the variables of this call that the service gets.
var passed = []string{"SATCHEL_HOME", "SATCHEL_KEYCHAIN", "SATCHEL_CA_FILE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"}

// serviceHere is the service for this program and this user.
func (a *app) serviceHere(system bool, as string) (*service, error) {
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		return nil, &usageError{text: "satchel knows no service manager of this system", hint: "have `satchel agent run` started when you sign in, as by the Task Scheduler of Windows"}
	}
	if as != "" && !system {
		return nil, usagef("--user goes with --system")
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if strings.Contains(filepath.ToSlash(program), "/go-build") {
		return nil, &usageError{text: "this satchel was made by `go run` and goes when it ends", hint: "install it where it stays: `go install github.com/satchel-backup/satchel/cmd/satchel@latest`"}
	}
	s := &service{program: program, system: system}
	if system {
		if runtime.GOOS != "linux" {
			return nil, usagef("--system is for systemd only")
		}
		if s.user = as; s.user == "" {
			s.user = a.getenv("SUDO_USER")
		}
		if s.user == "" {
			return nil, &usageError{text: "whose wallets are they?", hint: "name the user: satchel agent install --system --user NAME"}
		}
		if _, err := user.Lookup(s.user); err != nil {
			return nil, usagef("no user of this name: %s", printable(s.user))
		}
	}
	for _, name := range passed {
		if v := a.getenv(name); v != "" {
			if name == "SATCHEL_HOME" || name == "SATCHEL_CA_FILE" {
				if v, err = filepath.Abs(v); err != nil {
					return nil, err
				}
			}
			s.env = append(s.env, name+"="+v)
		}
	}
	var path []string
	for _, dir := range filepath.SplitList(a.getenv("PATH")) {
		if filepath.IsAbs(dir) && !slices.Contains(path, dir) {
			path = append(path, dir)
		}
	}
	if len(path) > 0 { // rclone and others are found with it.
		s.env = append(s.env, "PATH="+strings.Join(path, string(filepath.ListSeparator)))
	}
	for _, v := range append(slices.Clone(s.env), program) {
		if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, usagef("a control character is in the path of satchel, or in a variable")
		}
	}
	return s, nil
}

// servicePath is where the service is written.
func (a *app) servicePath(s *service) (string, error) {
	switch {
	case runtime.GOOS == "darwin":
		if a.userHome() == "" {
			return "", usagef("this user has no home directory")
		}
		return filepath.Join(a.userHome(), "Library", "LaunchAgents", plistID+".plist"), nil
	case s.system:
		return filepath.Join("/etc/systemd/system", unitName), nil
	}
	dir := a.getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		if a.userHome() == "" {
			return "", usagef("this user has no home directory")
		}
		dir = filepath.Join(a.userHome(), ".config")
	}
	return filepath.Join(dir, "systemd", "user", unitName), nil
}

// text is what is written.
func (s *service) text(goos string) (string, error) {
	if goos == "darwin" {
		return s.plist()
	}
	return s.unit(), nil
}

// start are the commands that make the service manager start it.
func (s *service) start(goos, path string) []string {
	switch {
	case goos == "darwin":
		return []string{fmt.Sprintf("launchctl bootstrap gui/%d %s", os.Getuid(), shellQuote(path))}
	case s.system:
		return []string{"systemctl daemon-reload", "systemctl enable " + unitName, "systemctl restart " + unitName}
	}
	return []string{"systemctl --user daemon-reload", "systemctl --user enable " + unitName, "systemctl --user restart " + unitName}
}

// stop are those that end it for good, before its file is removed, and after it was.
func (s *service) stop(goos string) (before, after []string) {
	switch {
	case goos == "darwin":
		return []string{fmt.Sprintf("launchctl bootout gui/%d/%s", os.Getuid(), plistID)}, nil
	case s.system:
		return []string{"systemctl disable --now " + unitName}, []string{"systemctl daemon-reload"}
	}
	return []string{"systemctl --user disable --now " + unitName}, []string{"systemctl --user daemon-reload"}
}

// unit is a unit of systemd.
func (s *service) unit() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# %s; another call of it, or uninstall, takes it away.", unitMark)
	line("[Unit]")
	line("Description=Satchel agent: encrypted backup of Bitcoin wallets")
	line("Documentation=https://github.com/satchel-backup/satchel/blob/main/docs/agent.md")
	if s.system {
		line("Wants=network-online.target")
		line("After=network-online.target")
	}
	line("# It is never given up.")
	line("StartLimitIntervalSec=0")
	line("")
	line("[Service]")
	line("Type=notify")
	if s.system {
		line("User=%s", s.user)
	}
	command := []string{unitQuote(s.program, true), "agent", "run"}
	for _, arg := range s.args {
		command = append(command, unitQuote(arg, true))
	}
	line("ExecStart=%s", strings.Join(command, " "))
	for _, e := range s.env {
		line("Environment=%s", unitQuote(e, false))
	}
	line("Restart=always")
	line("RestartSec=10")
	line("# A wrong call does not get better by itself.")
	line("RestartPreventExitStatus=2")
	line("# It says that it is alive only while the loop of every wallet is.")
	line("WatchdogSec=180")
	line("TimeoutStopSec=30")
	line("UMask=0077")
	line("LimitCORE=0")
	line("")
	line("NoNewPrivileges=yes")
	line("LockPersonality=yes")
	line("MemoryDenyWriteExecute=yes")
	line("RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK")
	line("RestrictNamespaces=yes")
	line("RestrictRealtime=yes")
	line("RestrictSUIDSGID=yes")
	line("SystemCallArchitectures=native")
	line("SystemCallFilter=@system-service")
	line("SystemCallErrorNumber=EPERM")
	if s.system {
		line("# Wallets and places may be in any folder of the user, so homes stay open.")
		line("ProtectSystem=full")
		line("CapabilityBoundingSet=")
		line("SystemCallFilter=~@privileged @resources")
		line("ProtectClock=yes")
		line("ProtectControlGroups=yes")
		line("ProtectHostname=yes")
		line("ProtectKernelLogs=yes")
		line("ProtectKernelModules=yes")
		line("ProtectKernelTunables=yes")
		line("ProtectProc=invisible")
		line("PrivateDevices=yes")
		line("PrivateIPC=yes")
		line("PrivateTmp=yes")
		line("RemoveIPC=no")
	}
	line("")
	line("[Install]")
	if s.system {
		line("WantedBy=multi-user.target")
	} else {
		line("WantedBy=default.target")
	}
	return b.String()
}

// unitQuote writes a word as systemd reads it: in an ExecStart, or in another setting.
func unitQuote(s string, command bool) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%").Replace(s)
	if command {
		s = strings.ReplaceAll(s, "$", "$$")
	}
	return `"` + s + `"`
}

// plist is a property list of launchd.
func (s *service) plist() (string, error) {
	var b strings.Builder
	text := func(s string) string {
		var e strings.Builder
		xml.EscapeText(&e, []byte(s)) // It does not fail.
		return e.String()
	}
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(`<?xml version="1.0" encoding="UTF-8"?>`)
	line(`<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">`)
	line("<!-- %s; another call of it, or uninstall, takes it away. -->", unitMark)
	line(`<plist version="1.0">`)
	line("<dict>")
	line("\t<key>Label</key>\n\t<string>%s</string>", plistID)
	line("\t<key>ProgramArguments</key>\n\t<array>")
	for _, arg := range append([]string{s.program, "agent", "run"}, s.args...) {
		line("\t\t<string>%s</string>", text(arg))
	}
	line("\t</array>")
	if len(s.env) > 0 {
		line("\t<key>EnvironmentVariables</key>\n\t<dict>")
		for _, e := range s.env {
			name, value, _ := strings.Cut(e, "=")
			line("\t\t<key>%s</key>\n\t\t<string>%s</string>", text(name), text(value))
		}
		line("\t</dict>")
	}
	line("\t<key>RunAtLoad</key>\n\t<true/>")
	line("\t<key>KeepAlive</key>\n\t<true/>")
	line("\t<key>ThrottleInterval</key>\n\t<integer>10</integer>")
	line("\t<key>ProcessType</key>\n\t<string>Background</string>")
	line("\t<key>Umask</key>\n\t<integer>63</integer>") // 0077
	line("\t<key>StandardOutPath</key>\n\t<string>/dev/null</string>")
	line("\t<key>StandardErrorPath</key>\n\t<string>/dev/null</string>")
	line("</dict>")
	line("</plist>")
	return b.String(), nil
}

// managed reports whether a service manager runs here that the service is for. In most
// containers none does, and systemctl, if it is there, says so in many words.
func managed() bool {
	if runtime.GOOS != "linux" {
		return true
	}
	_, err := os.Stat("/run/systemd/system") // As sd_booted(3) looks.
	return err == nil
}

// otherStart says what to do without a service manager.
const otherStart = "let whatever starts programs here (the container, another init) start `satchel agent run`"

// install writes the service, and starts it if that was asked for.
func (a *app) install(ctx context.Context, s *service, now bool) error {
	path, err := a.servicePath(s)
	if err != nil {
		return err
	}
	if now && !managed() {
		return &hintedError{errors.New("systemd does not run here, so nothing was written and nothing started"), otherStart}
	}
	if err := ourUnit(path); err != nil {
		return err
	}
	text, err := s.text(runtime.GOOS)
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o600) // A proxy may have a password in it.
	if s.system {
		mode = 0o644
	}
	var disk durable.Disk
	if err := disk.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return rootHint(err, s)
	}
	if err := disk.WriteFile(path, []byte(text), mode); err != nil {
		return rootHint(err, s)
	}
	start := s.start(runtime.GOOS, path)
	a.say("Written: %s", printable(path))
	if now {
		for _, command := range start {
			if err := a.manage(ctx, command); err != nil {
				return err
			}
		}
		a.say("Started. `satchel agent status` shows what it does.")
		start = nil
	} else {
		if managed() {
			a.say("It is started by:")
		} else {
			a.sayHanging("", "systemd does not run here, so nothing starts it: "+otherStart+". Where systemd runs, it is started by:")
		}
		for _, command := range start {
			a.say("  %s", command)
		}
	}
	if managed() {
		a.sayLinger(s)
		a.sayKeychainOf(s)
	}
	return a.emit(installJSON{path, text, append([]string{}, start...)})
}

// sayLinger says what makes a service of the user run while nobody is signed in.
func (a *app) sayLinger(s *service) {
	if runtime.GOOS != "linux" || s.system {
		return
	}
	u, err := user.Current()
	if err != nil {
		return
	}
	if _, err := os.Stat(filepath.Join("/var/lib/systemd/linger", u.Username)); err == nil {
		return
	}
	a.say("It runs while you are signed in. To have it run from the start of this machine on, as on a server:")
	a.say("  loginctl enable-linger")
}

// sayKeychainOf says what a keychain that is locked means for the agent.
func (a *app) sayKeychainOf(s *service) {
	if s.system {
		return // The home may be another's.
	}
	home, err := a.home()
	if err != nil {
		return
	}
	if c, err := a.readConfig(home); err == nil && c.Keychain == keychain.KindSystem && runtime.GOOS == "linux" {
		a.say("%s", wrap("The keys of this device are in the keychain of your desktop: until you sign in, it is locked, and the agent waits for it."))
	}
}

// uninstall ends the service and removes what install wrote.
func (a *app) uninstall(ctx context.Context, s *service) error {
	type removedJSON struct {
		Removed *string `json:"removed"`
		Running bool    `json:"running"`
	}
	path, err := a.servicePath(s)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		a.say("There is no service: %s", printable(path))
		return a.emit(removedJSON{Running: a.agentRuns()})
	}
	if err := ourUnit(path); err != nil {
		return err
	}
	before, after := s.stop(runtime.GOOS)
	if !managed() {
		before, after = nil, nil // It runs nothing, so there is nothing to end.
	}
	for _, command := range before {
		if err := a.manage(ctx, command); err != nil {
			a.note("%s", errorText(err)) // It may not run at all, and then the file is what is left.
		}
	}
	if err := (durable.Disk{}).Remove(path); err != nil {
		return rootHint(err, s)
	}
	for _, command := range after {
		if err := a.manage(ctx, command); err != nil {
			a.note("%s", errorText(err))
		}
	}
	a.say("Removed: %s", printable(path))
	if a.agentRuns() { // Somebody started it in a window, or another service did.
		a.say("%s", wrap("An agent that this service did not start still runs, and saves changes until it ends: `satchel agent status` shows its process. The wallets, their backups and the agent's log stay."))
		return a.emit(removedJSON{&path, true})
	}
	a.say("Nothing saves changes by itself now. The wallets, their backups and the agent's log stay.")
	return a.emit(removedJSON{&path, false})
}

// ourUnit returns an error if there is a file that install did not write.
func ourUnit(path string) error {
	data, err := durable.Disk{}.ReadFile(path, maxUnit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && !strings.Contains(string(data), unitMark) {
		err = errors.New("satchel did not write it")
	}
	if err != nil {
		return &hintedError{fmt.Errorf("%s is left alone: %w", path, err), "look at it; put it away if you do not need it, then try again"}
	}
	return nil
}

func rootHint(err error, s *service) error {
	if s.system && errors.Is(err, fs.ErrPermission) {
		return &hintedError{err, "call it as root: sudo satchel agent …"}
	}
	return err
}

// manage runs a command of the service manager.
func (a *app) manage(ctx context.Context, command string) error {
	ctx, cancel := context.WithTimeout(ctx, managerTime)
	defer cancel()
	words := strings.Fields(command)
	if i := slices.Index(words, "bootstrap"); i > 0 { // The path may have blanks in it.
		path, err := a.servicePath(&service{})
		if err != nil {
			return err
		}
		words = append(words[:i+2], path)
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = os.Environ()
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(string(out))
	if text == "" {
		text = err.Error()
	}
	hint := ""
	switch {
	case strings.Contains(command, "disable"), strings.Contains(command, "bootout"):
	case strings.Contains(command, "--user"):
		hint = "the file is written; systemd answers a user who is signed in, which su and sudo do not do: sign in as this user, or `loginctl enable-linger`, and call this again. Without systemd, let something else start `satchel agent run`"
	default:
		hint = "the file is written; when the service manager answers, call this again"
	}
	return &hintedError{fmt.Errorf("%s: %s", command, printable(fmt.Sprintf("%.300s", text))), hint}
}
