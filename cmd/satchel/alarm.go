package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/alarm"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/secret"
)

// alarmsFile says where alarms go, in the home. What lets messages in there is in the
// keychain: passwords, secrets, and the paths of webhooks, which often are one.
const alarmsFile = "alarm.json"

const (
	maxAlarmFile = 64 << 10 // bytes in alarm.json
	maxAlarms    = 20
	// minSecret is how short the secret of a webhook may be. Whoever got a message can try
	// short ones.
	minSecret = 16
)

type alarmList struct {
	Alarms []alarmRecord `json:"alarms"`
}

// alarmRecord is one that is told.
type alarmRecord struct {
	ID      string       `json:"id"`
	Webhook string       `json:"webhook,omitempty"` // the server, without the path
	Mail    string       `json:"mail,omitempty"`    // the address
	Server  string       `json:"server,omitempty"`  // of mail
	From    string       `json:"from,omitempty"`
	User    string       `json:"user,omitempty"`
	Signed  bool         `json:"signed,omitempty"` // webhook: with a secret
	Detail  alarm.Detail `json:"detail"`
}

// alarmSecrets is what the keychain holds of one, as JSON.
type alarmSecrets struct {
	URL      string `json:"url,omitempty"`
	Secret   []byte `json:"secret,omitempty"`
	Password []byte `json:"password,omitempty"`
}

func (r alarmRecord) keychainName() string { return "alarm-" + r.ID }

// to names where an alarm goes, for people.
func (r alarmRecord) to() string {
	if r.Webhook != "" {
		return r.Webhook + "/…"
	}
	return r.Mail
}

// kind is what an alarm is sent by.
func (r alarmRecord) kind() string {
	if r.Webhook != "" {
		return "webhook"
	}
	return "mail"
}

// alarms lists where alarms go.
func (a *app) alarms() ([]alarmRecord, error) {
	home, err := a.home()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(home, alarmsFile)
	data, err := durable.Disk{}.ReadFile(path, maxAlarmFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var l alarmList
	if err := json.Unmarshal(data, &l); err != nil || len(l.Alarms) > maxAlarms {
		return nil, fmt.Errorf("%s is not what satchel wrote: put it away, and add the alarms again with `satchel alarm add`", path)
	}
	return l.Alarms, nil
}

func (a *app) setAlarms(list []alarmRecord) error {
	home, err := a.home()
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(alarmList{list}, "", "  ")
	if err != nil {
		return err
	}
	var disk durable.Disk
	if err := disk.MkdirAll(home, 0o700); err != nil {
		return err
	}
	return disk.WriteFile(filepath.Join(home, alarmsFile), append(data, '\n'), 0o600)
}

// alarmReceiver is what sends to one. k is not asked if secrets is not nil.
func (a *app) alarmReceiver(r alarmRecord, k keychain.Keychain, secrets *alarmSecrets) (alarm.Receiver, error) {
	if secrets == nil {
		secrets = &alarmSecrets{}
		text, err := k.Get(r.keychainName())
		if err == nil {
			err = json.Unmarshal(text.Open(), secrets)
		}
		if errors.Is(err, keychain.ErrNotFound) && r.Mail != "" {
			err = nil // A server without a password.
		}
		if err != nil {
			return nil, fmt.Errorf("reading what opens an alarm's way: %w", err)
		}
	}
	if r.Webhook != "" {
		return &alarm.Webhook{URL: secrets.URL, Secret: secret.New(secrets.Secret), Transport: a.transport(), Now: a.now}, nil
	}
	roots, err := a.roots()
	return &alarm.Mail{Server: r.Server, From: r.From, To: r.Mail, User: r.User, Password: secret.New(secrets.Password), Roots: roots}, err
}

// roots are the certificates that are good beside the system's; nil if none are.
func (a *app) roots() (*x509.CertPool, error) {
	if file := a.getenv("SATCHEL_CA_FILE"); file != "" {
		return withCertificates(file)
	}
	return nil, nil
}

func (a *app) alarmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "alarm",
		Short: "Be told by mail or a webhook when something is wrong",
		Long: `A backup that nobody looks at has to tell by itself when something is wrong. The
agent ("satchel agent run") does: if a wallet is not protected for an hour, is not kept
up to date any more, if a place is full, wants to be signed in to, lost something, or is
away for a day, if what is to be saved cannot be read, and if nobody tried a restore for
90 days. It tells once, then once a day, and it tells when it is over.

Messages hold no secret and no value of an item. They go through others' hands, so they
name a wallet by its label and a place by its kind only; --detail says less, or more.`,
		Example: `  satchel alarm add mail me@example.org --smtp mail.example.org:587 \
    --user me@example.org
  satchel alarm add webhook https://ntfy.example.org/my-topic
  satchel alarm test
  satchel alarm list`,
		Args:        noSuchCommand,
		Annotations: exits(satchel.CodeDone, satchel.CodeUsage),
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.alarmAddCommand(), a.alarmListCommand(), a.alarmTestCommand(), a.alarmRemoveCommand())
	return cmd
}

