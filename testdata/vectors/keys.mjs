// A second reader of the items keys and descriptors, written from section 11 of
// docs/format.md alone. It reads every vector in keys/ and fails if one ends otherwise
// than it says.
//
//   node testdata/vectors/keys.mjs [FOLDER]
//
// FOLDER holds the word lists of BIP 39, and is wallet/wordlist if none is given. Nothing
// comes from a library.
import { createECDH, createHash, createHmac, pbkdf2Sync } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { isDeepStrictEqual } from "node:util";

class Fault extends Error {
  constructor(verdict, why) { super(`${verdict}: ${why}`); this.verdict = verdict; }
}
const damaged = (why) => { throw new Fault("damaged", why); };
const need = (ok, why) => { if (!ok) damaged(why); };
const sha256 = (b) => createHash("sha256").update(b).digest();

// ---- words
const folder = process.argv[2] ? pathToFileURL(`${process.argv[2]}/`) : new URL("../../wallet/wordlist/", import.meta.url);
const lists = new Map(readdirSync(folder).filter((f) => f.endsWith(".txt")).map((f) => [f.slice(0, -4), readFileSync(new URL(f, folder), "utf8").trimEnd().split("\n")]));

// bits returns the places of words in a list as a string of bits, or nothing.
function bits(words, list) {
  const places = words.map((w) => list.indexOf(w.normalize("NFKD")));
  return places.includes(-1) ? undefined : places.map((p) => p.toString(2).padStart(11, "0")).join("");
}
const pack = (s) => Buffer.from(s.match(/.{8}/g).map((b) => parseInt(b, 2)));

function checkBIP39(text) {
  need(text === text.normalize("NFC"), "not NFC");
  for (const [language, list] of lists) {
    const words = text.split(language === "japanese" ? "\u3000" : " ");
    if (![12, 15, 18, 21, 24].includes(words.length)) continue;
    const all = bits(words, list);
    if (!all) continue;
    const size = words.length * 32 / 3;
    const sum = sha256(pack(all.slice(0, size)))[0].toString(2).padStart(8, "0");
    if (sum.startsWith(all.slice(size))) return;
  }
  damaged("not the words of a BIP 39 wallet");
}

