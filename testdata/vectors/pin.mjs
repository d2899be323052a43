// A second reader of the PIN slot, written from docs/format.md and docs/protocol.md
// alone. It reads every vector in pin/, with the secret keys of the guardians in their
// place, and fails if one ends otherwise than it says.
//
//   npm ci --prefix testdata/vectors --ignore-scripts
//   node testdata/vectors/pin.mjs
//
// Libraries: the group, Argon2id, and age itself.
import { createDecipheriv, createHash, createPrivateKey, createPublicKey, hkdfSync } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { ristretto255, ristretto255_hasher } from "@noble/curves/ed25519.js";
import { expand_message_xmd } from "@noble/curves/abstract/hash-to-curve.js";
import { sha512 } from "@noble/hashes/sha2.js";
import { argon2id } from "@noble/hashes/argon2.js";
import { Decrypter } from "age-encryption";

class Fault extends Error {
  constructor(verdict, why) { super(`${verdict}: ${why}`); this.verdict = verdict; }
}
const need = (ok, why) => { if (!ok) throw new Fault("damaged", why); };
const hex = (b) => Buffer.from(b).toString("hex");
const unhex = (s) => Buffer.from(s, "hex");
const ascii = (s) => Buffer.from(s, "latin1");
const sha = (...b) => createHash("sha256").update(Buffer.concat(b)).digest();
const hkdf = (key, salt, info) => Buffer.from(hkdfSync("sha256", key, salt, info, 32));

// ---- numbers modulo the order of the group
const L = (1n << 252n) + 27742317777372353535851937790883648493n;
const mod = (a) => ((a % L) + L) % L;
const fromLE = (b) => BigInt("0x" + hex(Buffer.from(b).reverse()));
const toLE = (a) => Buffer.from(a.toString(16).padStart(64, "0"), "hex").reverse();
function inverse(a) {
  let r = 1n, e = L - 2n;
  for (a = mod(a); e > 0n; e >>= 1n, a = (a * a) % L) if (e & 1n) r = (r * a) % L;
  return r;
}

// ---- RFC 9497, ristretto255-SHA512, mode 1
const context = Buffer.concat([ascii("OPRFV1-"), Buffer.from([1]), ascii("-ristretto255-SHA512")]);
function voprf(key, input) {
  const p = ristretto255_hasher.hashToCurve(input, { DST: Buffer.concat([ascii("HashToGroup-"), context]) });
  const e = p.multiply(key).toBytes();
  const u16 = (n) => Buffer.from([n >> 8, n & 255]);
  return createHash("sha512").update(Buffer.concat([u16(input.length), input, u16(e.length), e, ascii("Finalize")])).digest();
}
const mask = (y, account) =>
  mod(fromLE(expand_message_xmd(y, Buffer.concat([ascii("satchel/v1/share-mask\n"), account]), 64, sha512)));

const ed25519 = (seed) => {
  const der = Buffer.concat([unhex("302e020100300506032b657004220420"), seed]);
  return createPublicKey(createPrivateKey({ key: der, format: "der", type: "pkcs8" })).export({ format: "der", type: "spki" }).subarray(-32);
};

// ---- the stanza
function header(data) {
  const end = data.indexOf("\n---");
  need(end > 0, "age header");
  const list = [];
  for (const line of data.subarray(0, end).toString("latin1").split("\n").slice(1)) {
    if (line.startsWith("-> ")) list.push({ args: line.slice(3).split(" "), body: "" });
    else list.at(-1).body += line;
  }
  return list;
}

