package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/signin"
	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/dropbox"
	"github.com/satchel-backup/satchel/store/gdrive"
	"github.com/satchel-backup/satchel/store/onedrive"
	"github.com/satchel-backup/satchel/store/onepassword"
	"github.com/satchel-backup/satchel/store/webdav"
)

// passwordTries is how often a password may be mistyped.
const passwordTries = 3

// passwordFlag is for commands that may sign in to a place.
func (a *app) passwordFlag(cmd *cobra.Command) {
	cmd.Flags().IntVar(&a.passwordFD, "password-fd", noFD, "read the password or secret key of a server from file descriptor `N`, one line")
}

// keeper keeps the sign-ins of this device.
func (a *app) keeper() *signin.Keeper {
	home, homeErr := a.home()
	return &signin.Keeper{Dir: filepath.Join(home, "sign-ins"), Now: a.now, Keychain: func() (keychain.Keychain, error) {
		if homeErr != nil {
			return nil, homeErr
		}
		return a.openKeychain(home)
	}}
}

// choosePlace opens a place that the user names, and signs in to it first if that was not
// done before. create is as for openPlace.
func (a *app) choosePlace(ctx context.Context, address string, create bool) (store.Place, error) {
	k := cloudOf(address)
	if k == nil {
		return a.openPlace(address, create)
	}
	address, err := k.check(address)
	if err != nil {
		return store.Place{}, err
	}
	if a.transport(); a.network.err != nil {
		return store.Place{}, usageOf(a.network.err)
	}
	if address, err = a.signIn(ctx, k, address, false); err != nil {
		return store.Place{}, err
	}
	if create {
		// What cannot be looked into is not taken in.
		s, err := a.openSigned(k, address)
		if err != nil {
			return store.Place{}, err
		}
		if folder, ok := s.(interface{ Create(context.Context) error }); ok {
			err = folder.Create(ctx)
		} else {
			_, err = s.List(ctx, seal.FolderPrefix)
		}
		if err != nil {
			return store.Place{}, fmt.Errorf("%s: %w", printable(address), err)
		}
	}
	return a.openCloud(k, address)
}

// signIn sees to it that there is a sign-in for an address, a new one if again, and
// returns the address with the name of the account in it.
func (a *app) signIn(ctx context.Context, k *cloudKind, address string, again bool) (string, error) {
	switch k.signing {
	case browser:
		return a.signInByBrowser(ctx, k, address, again)
	case password:
		return address, a.signInByPassword(ctx, k, address, again)
	case account:
		return address, a.rememberAccount(ctx, k, address, again)
	}
	return address, nil
}

// signInByBrowser signs in to a provider.
func (a *app) signInByBrowser(ctx context.Context, k *cloudKind, address string, again bool) (string, error) {
	login, folder := splitAccount(address)
	list, err := a.logins(k)
	if err != nil {
		return "", err
	}
	if login == k.scheme+":" && len(list) > 0 && !again {
		if len(list) > 1 {
			return "", &usageError{text: "several accounts of " + k.name + " are signed in", hint: "say which: " + orList(list)}
		}
		login = list[0]
	}
	old := signin.Record{Address: login}
	if slices.Contains(list, login) {
		old, err = a.keeper().Get(login)
		if err != nil && !errors.Is(err, store.ErrSignIn) {
			return "", err
		}
		if err == nil && !again && !old.Tokens.Refresh.Empty() {
			return join(login, folder), nil
		}
	}
	client, clientSecret, err := a.client(k, old)
	if err != nil {
		return "", err
	}
	if a.term == nil {
		return "", &usageError{
			text: "signing in to " + k.name + " needs a person, and there is no terminal to ask on",
			hint: "run this once on a terminal without --json: satchel store signin " + shellQuote(address),
		}
	}
	p, err := a.provider(address, client, clientSecret)
	if err != nil {
		return "", err
	}
	tokens, err := a.askBrowser(ctx, k, p)
	if err != nil {
		return "", fmt.Errorf("signing in to %s: %w", k.name, err)
	}
	id, name, err := a.whose(ctx, k, tokens)
	if err != nil {
		return "", fmt.Errorf("asking %s whose account it is: %w", k.name, err)
	}
	got := k.scheme + ":" + name
	for _, known := range list {
		if same, _ := a.keeper().Whose(known, id); same {
			got = known // It has another name there by now, and is no other place.
		}
	}
	switch {
	case strings.Contains(name, "/") || name == "" || printable(name) != name:
		return "", fmt.Errorf("the account's name is not usable in an address")
	case login != k.scheme+":" && got != login, old.Account != "" && old.Account != id:
		return "", &hintedError{
			fmt.Errorf("signed in to %s, and not to %s: %w; nothing was changed", printable(got), printable(login), store.ErrWrongAccount),
			"choose the other account in the browser; or take this one as another place: satchel store add " + k.scheme + ":",
		}
	}
	if same, known := a.keeper().Whose(got, id); known && !same {
		return "", fmt.Errorf("another account had the name %s: %w; nothing was changed", printable(got), store.ErrWrongAccount)
	}
	// Another user of this computer can see the address that the browser is given, and
	// come back with an account of their own: so the person is asked, where no address said
	// whose it must be.
	if got != login && !slices.Contains(list, got) {
		yes, err := a.term.yes(ctx, fmt.Sprintf("Signed in to %s as %s. Is that your account?", k.name, a.term.strong(printable(name))), true)
		if err != nil {
			return "", err
		}
		if !yes {
			return "", fmt.Errorf("%w: it is not yours; nothing was kept", store.ErrWrongAccount)
		}
	} else {
		a.term.print("Signed in to %s as %s.\n\n", k.name, a.term.strong(printable(name)))
	}
	if err := a.keeper().Put(ctx, signin.Record{Address: got, Account: id, Tokens: tokens, Client: client, ClientSecret: clientSecret}); err != nil {
		return "", err
	}
	return join(got, folder), nil
}