function crc32c(b) {
  let crc = 0xffffffff;
  for (const x of b) {
    crc ^= x;
    for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

// aezeed returns the 33 bytes of an lnd node's words.
function aezeed(text) {
  const words = text.split(" "), all = words.length === 24 ? bits(words, lists.get("english")) : undefined;
  need(all, "not 24 words of the English list");
  const b = pack(all);
  need(b[0] === 0, "version");
  need(crc32c(b.subarray(0, 29)) === b.readUInt32BE(29), "CRC-32C");
  return b;
}

// ---- BIP 32
const N = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

function fingerprint(secret) {
  const k = BigInt(`0x${secret.toString("hex")}`);
  need(k > 0n && k < N, "private key");
  const ecdh = createECDH("secp256k1");
  ecdh.setPrivateKey(secret);
  return createHash("ripemd160").update(sha256(ecdh.getPublicKey(null, "compressed"))).digest("hex").slice(0, 8);
}

// masterKey returns the private key of an extended master key.
function masterKey(text, network) {
  need(/^[1-9A-HJ-NP-Za-km-z]{1,112}$/.test(text), "Base58");
  let n = 0n;
  for (const c of text) n = n * 58n + BigInt(ALPHABET.indexOf(c));
  const b = Buffer.from(n.toString(16).padStart(164, "0"), "hex");
  need(b.length === 82 && sha256(sha256(b.subarray(0, 78))).subarray(0, 4).equals(b.subarray(78)), "Base58Check");
  need(b.readUInt32BE(0) === (network === "mainnet" ? 0x0488ade4 : 0x04358394), "version bytes");
  need(b.subarray(4, 13).every((x) => x === 0), "not a master key");
  need(b[45] === 0, "not a private key");
  return b.subarray(46, 78);
}

// ---- keys
function quoted(s) {
  let out = '"';
  const u = (n) => "\\u" + n.toString(16).padStart(4, "0");
  for (const ch of s) {
    const r = ch.codePointAt(0);
    const within = (...ranges) => ranges.some(([a, b]) => a <= r && r <= (b ?? a));
    if (ch === '"' || ch === "\\") out += "\\" + ch;
    else if (within([0, 0x1f], [0x7f, 0xa0], [0xad], [0x300, 0x36f], [0x34f], [0x61c], [0x115f, 0x1160], [0x17b4, 0x17b5], [0x180b, 0x180f],
      [0x2000, 0x200f], [0x2028, 0x202f], [0x205f, 0x206f], [0x3000], [0x3164], [0xe000, 0xf8ff], [0xfe00, 0xfe0f], [0xfeff], [0xffa0], [0xfff0, 0xffff])) out += u(r);
    else if (r >= 0xe0000) out += u(ch.charCodeAt(0)) + u(ch.charCodeAt(1));
    else out += ch;
  }
  return out + '"';
}

// The comment lines are those of the files that the page names; they are vectors too.
const vectors = new URL("keys/", import.meta.url);
const load = (file) => JSON.parse(readFileSync(new URL(file, vectors), "utf8"));
const comments = {};
for (const [kind, name] of [["bip39", "v1-plain"], ["aezeed", "v2-aezeed"], ["xprv", "v2-xprv"]]) {
  const lines = load(`keys-${name}-ok.json`).text.split("\n");
  comments[kind] = lines.slice(1).filter((l) => l.startsWith("#"));
}
function comment(kind, network) {
  if (network === "mainnet") return comments[kind];
  return comments[kind].map((l) => l.replace("can spend the money.", "can spend its test coins.").replace(/^(#   m\/\d\d'\/)0'/, "$11'"));
}

const NETWORKS = ["mainnet", "testnet", "signet", "regtest"];
function day(text) {
  const t = new Date(`${text}T00:00:00Z`);
  return /^\d{4}-\d\d-\d\d$/.test(text) && !Number.isNaN(t.getTime()) && t.toISOString().slice(0, 10) === text;
}

function version(text, newest) {
  need(/^[1-9][0-9]{0,9}$/.test(text ?? "") && Number(text) < 2 ** 31, "no version");
  if (Number(text) > newest) throw new Fault("newer", `version ${text}`);
  return Number(text);
}

function readKeys(text) {
  need(Buffer.byteLength(text) <= 16384, "too long");
  const lines = text.split("\n");
  let at = 0;
  while (lines[at]?.startsWith("#")) at++;
  const field = (name) => {
    if (at >= lines.length - 1 || !lines[at].startsWith(`${name}: `)) return undefined;
    return lines[at++].slice(name.length + 2);
  };
  const v = version(field("satchel-keys"), 2);
  const kind = v === 1 ? "bip39" : field("kind");
  need(v === 1 || kind === "aezeed" || kind === "xprv", "kind");
  const found = { kind, network: field("network"), fingerprint: kind === "aezeed" ? "" : field("fingerprint"), made: field("made") ?? "" };
  need(NETWORKS.includes(found.network), "network");
  need(kind === "aezeed" || /^[0-9a-f]{8}$/.test(found.fingerprint ?? ""), "fingerprint");
  need(found.made === "" || day(found.made), "date");
  found.secret = field(kind === "bip39" ? "words" : kind);
  need(found.secret !== undefined, "no words, and no key");
  let kept = kind === "xprv" ? undefined : field(`${kind}-passphrase`);
  const needed = kind === "xprv" || kept !== undefined ? undefined : field(`${kind}-passphrase-needed`);
  need(needed === undefined || needed === "yes", "needed");
  found.passphrase_needed = needed === "yes";
  if (kept !== undefined) {
    try { kept = JSON.parse(kept); } catch { damaged("passphrase"); }
    need(typeof kept === "string" && kept !== "" && Buffer.byteLength(kept) <= 1024, "passphrase");
  }
  found.passphrase = kept ?? "";

  switch (kind) {
    case "bip39": {
      checkBIP39(found.secret);
      if (needed) break;
      const seed = pbkdf2Sync(found.secret.normalize("NFKD"), "mnemonic" + found.passphrase.normalize("NFKD"), 2048, 64, "sha512");
      need(fingerprint(createHmac("sha512", "Bitcoin seed").update(seed).digest().subarray(0, 32)) === found.fingerprint, "fingerprint");
      break;
    }
    case "aezeed": {
      const check = sha256(Buffer.concat([Buffer.from("satchel/v1/aezeed-check\n"), aezeed(found.secret)])).toString("hex").slice(0, 16);
      found.descriptors = opaque(found.network, check);
      break;
    }
    case "xprv":
      need(fingerprint(masterKey(found.secret, found.network)) === found.fingerprint, "fingerprint");
  }

  const body = [...comment(kind, found.network), `satchel-keys: ${v}`];
  if (v === 2) body.push(`kind: ${kind}`);
  body.push(`network: ${found.network}`);
  if (kind !== "aezeed") body.push(`fingerprint: ${found.fingerprint}`);
  if (found.made) body.push(`made: ${found.made}`);
  body.push(`${kind === "bip39" ? "words" : kind}: ${found.secret}`);
  if (kept !== undefined) body.push(`${kind}-passphrase: ${quoted(kept)}`);
  if (needed) body.push(`${kind}-passphrase-needed: yes`);
  const rest = body.join("\n") + "\n", size = Math.max(2048, Math.ceil((Buffer.byteLength(rest) + 2) / 1024) * 1024);
  need(text === "#" + " ".repeat(size - Buffer.byteLength(rest) - 2) + "\n" + rest, "another spelling");
  return found;
}

// ---- descriptors of version 2
function opaque(network, check) {
  return `{\n  "satchel-descriptors": 2,\n  "kind": "aezeed",\n  "network": "${network}",\n  "check": "${check}"\n}\n`;
}

function readDescriptors(text) {
  let j;
  try { j = JSON.parse(text); } catch { damaged("not JSON"); }
  version(String(j["satchel-descriptors"]), 2);
  need(NETWORKS.includes(j.network) && /^[0-9a-f]{16}$/.test(j.check) && text === opaque(j.network, j.check), "another spelling");
  return { kind: j.kind, network: j.network };
}

const files = readdirSync(vectors).filter((f) => f.endsWith(".json"));
let failed = 0;
for (const file of files) {
  const v = load(file);
  let got = "ok", found, why = "";
  try {
    found = (v.item === "keys" ? readKeys : readDescriptors)(v.text);
  } catch (e) {
    if (!(e instanceof Fault)) { console.error(`${v.name}: ${e.stack}`); failed++; continue; }
    [got, why] = [e.verdict, e.message];
  }
  if (got !== v.expect || !isDeepStrictEqual(found, v.want)) {
    failed++;
    console.error(`${v.name}: got ${got} ${why}, want ${v.expect}: ${v.comment}`);
    if (got === v.expect) console.error(found, v.want);
  }
}
if (files.length < 50) { console.error("vectors are missing"); failed++; }
console.log(`${files.length - failed} of ${files.length} vectors as they should be`);
process.exit(failed ? 1 : 0);