func (a *app) alarmAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Add one that is told",
		Long: `Adds a mail address or a webhook that the agent tells when something is wrong. A
test message goes there first: what does not arrive is not added.`,
		Example: `  satchel alarm add mail me@example.org --smtp mail.example.org:587 \
    --user me@example.org
  satchel alarm add webhook https://ntfy.example.org/my-topic`,
		Args:        noSuchCommand,
		Annotations: exits(satchel.CodeDone, satchel.CodeUsage),
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.alarmAddWebhookCommand(), a.alarmAddMailCommand())
	return cmd
}

// alarmFlags are those of what is added.
type alarmFlags struct {
	detail   string
	untested bool
}

func (f *alarmFlags) on(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.detail, "detail", string(alarm.Label), "what messages may name: label (of the wallet, and the kind of place), least (neither), or all (also addresses of places, and errors)")
	cmd.Flags().BoolVar(&f.untested, "untested", false, "send no test message")
}

func (f *alarmFlags) check() (alarm.Detail, error) {
	d := alarm.Detail(f.detail)
	if d != alarm.Label && d != alarm.Least && d != alarm.All {
		return "", usagef("--detail is label, least or all")
	}
	return d, nil
}

var alarmExits = []satchel.Code{satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodeInterrupted}

const alarmAddJSON = `JSON: id, kind, to, tested.`

// webhookURL returns the URL of a webhook, from where it was given.
func (a *app) webhookURL(ctx context.Context, got []string, fd int) (string, error) {
	var u secret.Bytes
	var err error
	switch {
	case len(got) > 0 && fd != noFD:
		return "", usagef("the URL is given twice: as an argument and with --url-fd")
	case len(got) > 0:
		return got[0], nil
	case fd != noFD:
		u, err = a.fromFD(ctx, fd, "--url-fd")
	case a.term != nil:
		u, err = a.term.secret(ctx, "URL of the webhook (not shown): ")
	default:
		err = needFlag("the URL of the webhook", "--url-fd N")
	}
	return string(u.Open()), err
}