func join(login, folder string) string {
	if folder == "" {
		return login
	}
	return login + "/" + folder
}

// client returns what this program signs in with at a provider: as the environment says,
// or as the last time.
func (a *app) client(k *cloudKind, old signin.Record) (id string, clientSecret secret.Bytes, err error) {
	prefix := "SATCHEL_" + strings.ToUpper(k.scheme) + "_CLIENT_"
	if id := a.getenv(prefix + "ID"); id != "" {
		return id, secret.FromString(a.getenv(prefix + "SECRET")), nil
	}
	if old.Client != "" {
		return old.Client, old.ClientSecret, nil
	}
	return "", secret.Bytes{}, &usageError{
		text: "this satchel is not registered at " + k.name,
		hint: "get a client id there, which takes some minutes (docs/providers.md shows how), and set " + prefix + "ID, and " + prefix + "SECRET if there is one",
	}
}

// askBrowser lets the user sign in.
func (a *app) askBrowser(ctx context.Context, k *cloudKind, p signin.Provider) (signin.Tokens, error) {
	a.term.print("%s\n", wrap("Signing in to "+k.name+", in the browser. What Satchel may do there is shown; it sees nothing of what others put there."))
	outer := ctx // Where the browser was quicker, the line that is asked for is still typed.
	var paste func(context.Context) (string, error)
	program := a.browser()
	if program == nil {
		asked := false
		paste = func(ctx context.Context) (string, error) {
			if asked {
				a.term.print("That is not the address of this sign-in, or no answer has come yet. It begins with\nhttp:// and holds code= and state=.\n")
			}
			asked = true
			typed, err := a.term.line(outer, "Address at the end, or Enter when the browser says that it is done: ")
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return typed, err
		}
	}
	return p.Ask(ctx, func(address string) {
		if program != nil {
			cmd := exec.Command(program[0], append(program[1:], address)...)
			if err := cmd.Start(); err == nil {
				go func() { _ = cmd.Wait() }()
				a.term.print("If no browser opens, open this address there:\n\n%s\n\n", address)
				return
			}
		}
		a.term.print("%s\n\n%s\n\n", wrap("No browser was found on this machine. Open this address on any machine. If the browser then ends at an address on 127.0.0.1 or localhost that it cannot open, copy that address here."), address)
	}, paste)
}

// browser returns the command that shows an address, nil if there is none.
func (a *app) browser() []string {
	if b := a.getenv("BROWSER"); b != "" {
		return []string{b}
	}
	switch runtime.GOOS {
	case "windows":
		return []string{"rundll32", "url.dll,FileProtocolHandler"}
	case "darwin":
		return []string{"open"}
	}
	if a.getenv("DISPLAY") == "" && a.getenv("WAYLAND_DISPLAY") == "" {
		return nil
	}
	if _, err := exec.LookPath("xdg-open"); err != nil {
		return nil
	}
	return []string{"xdg-open"}
}

// whose asks a provider whose tokens these are.
func (a *app) whose(ctx context.Context, k *cloudKind, tokens signin.Tokens) (id, name string, err error) {
	c := web.New(web.Config{Tokens: tokens.Fixed(), Transport: a.transport()})
	switch k.scheme {
	case "gdrive":
		return gdrive.Account(ctx, c)
	case "dropbox":
		return dropbox.Account(ctx, c)
	case "onedrive":
		return onedrive.Account(ctx, c)
	}
	return "", "", errors.New("no such provider")
}

