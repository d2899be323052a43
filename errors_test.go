package satchel_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"filippo.io/age"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
	"github.com/satchel-backup/satchel/wallet"
)

// keysOf opens the only slot of this kind in a store.
func keysOf(t *testing.T, st store.Store, way slot.Secret) *seal.Keys {
	t.Helper()
	for n, data := range objects(t, st, "") {
		if strings.Contains(n, "/slots/"+string(way.Kind())) {
			if k, err := seal.OpenSlot([]byte(data), way.Identity()); err == nil {
				return k
			}
		}
	}
	t.Fatal("no slot opens")
	return nil
}

// encrypt seals any plaintext to a backup's payload recipient, as whoever stole a
// device key can.
func encrypt(t *testing.T, k *seal.Keys, plain []byte) []byte {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(string(k.KeyFile().Open())), "\n")
	id, err := age.ParseHybridIdentity(lines[len(lines)-1])
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	w.Write(plain)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// rename gives bytes the name that goes with them.
func rename(old string, data []byte) string {
	stem := strings.TrimSuffix(old, ".age")
	return stem[:len(stem)-32] + string(store.Sum(data)) + ".age"
}

// R5: one fixture for each thing that can be wrong. Each is its own error with its
// own code and its own text, which names what and where.
func TestErrors(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := newBroken()
	baseCfg := config(t, base)
	k := newKeys(t)
	way, code := slot.NewRecoveryCode()
	b, err := satchel.Create(ctx, baseCfg, satchel.Plan{Label: "Sam", Keys: k, Slots: []slot.Secret{way}, Items: []satchel.Change{
		{Name: "labels", Value: []byte("1"), Required: true}, {Name: "lightning/scb", Value: bytes.Repeat([]byte("s"), 5000), Required: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	save(t, b, item("settings", "2"))
	folder := b.Status().Folder
	scb := b.Line("lightning/scb")
	scbObject, _ := b.DeviceKey().ItemObject(&scb)
	head := b.Head()
	b.Close()
	files := objects(t, base.inner, "")
	snapshot, slotName, scbName := folder+"/"+head.Path(), "", folder+"/"+scbObject.Path()
	first := ""
	for n := range files {
		switch {
		case strings.Contains(n, "/slots/"):
			slotName = n
		case strings.Contains(n, "/snapshots/000001-0000000001"):
			first = n
		}
	}
	keys := keysOf(t, base.inner, way)
	flip := func(s string) []byte { d := []byte(s); d[len(d)/2] ^= 1; return d }
	other, _ := slot.NewRecoveryCode()

	// world is a copy of the place, to be spoilt.
	type world struct {
		*broken
		cfg satchel.Config
	}
	open := func(w *world, way slot.Secret) (*satchel.Opened, error) {
		found, err := satchel.Find(ctx, w.cfg)
		if len(found) == 0 {
			return nil, err
		}
		return found[0].Open(ctx, way)
	}
	preview := func(w *world) error {
		o, err := open(w, way)
		if err != nil {
			return err
		}
		return o.Preview().Problem
	}
	restore := func(w *world) error {
		o, err := open(w, way)
		if err != nil {
			return err
		}
		b, _, err := o.Restore(ctx, w.cfg, satchel.RestoreOptions{})
		if b != nil {
			b.Close()
		}
		return err
	}
	device := func(w *world) *satchel.Backup {
		s := scene{baseCfg, base.inner}.copy(t)
		s.cfg.Places = w.cfg.Places
		w.cfg = s.cfg
		b, err := satchel.Open(s.cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	}
	write := func(fault storetest.Fault) func(*world) error {
		return func(w *world) error {
			b := device(w)
			w.Set(storetest.Put, fault)
			_, err := b.Save(ctx, item("labels", "x"))
			return err
		}
	}

	texts := map[string]string{}
	for _, c := range []struct {
		name string
		do   func(w *world) error
		want error
		code satchel.Code
		says string // what the text names
	}{
		{"wrong recovery code", func(w *world) error { _, err := open(w, other); return err }, slot.ErrWrongSecret, satchel.CodeWrongSecret, folder},
		{"mistyped recovery code", func(w *world) error {
			text := []byte(string(code.Open()))
			if text[0]++; text[0] == ':' || text[0] == '{' {
				text[0] = 'a'
			}
			_, err := slot.RecoveryCode(secret.New(text))
			return err
		}, slot.ErrRecoveryCode, satchel.CodeWrongSecret, "recovery code"},
		{"slot damaged", func(w *world) error {
			replace(t, w.inner, slotName, flip(files[slotName]))
			_, err := open(w, way)
			return err
		}, satchel.ErrSlotDamaged, satchel.CodeSlotDamaged, strings.TrimPrefix(slotName, folder+"/")},
		{"slot truncated", func(w *world) error {
			replace(t, w.inner, slotName, []byte(files[slotName])[:100])
			_, err := open(w, way)
			return err
		}, satchel.ErrSlotDamaged, satchel.CodeSlotDamaged, strings.TrimPrefix(slotName, folder+"/")},
		{"slot with absurd parameters", func(w *world) error {
			replace(t, w.inner, slotName, nil)
			data := []byte(strings.Replace(files[slotName], " 10\n", " 30\n", 1))
			replace(t, w.inner, rename(slotName, data), data)
			_, err := open(w, way)
			return err
		}, slot.ErrParameters, satchel.CodeSlotDamaged, "absurd"},
		{"slot of a newer kind only", func(w *world) error {
			replace(t, w.inner, slotName, nil)
			replace(t, w.inner, strings.Replace(slotName, "recovery-code", "telepathy", 1), []byte(files[slotName]))
			_, err := open(w, way)
			return err
		}, slot.ErrNewerKind, satchel.CodeNewer, "newer"},
		{"no such slot", func(w *world) error {
			s, err := slot.Passphrase(secret.FromString("x"))
			if err == nil {
				_, err = open(w, s)
			}
			return err
		}, satchel.ErrNoSlot, satchel.CodeFailed, "passphrase"},
		{"snapshot damaged", func(w *world) error {
			replace(t, w.inner, snapshot, flip(files[snapshot]))
			return preview(w)
		}, seal.ErrDamaged, satchel.CodeDamaged, head.Path()},
		{"snapshot truncated", func(w *world) error {
			replace(t, w.inner, snapshot, []byte(files[snapshot])[:1900])
			return preview(w)
		}, seal.ErrTruncated, satchel.CodeDamaged, "cut short"},
		{"snapshot replaced by an older one", func(w *world) error {
			replace(t, w.inner, snapshot, []byte(files[first]))
			return preview(w)
		}, seal.ErrDamaged, satchel.CodeDamaged, head.Path()},
		{"snapshot missing in the middle", func(w *world) error {
			replace(t, w.inner, first, nil)
			return preview(w)
		}, satchel.ErrMissing, satchel.CodeDamaged, strings.TrimPrefix(first, folder+"/")},
		{"newer snapshot", func(w *world) error {
			data := encrypt(t, keys, []byte(`{"satchel-snapshot":2,"software":"satchel/9.0"}`+"\n"))
			n := seal.SnapshotName{Epoch: 1, Generation: 3, Device: head.Device, Hash: store.Sum(data)}
			replace(t, w.inner, folder+"/"+n.Path(), data)
			return preview(w)
		}, seal.ErrNewer, satchel.CodeNewer, "satchel/9.0"},
		{"forked", func(w *world) error {
			snap := &seal.Snapshot{Generation: 2, Parent: parse(t, first), Software: "twin/1", Kind: seal.Delta, Items: []seal.Item{}}
			n, data, err := seal.SealSnapshot(keys.Device(1, head.Device), snap)
			if err != nil {
				t.Fatal(err)
			}
			replace(t, w.inner, folder+"/"+n.Path(), data)
			return preview(w)
		}, satchel.ErrForked, satchel.CodeOtherDevice, "2 snapshots"},
		{"object missing", func(w *world) error {
			replace(t, w.inner, scbName, nil)
			return restore(w)
		}, satchel.ErrIncomplete, satchel.CodeIncomplete, "lightning/scb"},
		{"object damaged", func(w *world) error {
			replace(t, w.inner, scbName, flip(files[scbName]))
			return restore(w)
		}, seal.ErrDamaged, satchel.CodeIncomplete, scbObject.Path()},
		{"nothing found", func(w *world) error {
			for n := range files {
				replace(t, w.inner, n, nil)
			}
			_, err := open(w, way)
			return err
		}, satchel.ErrNoBackup, satchel.CodeNoBackup, "mem:0"},
		{"listing failed", func(w *world) error {
			w.Set(storetest.List, storetest.ListError)
			_, err := open(w, way)
			return err
		}, store.ErrListing, satchel.CodeListing, "mem:0"},
		{"unreachable", func(w *world) error {
			w.Set(storetest.Any, storetest.Unreachable)
			_, err := open(w, way)
			return err
		}, store.ErrUnreachable, satchel.CodeUnreachable, "mem:0"},
		{"sign-in", func(w *world) error {
			w.Set(storetest.Any, storetest.SignIn)
			_, err := open(w, way)
			return err
		}, store.ErrSignIn, satchel.CodeSignIn, "mem:0"},
		{"wrong account", func(w *world) error {
			w.Set(storetest.Any, storetest.WrongAccount)
			_, err := open(w, way)
			return err
		}, store.ErrWrongAccount, satchel.CodeWrongAccount, "mem:0"},
		{"full", write(storetest.Full), store.ErrFull, satchel.CodeFull, "mem:0"},
		{"unreachable while writing", write(storetest.Unreachable), store.ErrUnreachable, satchel.CodeUnreachable, "mem:0"},
		{"sign-in while writing", write(storetest.SignIn), store.ErrSignIn, satchel.CodeSignIn, "mem:0"},
		{"wrong account while writing", write(storetest.WrongAccount), store.ErrWrongAccount, satchel.CodeWrongAccount, "mem:0"},
		{"taken and not there", write(storetest.Drop), satchel.ErrMissing, satchel.CodeDamaged, "mem:0"},
		{"taken and torn", write(storetest.Truncate), store.ErrDamaged, satchel.CodeDamaged, "mem:0"},
		{"refused for no known reason", write(storetest.NotApplied), satchel.ErrNotProtected, satchel.CodePartly, "mem:0"},
		{"another device", func(w *world) error {
			b := device(w)
			cfg := newDevice(t, w.cfg)
			o := openOnly(t, way, cfg)
			c, _, err := o.Restore(ctx, cfg, satchel.RestoreOptions{})
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			_, err = b.Save(ctx, item("labels", "x"))
			return err
		}, satchel.ErrOtherDevice, satchel.CodeOtherDevice, "epoch 2"},
		{"another wallet stands there", func(w *world) error {
			b, _, _ := create(t, config(t, &mem.Store{}))
			b.Close()
			o, err := open(w, way)
			if err != nil {
				t.Fatal(err)
			}
			cfg := config(t, w)
			c, _, _ := create(t, config(t, &mem.Store{}))
			c.Close()
			d := config(t, &mem.Store{})
			x, _, _ := create(t, d)
			x.Close()
			cfg.Dir = d.Dir
			_, _, err = o.Restore(ctx, cfg, satchel.RestoreOptions{})
			return err
		}, satchel.ErrWrongWallet, satchel.CodeWrongWallet, "BitcoinWalletBackup-Samantha"},
		{"a place lags", func(w *world) error {
			b := device(w)
			w.Set(storetest.Put, storetest.Unreachable)
			b.Save(ctx, item("labels", "x"))
			w.Set(storetest.Put, storetest.None)
			_, err := b.Drill(ctx, way)
			return err
		}, satchel.ErrOlder, satchel.CodeOlder, "generation 2 there, 3 here"},
		{"lost by the place", func(w *world) error {
			b := device(w)
			replace(t, w.inner, scbName, nil)
			_, err := b.Check(ctx)
			return err
		}, satchel.ErrMissing, satchel.CodeDamaged, scbObject.Path()},
		{"no wallet here", func(w *world) error { _, err := satchel.Open(w.cfg); return err }, satchel.ErrNoDevice, satchel.CodeFailed, w0},
		{"keychain lost the key", func(w *world) error {
			device(w).Close()
			w.cfg.Keychain = &ring{}
			_, err := satchel.Open(w.cfg)
			return err
		}, satchel.ErrDeviceKey, satchel.CodeFailed, "key of this device"},
		{"another process", func(w *world) error { device(w); _, err := satchel.Open(w.cfg); return err }, satchel.ErrBusy, satchel.CodeFailed, "another process"},
		{"the device's log is damaged", func(w *world) error {
			device(w).Close()
			spoil(t, w.cfg.Dir+"/state.log")
			_, err := satchel.Open(w.cfg)
			return err
		}, nil, satchel.CodeDamaged, "log"},
		{"the device's log is gone", func(w *world) error {
			device(w).Close()
			remove(t, w.cfg.Dir+"/state.log")
			_, err := satchel.Open(w.cfg)
			return err
		}, seal.ErrDamaged, satchel.CodeDamaged, "state.log"},
		{"only the owner", func(w *world) error { _, err := device(w).Save(ctx, item("keys", "x")); return err }, satchel.ErrOwnerOnly, satchel.CodeFailed, "keys"},
		{"no such item", func(w *world) error { _, err := device(w).Get("file/none"); return err }, satchel.ErrNoItem, satchel.CodeFailed, "file/none"},
		{"last slot", func(w *world) error {
			b := device(w)
			ow, err := b.Unlock(ctx, way)
			if err != nil {
				t.Fatal(err)
			}
			return ow.RemoveSlot(ctx, ow.Slot().ID)
		}, satchel.ErrLastSlot, satchel.CodeFailed, "last slot"},
		{"deleted", func(w *world) error {
			b := device(w)
			ow, err := b.Unlock(ctx, way)
			if err == nil {
				_, err = ow.Delete(ctx)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = b.Save(ctx, item("labels", "x"))
			return err
		}, satchel.ErrDeleted, satchel.CodeFailed, "deleted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{broken: &broken{inner: clone(t, base.inner)}}
			w.Faulty = &storetest.Faulty{Inner: w.inner}
			w.cfg = newDevice(t, baseCfg)
			w.cfg.Places = []store.Place{{Address: "mem:0", Store: w}}
			err := c.do(w)
			if err == nil {
				t.Fatal("no error")
			}
			if c.want != nil {
				isErr(t, err, c.want, c.code)
			} else if got := satchel.CodeOf(err); got != c.code {
				t.Errorf("got %v (code %d), want code %d", err, got, c.code)
			}
			says := c.says
			if says == w0 {
				says = w.cfg.Dir
			}
			if !strings.Contains(err.Error(), says) {
				t.Errorf("%q does not name %q", err, says)
			}
			text := strings.NewReplacer(w.cfg.Dir, "DIR").Replace(err.Error())
			for name, t2 := range texts {
				if t2 == text && !alike[[2]string{c.name, name}] {
					t.Errorf("the same text as %q: %s", name, text)
				}
			}
			texts[c.name] = text
			if bytes.Contains([]byte(text), code.Open()) || strings.Contains(text, string(k.Words().Sentence().Open())) && len(string(k.Words().Sentence().Open())) > 20 {
				t.Error("a secret is in the text")
			}
			if testing.Verbose() {
				t.Logf("%d %s", satchel.CodeOf(err), text)
			}
		})
	}
}

// alike are pairs that only the reason of the damage tells apart, which nobody
// can see.
var alike = map[[2]string]bool{
	{"slot truncated", "slot damaged"}:                        true,
	{"snapshot replaced by an older one", "snapshot damaged"}: true,
}

const w0 = "the directory of this device"

func parse(t *testing.T, object string) seal.SnapshotName {
	t.Helper()
	_, path, _ := strings.Cut(object, "/")
	n, ok := seal.ParseSnapshotPath(path)
	if !ok {
		t.Fatal(object)
	}
	return n
}

// The codes of design.md section 7.
func TestCodes(t *testing.T) {
	if satchel.CodeOf(nil) != satchel.CodeDone || satchel.CodeOf(fmt.Errorf("x")) != satchel.CodeFailed || satchel.CodeOf(context.Canceled) != satchel.CodeInterrupted ||
		satchel.CodeOf(context.DeadlineExceeded) != satchel.CodeUnreachable || satchel.CodeOf(wallet.ErrPassphrase) != satchel.CodeWrongSecret {
		t.Error("codes")
	}
	// The keys of a backup whose words are no words: nobody typed a wrong secret.
	if got := satchel.CodeOf(fmt.Errorf("%w: %w", wallet.ErrDamaged, wallet.ErrWords)); got != satchel.CodeDamaged {
		t.Errorf("damaged keys: got %d, want %d", got, satchel.CodeDamaged)
	}
}

// The BIP 39 passphrase of a wallet: kept in the backup, or asked for at restore;
// right, wrong or left out.
func TestPassphrase(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	words, err := wallet.NewWords(12)
	if err != nil {
		t.Fatal(err)
	}
	right := secret.FromString("correct horse")
	for _, kept := range []bool{true, false} {
		k, err := wallet.Import(words, wallet.ImportConfig{Network: wallet.Mainnet, Passphrase: right, KeepPassphrase: kept})
		if err != nil {
			t.Fatal(err)
		}
		st := newBroken()
		st.Record = true
		slotSecret, err := k.SlotSecret()
		if err != nil {
			t.Fatal(err)
		}
		way, err := slot.Words(slotSecret)
		if err != nil {
			t.Fatal(err)
		}
		cfg := config(t, st)
		b, err := satchel.Create(ctx, cfg, satchel.Plan{Keys: k, Slots: []slot.Secret{way}})
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
		for _, c := range []struct {
			passphrase secret.Bytes
			compared   bool
			err        error
		}{
			{secret.Bytes{}, kept, nil},
			{right, true, nil},
			{secret.FromString("wrong"), kept, map[bool]error{false: wallet.ErrPassphrase}[kept]},
		} {
			o := openOnly(t, way, cfg) // R17: the words alone, passphrase included, open the backup.
			if p := o.Preview(); p.PassphraseNeeded == kept || p.Fingerprint != k.Fingerprint() || kept != (len(p.Addresses) > 0) {
				t.Errorf("kept=%v: %+v", kept, p)
			}
			b, out, err := o.Restore(ctx, newDevice(t, cfg), satchel.RestoreOptions{BIP39Passphrase: c.passphrase})
			if c.err != nil {
				isErr(t, err, c.err, satchel.CodeWrongSecret)
				continue
			}
			if err != nil || out.Compared != c.compared {
				t.Fatalf("kept=%v: compared %v, %v", kept, out.Compared, err)
			}
			again, err := b.Keys()
			if err != nil || !again.Words().Equal(words) {
				t.Errorf("other words: %v", err)
			}
			b.Close()
		}
		if st.Leaks(right.Open()) {
			t.Error("the passphrase was sent in clear")
		}
		// The words without the passphrase are another secret.
		bare, err := wallet.Import(words, wallet.ImportConfig{Network: wallet.Mainnet})
		if err != nil {
			t.Fatal(err)
		}
		bareSecret, _ := bare.SlotSecret()
		bareWay, _ := slot.Words(bareSecret)
		if _, _, err := readAll(bareWay, st); satchel.CodeOf(err) != satchel.CodeWrongSecret {
			t.Errorf("words without passphrase: %v", err)
		}
	}
}