func (a *app) alarmAddWebhookCommand() *cobra.Command {
	var f alarmFlags
	fd, urlFD := noFD, noFD
	cmd := &cobra.Command{
		Use:   "webhook [URL]",
		Short: "Add a server that takes messages as JSON",
		Long: `Adds a URL to which messages are posted as JSON, https only, or http on this machine.
Whatever answers 2xx took the message; redirects are not followed. With --secret-fd each
message is signed with that secret (HMAC-SHA256), so that the server knows who sent it.
docs/alarms.md says what is in a message, and how the signature is checked.

The path of the URL often lets messages in: it is kept in the keychain, and not shown.
So that other programs and the history of the shell do not see it either, leave URL
out: then it is asked for, or comes from --url-fd.

` + alarmAddJSON,
		Example: `  satchel alarm add webhook
  satchel alarm add webhook --url-fd 3 3<url
  satchel alarm add webhook https://ntfy.example.org/my-topic
  satchel alarm add webhook https://example.org/hooks/satchel \
    --secret-fd 3 3<secret`,
		Args:        args(cobra.MaximumNArgs(1)),
		Annotations: exits(alarmExits...),
		RunE: func(cmd *cobra.Command, got []string) error {
			d, err := f.check()
			if err != nil {
				return err
			}
			to, err := a.webhookURL(cmd.Context(), got, urlFD)
			if err != nil {
				return err
			}
			if err := alarm.CheckURL(to); err != nil {
				return &usageError{text: err.Error(), hint: "such as https://example.org/hooks/1; http:// only on this machine"}
			}
			u, err := url.Parse(to)
			if err != nil {
				return err
			}
			r := alarmRecord{Webhook: u.Scheme + "://" + u.Host, Signed: fd != noFD, Detail: d}
			secrets := alarmSecrets{URL: to}
			if fd != noFD {
				s, err := a.fromFD(cmd.Context(), fd, "--secret-fd")
				if err != nil {
					return err
				}
				if s.Len() < minSecret {
					return &usageError{text: fmt.Sprintf("the secret is shorter than %d bytes", minSecret), hint: "`openssl rand -hex 32` makes a good one"}
				}
				secrets.Secret = s.Open()
			}
			return a.alarmAdd(cmd.Context(), r, secrets, f.untested)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().IntVar(&urlFD, "url-fd", noFD, "read the URL from file descriptor `N`, one line")
	cmd.Flags().IntVar(&fd, "secret-fd", noFD, "read a secret to sign messages with from file descriptor `N`, one line")
	f.on(cmd)
	return cmd
}

func (a *app) alarmAddMailCommand() *cobra.Command {
	var f alarmFlags
	var r alarmRecord
	cmd := &cobra.Command{
		Use:   "mail ADDRESS --smtp HOST:PORT",
		Short: "Add a mail address",
		Long: `Adds a mail address, and the mail server that takes mail for it: that of your mail
provider, mostly on port 587 or 465. It is spoken to over TLS only, from the beginning
on port 465 and by STARTTLS on others; a server on this machine may do without. The
password is typed when it asks, or given by --password-fd, and kept in the keychain.
Many providers have passwords for one program alone: take such a one.

` + alarmAddJSON,
		Example: `  satchel alarm add mail me@example.org --smtp mail.example.org:587 \
    --user me@example.org
  satchel alarm add mail me@example.org --smtp mail.example.org:465 \
    --user me@example.org --password-fd 3 3<password
  satchel alarm add mail root@localhost --smtp localhost:25 \
    --from satchel@localhost`,
		Args:        args(cobra.ExactArgs(1)),
		Annotations: exits(alarmExits...),
		RunE: func(cmd *cobra.Command, got []string) error {
			ctx := cmd.Context()
			var err error
			if r.Detail, err = f.check(); err != nil {
				return err
			}
			if r.Mail = got[0]; r.From == "" {
				r.From = r.Mail
				if strings.Contains(r.User, "@") {
					r.From = r.User
				}
			}
			if r.Server == "" {
				return &usageError{text: "which server takes the mail?", hint: "--smtp mail.example.org:587, as your mail provider says"}
			}
			if err := (&alarm.Mail{Server: r.Server, From: r.From, To: r.Mail, User: r.User}).Check(); err != nil {
				return usagef("%v", err)
			}
			var secrets alarmSecrets
			var password secret.Bytes
			switch {
			case a.passwordFD != noFD && r.User == "":
				return usagef("--password-fd needs --user")
			case a.passwordFD != noFD:
				password, err = a.fromFD(ctx, a.passwordFD, "--password-fd")
			case r.User != "" && a.term != nil:
				password, err = a.term.secret(ctx, "Password of "+printable(r.User)+" at the mail server (not shown): ")
			case r.User != "":
				err = needFlag("the password for the mail server", "--password-fd N")
			}
			if err != nil {
				return err
			}
			secrets.Password = password.Open()
			return a.alarmAdd(ctx, r, secrets, f.untested)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&r.Server, "smtp", "", "the mail server, as `HOST:PORT`")
	cmd.Flags().StringVar(&r.From, "from", "", "the `ADDRESS` that mail comes from (the user, if that is one, or the same as it goes to)")
	cmd.Flags().StringVar(&r.User, "user", "", "the `NAME` to sign in to the mail server with")
	a.passwordFlag(cmd)
	f.on(cmd)
	return cmd
}

// alarmAdd tries an alarm, and keeps it.
func (a *app) alarmAdd(ctx context.Context, r alarmRecord, secrets alarmSecrets, untested bool) error {
	list, err := a.alarms()
	if err != nil {
		return err
	}
	if len(list) >= maxAlarms {
		return usagef("there are %d alarms already", len(list))
	}
	random := secret.Random(4)
	r.ID = hex.EncodeToString(random.Open())
	text, err := json.Marshal(secrets)
	if err != nil {
		return err
	}
	if len(text) > keychain.MaxSecret {
		return usagef("the address and its secret are too long: %d bytes at most together", keychain.MaxSecret)
	}
	if !untested {
		to, err := a.alarmReceiver(r, nil, &secrets)
		if err == nil {
			err = a.alarmSend(ctx, to)
		}
		if err != nil {
			return fmt.Errorf("nothing was added: %w", err)
		}
	}
	k, err := a.homeKeychain()
	if err == nil {
		err = k.Set(r.keychainName(), secret.New(text))
	}
	if err != nil {
		return fmt.Errorf("keeping what opens its way: %w", err)
	}
	// A crash here leaves a secret that nothing names.
	if err := a.setAlarms(append(list, r)); err != nil {
		return errors.Join(err, k.Delete(r.keychainName()))
	}
	if untested {
		a.say("Added %s %s: %s", r.kind(), printable(r.to()), r.ID)
	} else {
		a.say("Added %s %s: %s. A test message was taken there: did it arrive?", r.kind(), printable(r.to()), r.ID)
	}
	if !a.agentRuns() {
		a.say("It is the agent that tells: `satchel agent run` does not run now.")
	}
	return a.emit(struct {
		ID     string `json:"id"`
		Kind   string `json:"kind"`
		To     string `json:"to"`
		Tested bool   `json:"tested"`
	}{r.ID, r.kind(), r.to(), !untested})
}

// alarmTime is how long a test message may take.
const alarmTime = time.Minute

func (a *app) alarmSend(ctx context.Context, to alarm.Receiver) error {
	ctx, cancel := context.WithTimeout(ctx, alarmTime)
	defer cancel()
	return to.Send(ctx, alarm.TestMessage(a.now()))
}

func (a *app) alarmListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List who is told, and whether messages arrive",
		Long: `Lists who is told, and when a message was last taken there, or since when and why
none is. It asks nobody.

JSON, one object an alarm: id, kind (webhook or mail), to, server, from, user, signed,
detail, sent (when a message was last taken, or null), failing (since when none is, or
null), error, waiting (how much it has to be told and was not).`,
		Example:     `  satchel alarm list`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := a.alarms()
			if err != nil {
				return err
			}
			if len(list) == 0 {
				a.say("Nobody is told yet: `satchel alarm add --help`")
			}
			home, err := a.home()
			if err != nil {
				return err
			}
			standings, err := alarm.Standings(alarmState(home))
			if err != nil {
				a.note("%s", errorText(err))
			}
			for _, r := range list {
				s := standings[r.ID]
				a.say("%s  %s %s, detail %s", r.ID, r.kind(), printable(r.to()), r.Detail)
				switch {
				case !s.Failing.IsZero():
					a.sayHanging("          ", fmt.Sprintf("not taken since %s: %s", moment(s.Failing), printable(s.Error)))
				case !s.Sent.IsZero():
					a.sayHanging("          ", "last message taken "+moment(s.Sent))
				default:
					a.sayHanging("          ", "told nothing yet")
				}
				if err := a.emit(struct {
					ID      string       `json:"id"`
					Kind    string       `json:"kind"`
					To      string       `json:"to"`
					Server  string       `json:"server,omitempty"`
					From    string       `json:"from,omitempty"`
					User    string       `json:"user,omitempty"`
					Signed  bool         `json:"signed"`
					Detail  alarm.Detail `json:"detail"`
					Sent    *time.Time   `json:"sent"`
					Failing *time.Time   `json:"failing"`
					Error   string       `json:"error,omitempty"`
					Waiting int          `json:"waiting"`
				}{r.ID, r.kind(), r.to(), r.Server, r.From, r.User, r.Signed, r.Detail, stamp(s.Sent), stamp(s.Failing), s.Error, s.Waiting}); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// chooseAlarms returns those that are named by their id, or by where they go.
func chooseAlarms(list []alarmRecord, name string) ([]alarmRecord, error) {
	var chosen []alarmRecord
	for _, r := range list {
		if r.ID == name || r.Mail == name || r.Webhook != "" && (r.Webhook == name || strings.HasPrefix(name, r.Webhook+"/")) {
			chosen = append(chosen, r)
		}
	}
	switch {
	case len(chosen) == 0:
		return nil, &usageError{text: "no alarm goes there: " + printable(name), hint: "`satchel alarm list` shows them"}
	case len(chosen) > 1:
		return nil, &usageError{text: "several alarms go there", hint: "name one by its id: `satchel alarm list` shows them"}
	}
	return chosen, nil
}

func (a *app) completeAlarm(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	list, _ := a.alarms()
	var ids []string
	for _, r := range list {
		ids = append(ids, r.ID+"\t"+r.to())
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) alarmTestCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "test [ID]",
		Short: "Send a test message",
		Long: `Sends a test message to everyone who is told, or to the one that is named by its id,
its address or its server. Whether it arrived, only you can see.

JSON, one object an alarm: id, kind, to, taken, error.`,
		Example: `  satchel alarm test
  satchel alarm test me@example.org`,
		Args:              args(cobra.MaximumNArgs(1)),
		Annotations:       exits(append(slices.Clone(alarmExits), satchel.CodePartly)...),
		ValidArgsFunction: a.completeAlarm,
		RunE: func(cmd *cobra.Command, got []string) error {
			list, err := a.alarms()
			if err == nil && len(got) == 1 {
				list, err = chooseAlarms(list, got[0])
			}
			if err != nil {
				return err
			}
			if len(list) == 0 {
				return &usageError{text: "nobody is told yet", hint: "`satchel alarm add --help`"}
			}
			k, err := a.homeKeychain()
			if err != nil {
				return err
			}
			var first error
			taken := 0
			for _, r := range list {
				to, err := a.alarmReceiver(r, k, nil)
				if err == nil {
					err = a.alarmSend(cmd.Context(), to)
				}
				j := struct {
					ID    string `json:"id"`
					Kind  string `json:"kind"`
					To    string `json:"to"`
					Taken bool   `json:"taken"`
					Error string `json:"error,omitempty"`
				}{r.ID, r.kind(), r.to(), err == nil, ""}
				if err != nil {
					err = fmt.Errorf("%s %s: %w", r.kind(), printable(r.to()), err)
					j.Error = errorText(err)
					if len(list) > 1 {
						a.note("%s", j.Error)
					}
					if first == nil {
						first = err
					}
				} else {
					taken++
					a.say("Taken by %s %s: did it arrive?", r.kind(), printable(r.to()))
				}
				if err := a.emit(j); err != nil {
					return err
				}
			}
			if first != nil && taken > 0 && cmd.Context().Err() == nil {
				return errPartly
			}
			return first
		},
	}
}

func (a *app) alarmRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove ID",
		Short: "Tell somebody no more",
		Long: `Takes out one that is told, named by its id, its address or its server, and what the
keychain holds of it.

JSON: id, kind, to, removed.`,
		Example:           `  satchel alarm remove me@example.org`,
		Args:              args(cobra.ExactArgs(1)),
		Annotations:       exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage),
		ValidArgsFunction: a.completeAlarm,
		RunE: func(cmd *cobra.Command, got []string) error {
			list, err := a.alarms()
			if err != nil {
				return err
			}
			chosen, err := chooseAlarms(list, got[0])
			if err != nil {
				return err
			}
			r := chosen[0]
			if err := a.setAlarms(slices.DeleteFunc(list, func(o alarmRecord) bool { return o.ID == r.ID })); err != nil {
				return err
			}
			// A crash here leaves a secret that nothing names.
			k, err := a.homeKeychain()
			if err == nil {
				err = k.Delete(r.keychainName())
			}
			if err != nil {
				a.note("it is told no more, but its secret is still in the keychain: %s", errorText(err))
			}
			a.say("Removed: %s %s", r.kind(), printable(r.to()))
			return a.emit(struct {
				ID      string `json:"id"`
				Kind    string `json:"kind"`
				To      string `json:"to"`
				Removed bool   `json:"removed"`
			}{r.ID, r.kind(), r.to(), true})
		},
	}
}
