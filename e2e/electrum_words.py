"""Opens a wallet from its BIP 39 words with Electrum's own code, as its window
does after "Standard wallet, I already have a seed, BIP39 seed, native segwit".
Reads {network, words, passphrase, addresses} as JSON from the standard input and
prints {fingerprint, receive}."""
import json
import sys

from electrum import bitcoin, constants, keystore

given = json.load(sys.stdin)
network = given["network"]
if network != "mainnet":
    getattr(constants, "set_" + network)()
coin = 0 if network == "mainnet" else 1

checked, listed = keystore.bip39_is_checksum_valid(given["words"])
if not (checked and listed):
    sys.exit("Electrum says that these are no BIP 39 words")
seed = keystore.bip39_to_seed(given["words"], given["passphrase"])
keys = keystore.from_bip43_rootseed(seed, f"m/84'/{coin}'/0'")
json.dump({
    "fingerprint": keys.get_root_fingerprint(),
    "receive": [
        bitcoin.pubkey_to_address("p2wpkh", keys.derive_pubkey(False, i).hex())
        for i in range(given["addresses"])
    ],
}, sys.stdout)