// signInByPassword asks for the password to a server, tries it, and keeps it.
func (a *app) signInByPassword(ctx context.Context, k *cloudKind, address string, again bool) error {
	login := k.login(address)
	s3 := strings.HasPrefix(k.scheme, "s3")
	switch {
	case login == "" && s3:
		return usagef("the access key is missing in the address: %s", k.form)
	case login == "" && a.passwordFD != noFD:
		return usagef("whose password it is must be in the address: %s", cloudOf("webdav+https:").form)
	case login == "":
		err := a.letIn(ctx, k, address, signin.Record{})
		if errors.Is(err, store.ErrSignIn) {
			return &usageError{text: "the server asks who it is", hint: "the address names the user: " + cloudOf("webdav+https:").form}
		}
		return nil // Whatever else is wrong its first use tells.
	}
	kept, err := a.keeper().Get(login)
	if err != nil && !errors.Is(err, store.ErrSignIn) {
		return err
	}
	if err == nil && !again && (a.passwordFD == noFD || a.signedIn == login) {
		if a.term == nil || a.signedIn == login || !errors.Is(a.letIn(ctx, k, address, kept), store.ErrSignIn) {
			return nil
		}
		a.term.print("The server refuses the password that it took before.\n")
	}
	if a.passwordFD == noFD && a.term == nil {
		return needFlag("the password for "+printable(login), "--password-fd N")
	}
	what := "password"
	if s3 {
		what = "secret key"
	}
	for try := 1; ; try++ {
		var typed secret.Bytes
		var err error
		if a.passwordFD != noFD {
			if typed, err = a.fromFD(ctx, a.passwordFD, "--password-fd"); err != nil {
				return &hintedError{fmt.Errorf("the %s for %s: %w", what, printable(login), err), "with several servers sign in to each by itself first: satchel store signin PLACE"}
			}
		} else if typed, err = a.term.secret(ctx, fmt.Sprintf("%s for %s (not shown): ", upperFirst(what), printable(login))); err != nil {
			return err
		}
		r := signin.Record{Address: login, Password: typed}
		err = a.letIn(ctx, k, address, r)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, store.ErrSignIn) && a.passwordFD == noFD && try < passwordTries:
			a.term.print("The server refuses that %s.\n", what)
			continue
		case errors.Is(err, store.ErrSignIn):
			hint := "Nextcloud and others want a password made for this program (in the settings, under security); look also at the user's name"
			if s3 {
				hint = "look at both: the key's id in the address, and the secret that belongs to it"
			}
			return &hintedError{fmt.Errorf("the server refuses the %s for %s: %w", what, printable(login), store.ErrSignIn), hint}
		case err != nil:
			// Nobody said that it is right, and an earlier one may be.
			return fmt.Errorf("trying the %s for %s: %w", what, printable(login), err)
		}
		a.signedIn = login
		return a.keeper().Put(ctx, r)
	}
}

// letIn returns nil if a server lets in with a sign-in, also where the folder is not there
// yet.
func (a *app) letIn(ctx context.Context, k *cloudKind, address string, r signin.Record) error {
	s, err := k.open(a, address, r)
	if err != nil {
		return usageOf(err)
	}
	a.progress.update(satchel.Progress{Stage: satchel.Searching})
	// Who may list one folder may list all, and one that no backup has is soon listed: of
	// the others a server of files is asked folder by folder.
	_, err = s.List(ctx, seal.FolderPrefix+"/")
	a.progress.pause()
	if errors.Is(err, webdav.ErrMissing) || errors.Is(err, webdav.ErrEmpty) {
		return nil
	}
	return err
}

// rememberAccount keeps whose account another program is signed in to, or if again looks
// whether it still is.
func (a *app) rememberAccount(ctx context.Context, k *cloudKind, address string, again bool) error {
	login := k.login(address)
	if _, err := a.keeper().Get(login); err == nil && !again || err != nil && !errors.Is(err, store.ErrSignIn) {
		return err
	}
	s, err := onepassword.New(strings.TrimPrefix(address, "1password:"), onepassword.Config{})
	if err != nil {
		return usageOf(err)
	}
	who, err := s.Account(ctx)
	if err != nil {
		return err
	}
	if same, known := a.keeper().Whose(login, who.ID); known && !same {
		return fmt.Errorf("another account was signed in to for %s: %w; nothing was changed", printable(login), store.ErrWrongAccount)
	}
	return a.keeper().Put(ctx, signin.Record{Address: login, Account: who.ID})
}