function checkServer(name) {
  need(/^[!-~]{1,255}$/.test(name) && !/[\\%?#@]/.test(name) && !name.endsWith("/"), "server");
  const m = /^(https?):\/\/(\[[0-9a-f:.]+\]|[^/:[\]]+)(:[0-9]+)?(\/.*)?$/.exec(name);
  need(m && m[2] === m[2].toLowerCase(), "server");
  need(m[1] === "https" || m[2] === "localhost" || m[2] === "[::1]" || /^127\.[0-9]+\.[0-9]+\.[0-9]+$/.test(m[2]), "not https");
}

function parse(data, backup) {
  const stanzas = header(data);
  need(stanzas.length === 1 && stanzas[0].args[0] === "satchel-pin", "stanzas");
  const [, version, hash, ...more] = stanzas[0].args;
  need(/^[1-9][0-9]*$/.test(version ?? ""), "version");
  if (version !== "1") throw new Fault("newer", "stanza");
  need(hash !== undefined && more.length === 0, "arguments");
  const body = Buffer.from(stanzas[0].body, "base64");
  need(body.length <= 4096, "length");
  if (body[0] > 1) throw new Fault("newer", "body");
  let at = 0;
  const take = (n) => { need(at + n <= body.length, "cut short"); return body.subarray(at, (at += n)); };
  const u8 = () => take(1)[0];
  const kdf = () => {
    const k = { salt: take(16), t: u8(), p: u8(), m: take(4).readUInt32BE() };
    need(k.t >= 1 && k.t <= 16 && k.p >= 1 && k.p <= 16 && k.m >= 8192 && k.m <= 1048576, "Argon2id");
    return k;
  };
  need(u8() === 1, "version of the body");
  const flags = u8();
  need(flags <= 1, "flags");
  const s = { backup: take(16), t: u8(), n: u8() };
  need(s.t >= 1 && s.t <= s.n && s.n <= 10, "t of n");
  s.pin = kdf();
  if (flags) s.passphrase = kdf();
  s.guardians = [];
  for (let i = 0; i < s.n; i++) {
    const g = { access: take(32), key: take(32), share: fromLE(take(32)) };
    g.server = take(u8()).toString("latin1");
    need(g.share < L, "share");
    checkServer(g.server);
    need(s.guardians.every((o) => o.server !== g.server && !o.access.equals(g.access)), "twice");
    g.account = sha(ascii("satchel/v1/account\n"), ed25519(g.access));
    s.guardians.push(g);
  }
  s.salt = sha(ascii("satchel/v1/pin-public\n"), body.subarray(0, at));
  s.commitment = take(32);
  if (flags) s.second = take(32);
  s.wrapped = take(32);
  need(at === body.length, "too long");
  s.hash = sha(ascii("satchel/v1/pin-slot\n"), body);
  need(hash === s.hash.toString("base64").replace(/=+$/, ""), "hash");
  if (backup !== hex(s.backup)) throw new Fault("not-ours", "backup id");
  return s;
}

const stretch = (text, k) => Buffer.from(argon2id(Buffer.from(text), k.salt, { t: k.t, m: k.m, p: k.p, dkLen: 32 }));

async function read(v) {
  const data = Buffer.from(v.data, "base64"), s = parse(data, v.backup_id);
  const input = Buffer.concat([ascii("satchel/v1/pin-input\n"), stretch(v.pin.normalize("NFKC"), s.pin)]);
  const found = {
    slot_hash: hex(s.hash), servers: s.guardians.map((g) => g.server), accounts: s.guardians.map((g) => hex(g.account)),
    input: hex(input), outputs: [], shares: [],
  };
  const points = [];
  s.guardians.forEach((g, i) => {
    const text = v.oprf_keys[i + 1];
    if (!text) return;
    const key = fromLE(unhex(text));
    if (!sha(Buffer.from(ristretto255.Point.BASE.multiply(key).toBytes())).equals(g.key)) throw new Fault("lie", "public key");
    const y = voprf(key, input), share = mod(g.share - mask(y, g.account));
    found.outputs.push(hex(y));
    found.shares.push(hex(toLE(share)));
    if (points.length < s.t) points.push([BigInt(i + 1), share]);
  });
  let secret = 0n;
  for (const [x, y] of points) {
    let l = 1n;
    for (const [z] of points) if (z !== x) l = mod(l * z * inverse(z - x));
    secret = mod(secret + y * l);
  }
  const S = toLE(secret);
  if (!hkdf(S, s.salt, "satchel/v1/pin-commitment").equals(s.commitment)) throw new Fault("wrong-pin", "commitment");
  found.secret = hex(S);
  found.proof_keys = s.guardians.map((g) => hex(ed25519(hkdf(S, Buffer.alloc(0), Buffer.concat([ascii("satchel/v1/proof-key\n"), g.account])))));
  let key = hkdf(S, s.salt, "satchel/v1/pin-wrap");
  if (s.passphrase) {
    const both = Buffer.concat([S, stretch((v.passphrase ?? "").normalize("NFC"), s.passphrase)]);
    if (!hkdf(both, s.salt, "satchel/v1/pin-passphrase-commitment").equals(s.second)) throw new Fault("wrong-passphrase", "commitment");
    key = hkdf(both, s.salt, "satchel/v1/pin-passphrase-wrap");
  }
  const d = createDecipheriv("chacha20-poly1305", key, Buffer.alloc(12), { authTagLength: 16 });
  d.setAuthTag(s.wrapped.subarray(16));
  const fileKey = d.update(s.wrapped.subarray(0, 16));
  try { d.final(); } catch { throw new Fault("damaged", "wrapped key"); }
  const age = new Decrypter();
  age.addIdentity({ unwrapFileKey: () => fileKey });
  found.file_key = hex(fileKey);
  found.text = Buffer.from(await age.decrypt(data)).toString();
  return found;
}

const folder = new URL("pin/", import.meta.url);
const files = readdirSync(folder).filter((f) => f.endsWith(".json"));
let failed = 0;
for (const file of files) {
  const v = JSON.parse(readFileSync(new URL(file, folder), "utf8"));
  let got = "ok", found, why = "";
  try {
    found = await read(v);
  } catch (e) {
    if (!(e instanceof Fault)) { console.error(`${v.name}: ${e.stack}`); failed++; continue; }
    [got, why] = [e.verdict, e.message];
  }
  if (got !== v.expect || (v.want && !isDeepStrictEqual(found, v.want))) {
    failed++;
    console.error(`${v.name}: got ${got} ${why}, want ${v.expect}: ${v.comment}`);
    if (got === v.expect) console.error(found, v.want);
  }
}
if (files.length < 50) { console.error("vectors are missing"); failed++; }
console.log(`${files.length - failed} of ${files.length} vectors as they should be`);
process.exit(failed ? 1 : 0);
