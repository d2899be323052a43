package wallet

import "github.com/satchel-backup/satchel/secret"

// DeriveForTest lets the BIP 32 vectors, which begin with a seed, reach the
// code that derives accounts. It returns the extended public and private key.
func DeriveForTest(seed secret.Bytes, n Network, path ...uint32) (xpub, xprv string, err error) {
	key, err := masterKey(seed, n)
	if err != nil {
		return "", "", err
	}
	if key, err = derive(key, path...); err != nil {
		return "", "", err
	}
	public, err := key.Neuter()
	if err != nil {
		return "", "", err
	}
	return public.String(), key.String(), nil
}

// KeysForTest imports BIP 39 words also where Import refuses them.
func KeysForTest(w Words, n Network, made string) Keys {
	k, err := importKeys(Keys{kind: KindBIP39, words: w}, ImportConfig{Network: n, Made: made})
	if err != nil {
		panic(err)
	}
	return k
}