func (a *app) storeSigninCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "signin PLACE",
		Short: "Sign in to a place again",
		Long: `Signs in to a cloud or a server again, as after its password was changed or the
permission was taken back, and only to the account that holds the backup. The
browser opens for Google Drive, Dropbox and OneDrive. On a machine without one the
address is printed: open it on any other machine, and paste the address at which that
browser ends. Passwords and tokens are kept on this device, sealed under a key in its
keychain.

The wallets that are kept there look at it at once, and bring what it lacks.

JSON: address, wallets (name, error, places as in "satchel store list").`,
		Example: `  satchel store signin gdrive:ann@example.org
  satchel store signin webdav+https://ann@example.org/remote.php/dav/files/ann`,
		Args: args(cobra.ExactArgs(1)),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodeSignIn, satchel.CodeWrongAccount,
			satchel.CodeUnreachable, satchel.CodeInterrupted),
		ValidArgsFunction: a.completeLogins,
		RunE: func(cmd *cobra.Command, args []string) error {
			k, address, err := signsIn(args[0])
			if err != nil {
				return err
			}
			if address, err = a.signIn(cmd.Context(), k, address, true); err != nil {
				return err
			}
			a.say("Signed in: %s", printable(address))
			wallets, err := a.lookAgain(cmd.Context(), k.login(address))
			if err != nil {
				return err
			}
			return a.emit(struct {
				Address string       `json:"address"`
				Wallets []walletSeen `json:"wallets"`
			}{address, wallets})
		},
	}
	a.passwordFlag(cmd)
	return cmd
}

// walletSeen is a wallet that looked at a place after a sign-in.
type walletSeen struct {
	Name   string      `json:"name"`
	Error  string      `json:"error,omitempty"`
	Places []placeJSON `json:"places"`
}

// lookAgain lets the wallets that are kept where a sign-in opens look there, and brings
// what is late: what status says of the place was true before. The error is that of ctx:
// the sign-in is good, whatever stands in the way of a wallet.
func (a *app) lookAgain(ctx context.Context, login string) ([]walletSeen, error) {
	seen := []walletSeen{}
	devices, err := a.devices()
	if err != nil {
		a.note("no wallet looked there: %s", errorText(err))
	}
	opens := func(address string) bool {
		k := cloudOf(address)
		return k != nil && k.login(address) == login
	}
	for _, d := range devices {
		if !slices.ContainsFunc(d.info.Places, opens) {
			continue
		}
		w := walletSeen{Name: d.name, Places: []placeJSON{}}
		b, err := a.openDevice(ctx, d)
		if err == nil {
			if _, err = b.Sync(ctx); errors.Is(err, satchel.ErrNotProtected) {
				err = nil // Each place says how it stands.
			}
			places := slices.DeleteFunc(b.Status().Places, func(p satchel.PlaceStatus) bool { return !opens(p.Address) })
			b.Close()
			w.Places = placesJSON(places)
			a.progress.pause()
			if ctx.Err() == nil && err == nil {
				a.say("\n%s:", a.bold(printable(d.name)))
				a.sayPlaces(places)
			}
		}
		if ctx.Err() != nil {
			return seen, ctx.Err()
		}
		if err != nil {
			w.Error = errorText(err)
			a.note("%s: %s", d.name, w.Error)
		}
		seen = append(seen, w)
	}
	if len(seen) == 0 {
		a.say("No wallet of this device is kept there.")
	}
	return seen, nil
}

func (a *app) storeSignoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "signout PLACE",
		Short: "Forget how this device signs in to a place",
		Long: `Forgets the password or the tokens for a cloud or a server. The backup there stays;
the next change of a wallet that is kept there says that a sign-in is needed. Which account it was is
remembered, so that the next sign-in cannot be to another one by mistake. To take the
permission back at the provider too, use its own settings.`,
		Example:           `  satchel store signout gdrive:ann@example.org`,
		Args:              args(cobra.ExactArgs(1)),
		Annotations:       exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage),
		ValidArgsFunction: a.completeLogins,
		RunE: func(cmd *cobra.Command, args []string) error {
			k, address, err := signsIn(args[0])
			if err != nil {
				return err
			}
			login := k.login(address)
			r, err := a.keeper().Get(login)
			switch {
			case errors.Is(err, store.ErrSignIn):
				return usagef("this device is not signed in to %s", printable(login))
			case err != nil:
				return err
			case r.Account == "":
				err = a.keeper().Delete(login)
			default:
				err = a.keeper().Put(cmd.Context(), signin.Record{Address: login, Account: r.Account, Client: r.Client, ClientSecret: r.ClientSecret})
			}
			if err != nil {
				return err
			}
			a.say("Signed out: %s", printable(login))
			return nil
		},
	}
}

// completeLogins completes what this device signs in to.
func (a *app) completeLogins(_ *cobra.Command, got []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(got) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, _ := a.keeper().List()
	list = slices.DeleteFunc(list, func(login string) bool { return strings.HasPrefix(login, lndSignIn) })
	return list, cobra.ShellCompDirectiveNoFileComp
}

// signsIn is for addresses of places to which one signs in.
func signsIn(address string) (*cloudKind, string, error) {
	k := cloudOf(address)
	if k == nil || k.signing == none {
		return nil, "", usagef("nobody signs in to %s", printable(address))
	}
	address, err := k.check(address)
	return k, address, err
}
