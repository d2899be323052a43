package slot

import (
	_ "embed"
	"strings"
	"sync"

	"github.com/sethvargo/go-diceware/diceware"
)

// What guessing programs try first. All of it is compared after fold, so one
// spelling stands for every mixture of case, accents and l33t.

// guessedText is 25,000 English words, names and passwords, the most common
// first: the merged frequency lists of zxcvbn (Dropbox, MIT licence). The
// library itself is not used: it parses its lists whenever a program starts,
// which takes 40 ms and 18 MB, and it gives "bitcoin wallet backup" full marks.
//
//go:embed guessed.txt
var guessedText string

// usedPasswords are the most used passwords, and what people reach for when one
// is refused.
const usedPasswords = `
password passwort passphrase passcode motdepasse contrasena senha parola haslo wachtwoord пароль
qwerty qwertz azerty letmein letmein welcome welcomehome admin administrator root toor master login default guest user
superman batman spiderman starwars pokemon football baseball basketball soccer hockey liverpool manchester arsenal chelsea juventus barcelona
iloveyou ilovegod jesus jesuschrist godisgood princess sunshine dragon monkey shadow michael jennifer jordan charlie freedom whatever trustno1
secret topsecret changeme changeit access flower cookie cheese pepper ginger hunter hunter2 killer summer winter spring autumn
mustang ferrari porsche mercedes computer internet samsung iphone google facebook instagram microsoft windows android
zaq12wsx 1q2w3e4r 1q2w3e 1qaz2wsx q1w2e3r4 q1w2e3 abc123 a1b2c3 a1b2c3d4 123qwe qwe123 asd123 pass1234 passw0rd p4ssw0rd
january february march april may june july august september october november december monday tuesday wednesday thursday friday saturday sunday
привет любовь йцукен`

// moneyWords are what one thinks of while setting up a wallet.
const moneyWords = `
bitcoin bitcoins btc xbt sats satoshi satoshis satoshinakamoto nakamoto crypto cryptos cryptocurrency blockchain block chain
wallet wallets coin coins coinbase ledger trezor electrum lightning node hodl hodler hodling moon tothemoon lambo stacking stacksats stack
seed seedphrase phrase mnemonic recovery restore backup backups back private public key keys keystore cold hot storage cloud drive dropbox icloud onedrive
money savings saving bank account fortune rich wealth freedom finance funds treasure million millionaire
satchel encrypted encryption secure secured security safe vault secret hidden
биткоин кошелек`

// shortWords are too short to be in the long list with a rank that helps.
const shortWords = `my me is it to of in on at an as be by do go he if no or so up us we am for the and you all are not but was has his her our out its new old one two`

// famousPhrases are in every guessing program, whatever their length. One line
// each; spaces do not matter.
const famousPhrases = `
correct horse battery staple
tr0ub4dor
the quick brown fox jumps over the lazy dog
to be or not to be that is the question
to be or not to be
may the force be with you
in the beginning was the word
in the beginning god created the heaven and the earth
the lord is my shepherd i shall not want
our father who art in heaven
for god so loved the world
in god we trust
four score and seven years ago
we the people of the united states
i have a dream
ask not what your country can do for you
one small step for man one giant leap for mankind
winter is coming
all your base are belong to us
who is john galt
live long and prosper
i am your father
the answer is forty two
open sesame
once upon a time
lorem ipsum dolor sit amet
let there be light
carpe diem
never gonna give you up
hello darkness my old friend
is this the real life is this just fantasy
twinkle twinkle little star
mary had a little lamb
how much wood could a woodchuck chuck
she sells sea shells by the sea shore
down the rabbit hole
fool me once shame on you
the times 03 jan 2009 chancellor on brink of second bailout for banks
chancellor on brink of second bailout for banks
chancellor on brink of second bailout
a peer to peer electronic cash system
not your keys not your coins
not your keys not your coin
be your own bank
dont trust verify
vires in numeris
we are all satoshi
running bitcoin
in satoshi we trust
tick tock next block
magic internet money
number go up
stay humble stack sats
one bitcoin equals one bitcoin
abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about
zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong
legal winner thank year wave sausage worth useful legal winner thank yellow`

// keyRows are neighbours on keyboards and in alphabets, in reading order; runs
// along them count in both directions.
var keyRows = []string{
	"abcdefghijklmnopqrstuvwxyz", "01234567890",
	"qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "yxcvbnm", "azertyuiop", "qsdfghjklm", "wxcvbn",
	"qazwsxedcrfvtgbyhnujmikolp", "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
	"1q2w3e4r5t6y7u8i9o0p", "1a2b3c4d5e6f7g8h9i", "a1b2c3d4e5f6g7h8i9",
	"147258369", "159357", "741852963",
	"йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю", "абвгдежзийклмнопрстуфхцчшщъыьэюя",
}

const (
	diceNumbers = 66667 // five dice read as a decimal number stay below
	diceBits    = 12.9  // one of 7,776 words
)

// piece is one thing that a guessing program knows.
type piece struct {
	bits float64
	kind pieceKind
}

// guessed returns guessedText by folded word. It is read once, when the first
// passphrase is judged, and never changed.
var guessed = sync.OnceValue(func() map[string]piece {
	known := make(map[string]piece)
	add := func(word string, p piece) {
		folded := string(fold(word).folded)
		if old, ok := known[folded]; ok {
			p.bits = min(p.bits, old.bits)
			if p.kind == commonPiece {
				p.kind = old.kind
			}
		}
		known[folded] = p
	}
	rank := 0
	for word := range strings.Lines(guessedText) {
		rank++
		add(strings.TrimSpace(word), piece{rankBits(rank), commonPiece})
	}
	for n := range diceNumbers {
		if word := diceware.WordListEffLarge().WordAt(n); word != "" {
			add(word, piece{diceBits, commonPiece})
		}
	}
	for word := range strings.FieldsSeq(usedPasswords) {
		add(word, piece{5, passwordPiece})
	}
	for word := range strings.FieldsSeq(moneyWords) {
		add(word, piece{5, moneyPiece})
	}
	for word := range strings.FieldsSeq(shortWords) {
		add(word, piece{5, commonPiece})
	}
	for phrase := range strings.Lines(strings.TrimSpace(famousPhrases)) {
		add(phrase, piece{10, famousPiece})
	}
	return known
})
