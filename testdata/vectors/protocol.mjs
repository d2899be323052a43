// A second client and a second key server, written from docs/protocol.md alone. Every
// vector in protocol/ is one message to the server and its reply, in order: this client
// must make the same request from what it was given, and this server the same reply.
//
//   npm ci --prefix testdata/vectors --ignore-scripts
//   node testdata/vectors/protocol.mjs
//
// Libraries: the group, and Ed25519. What a server is free to choose, nonces, it takes
// from the vector.
import { createHash, createPrivateKey, createPublicKey, sign as signEd25519, verify as verifyEd25519 } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { ristretto255, ristretto255_hasher } from "@noble/curves/ed25519.js";
import { expand_message_xmd } from "@noble/curves/abstract/hash-to-curve.js";
import { sha512 } from "@noble/hashes/sha2.js";

const hex = (b) => Buffer.from(b).toString("hex");
const unhex = (s) => Buffer.from(s, "hex");
const ascii = (s) => Buffer.from(s, "latin1");
const cat = (...b) => Buffer.concat(b.map((x) => Buffer.from(x)));
const sha256 = (...b) => createHash("sha256").update(cat(...b)).digest();
const zero = (n) => Buffer.alloc(n);
const same = (a, b) => Buffer.from(a).equals(Buffer.from(b));

// ---- Ed25519
const privateKey = (seed) => createPrivateKey({ key: cat(unhex("302e020100300506032b657004220420"), seed), format: "der", type: "pkcs8" });
const publicOf = (seed) => createPublicKey(privateKey(seed)).export({ format: "der", type: "spki" }).subarray(-32);
const sign = (seed, ...parts) => signEd25519(null, cat(...parts), privateKey(seed));
function signed(key, signature, ...parts) {
  try {
    const k = createPublicKey({ key: cat(unhex("302a300506032b6570032100"), key), format: "der", type: "spki" });
    return verifyEd25519(null, cat(...parts), k, signature);
  } catch { return false; }
}

// ---- numbers modulo the order of the group, and the VOPRF of RFC 9497
const L = (1n << 252n) + 27742317777372353535851937790883648493n;
const mod = (a) => ((a % L) + L) % L;
const fromLE = (b) => BigInt("0x" + hex(Buffer.from(b).reverse()));
const toLE = (a) => Buffer.from(a.toString(16).padStart(64, "0"), "hex").reverse();
const u16 = (n) => Buffer.from([n >> 8, n & 255]);
const withLength = (b) => cat(u16(b.length), b);
const context = cat(ascii("OPRFV1-"), [1], ascii("-ristretto255-SHA512"));
const G = ristretto255.Point.BASE;
const hashToScalar = (input, label) => mod(fromLE(expand_message_xmd(input, cat(ascii(label), context), 64, sha512)));
const hashToGroup = (input) => ristretto255_hasher.hashToCurve(input, { DST: cat(ascii("HashToGroup-"), context) });
const bytes = (p) => Buffer.from(p.toBytes());

function element(b) {
  try {
    const p = ristretto255.Point.fromBytes(Buffer.from(b));
    return !p.equals(ristretto255.Point.ZERO) && same(p.toBytes(), b) ? p : null;
  } catch { return null; }
}

function deriveKey(seed, info) {
  for (let i = 0; i < 256; i++) {
    const k = hashToScalar(cat(seed, withLength(info), [i]), "DeriveKeyPair");
    if (k !== 0n) return k;
  }
  throw new Error("no key");
}

// challenge is that of a proof for one blinded element B and its evaluation Z.
function challenge(pk, B, Z, [t2, t3], composites) {
  const parts = [pk, composites.M, composites.Z, t2, t3].map((p) => withLength(bytes(p)));
  return hashToScalar(cat(...parts, ascii("Challenge")), "HashToScalar-");
}

function composite(pk, B, Z) {
  const seed = createHash("sha512").update(cat(withLength(bytes(pk)), withLength(cat(ascii("Seed-"), context)))).digest();
  const d = hashToScalar(cat(withLength(seed), u16(0), withLength(bytes(B)), withLength(bytes(Z)), ascii("Composite")), "HashToScalar-");
  return { M: B.multiply(d), Z: Z.multiply(d) };
}

function prove(k, B, r) {
  const pk = G.multiply(k), Z = B.multiply(k), m = composite(pk, B, Z);
  const c = challenge(pk, B, Z, [G.multiply(r), m.M.multiply(r)], m);
  return cat(toLE(c), toLE(mod(r - c * k)));
}

function verify(pk, B, Z, proof) {
  const c = fromLE(proof.subarray(0, 32)), s = fromLE(proof.subarray(32));
  if (c >= L || s >= L) return false;
  const m = composite(pk, B, Z), times = (p, n) => (n === 0n ? ristretto255.Point.ZERO : p.multiply(n));
  return challenge(pk, B, Z, [times(G, s).add(times(pk, c)), times(m.M, s).add(times(m.Z, c))], m) === c;
}

const finalize = (input, p) => createHash("sha512").update(cat(withLength(input), withLength(bytes(p)), ascii("Finalize"))).digest();

function inverse(a) {
  let r = 1n, e = L - 2n;
  for (a = mod(a); e > 0n; e >>= 1n, a = (a * a) % L) if (e & 1n) r = (r * a) % L;
  return r;
}

// ---- messages: fields of fixed sizes, one after another
const head = [["epoch", "u64"], ["generation", "u64"], ["snapshot", 16], ["mode", "u8"], ["signature", 64]];
const requests = {
  create: [["blinded", 32], ["limit", "u8"], ["replaces", 32], ["authority", "u8"], ["signature", 64]],
  confirm: [["proof_key", 32], ["owner_key", 32], ["epoch", "u64"], ["head_key", 32], ["slot", 32], ["signature", 64]],
  evaluate: [["attempt", 16], ["blinded", 32], ["slot", 32], ["with_proof", "u8"]],
  finish: [["attempt", 16], ["nonce", 32], ["signature", 64]],
  status: [],
  head,
  epoch: [["epoch", "u64"], ["head_key", 32], ["signature", 64]],
  delete: [["authority", "u8"], ["signature", 64]],
};
const names = Object.keys(requests); // in the order of their numbers
const evaluated = [["evaluated", 32], ["left", "u8"]];
const answers = {
  create: [["public_key", 32], ["evaluated", 32], ["proof", 64]],
  confirm: [], evaluate: evaluated, proven: [...evaluated, ["public_key", 32], ["proof", 64]],
  finish: [["wrong", "u32"]],
  status: [
    ["state", "u8"], ["limit", "u8"], ["left", "u8"], ["used", "u32"], ["life", "u32"], ["until", "i64"], ["expires", "i64"], ["last", "u64"],
    ["now", "i64"], ["nonce", 32], ["slot", 32], ["epoch", "u64"], ["head_key", 32], ["head", head], ["unproven", "u8"],
  ],
  head, epoch: [], delete: [],
};
const details = { 3: [["until", "i64"], ["left", "u8"]], 5: [["last", "u64"], ["now", "i64"]], 11: head };

function encode(shape, v) {
  return cat(...shape.map(([name, kind]) => {
    const x = v[name];
    if (Array.isArray(kind)) return encode(kind, x);
    if (typeof kind === "number") {
      if (unhex(x).length !== kind) throw new Error(`${name} has another length`);
      return unhex(x);
    }
    const b = Buffer.alloc({ u8: 1, u32: 4, u64: 8, i64: 8 }[kind]);
    if (kind === "u8") b.writeUInt8(x);
    else if (kind === "u32") b.writeUInt32BE(x);
    else if (kind === "u64") b.writeBigUInt64BE(BigInt(x));
    else b.writeBigInt64BE(BigInt(x));
    return b;
  }));
}

// decode returns null for bytes of another length than the fields have.
function decode(shape, b) {
  let at = 0;
  const read = (shape) => Object.fromEntries(shape.map(([name, kind]) => {
    if (Array.isArray(kind)) return [name, read(kind)];
    const n = { u8: 1, u32: 4, u64: 8, i64: 8 }[kind] ?? kind, part = b.subarray(at, (at += n));
    if (part.length !== n) throw new RangeError();
    if (typeof kind === "number") return [name, hex(part)];
    return [name, Number(BigInt("0x" + hex(part)))]; // No time is negative here.
  }));
  try {
    const v = read(shape);
    return at === b.length ? v : null;
  } catch (e) {
    if (e instanceof RangeError) return null;
    throw e;
  }
}

const account = (access) => sha256(ascii("satchel/v1/account\n"), access);

// request makes the bytes of a request.
function request(v) {
  const seed = unhex(v.access_seed), n = Buffer.alloc(8);
  n.writeBigUInt64BE(BigInt(v.sequence));
  const op = names.indexOf(v.operation) + 1;
  const b = cat([1, op], publicOf(seed), n, encode(requests[v.operation], v.payload ?? {}));
  return cat(b, sign(seed, ascii("satchel/v1/request\n"), b));
}

// second returns what the second signature of a request is over.
function second(op, p, account) {
  const before = (shape) => encode(shape.filter(([name]) => name !== "signature"), p);
  switch (op) {
    case "create": return [ascii("satchel/v1/replace\n"), unhex(p.replaces), account];
    case "confirm": return [ascii("satchel/v1/confirm\n"), account, before(requests.confirm)];
    case "finish": return [ascii("satchel/v1/finish\n"), account, before(requests.finish)];
    case "head": return [ascii("satchel/v1/head\n"), before(head)];
    case "epoch": return [ascii("satchel/v1/epoch\n"), before(requests.epoch)];
    case "delete": return [ascii("satchel/v1/delete\n"), account];
  }
}

// ---- the server
const PENDING = 1, ACTIVE = 2, ERASED = 3;
const MINUTE = 60_000, HOUR = 60 * MINUTE, WEEK = 7 * 24 * HOUR;
const backoff = [MINUTE, 5 * MINUTE, HOUR, 6 * HOUR, 24 * HOUR, 72 * HOUR];
const NONE16 = hex(zero(16)), NONE32 = hex(zero(32)), NONE64 = hex(zero(64));
const noHead = { epoch: 0, generation: 0, snapshot: NONE16, mode: 0, signature: NONE64 };

class Refusal extends Error {
  constructor(code, detail) { super(`code ${code}`); this.code = code; this.detail = detail; }
}
const refuse = (code, detail) => { throw new Refusal(code, detail); };

class Server {
  groups = new Set(); // of accounts that share a counter: one, or one and what is to replace it
  nonces = new Map(); // what was told with each

  find(id, now) {
    for (const g of this.groups) {
      for (const k of g.keys) if (k.expires && now > k.expires) g.keys = g.keys.filter((x) => x !== k);
      if (g.keys.length === 0) this.groups.delete(g);
      const k = g.keys.find((x) => x.id === id);
      if (k) return [g, k];
    }
    refuse(1);
  }

  left(g, k) { return k.state === ERASED || g.life >= 50 || g.used >= k.limit ? 0 : k.limit - g.used; }

  // sequence refuses, or returns what takes the number with the change.
  sequence(k, seq, now) {
    if (!(k.last < seq && seq <= Math.max(k.last, now) + 600_000)) refuse(5, { last: k.last, now });
    return () => { k.last = seq; k.nonce = undefined; };
  }

  erase(k, take) { take(); k.state = ERASED; k.secret = null; k.attempt = null; refuse(2); }

  afterRestore() {
    for (const g of this.groups) {
      g.used = Math.max(g.used, Math.max(...g.keys.map((k) => k.limit)) - 2);
      g.unproven = 1;
    }
  }

  // answer returns the bytes of a reply.
  answer(b, v) {
    try {
      const [op, done] = this.read(b, v);
      return cat([1, 0], encode(answers[op], done ?? {}));
    } catch (e) {
      if (!(e instanceof Refusal)) throw e;
      return cat([1, e.code], details[e.code] ? encode(details[e.code], e.detail) : []);
    }
  }

  read(b, v) {
    if (b.length > 0 && b[0] > 1) refuse(14);
    const op = names[b[1] - 1];
    if (b.length < 106 || b[0] !== 1 || !op) refuse(7);
    const body = b.subarray(0, -64), access = b.subarray(2, 34), p = decode(requests[op], body.subarray(42));
    if (!p) refuse(7);
    if (!signed(access, b.subarray(-64), ascii("satchel/v1/request\n"), body)) refuse(6);
    const id = account(access), seq = Number(b.readBigUInt64BE(34));
    const by = (key) => signed(unhex(key), unhex(p.signature), ...second(op, p, id));
    return this[op](p, { id: hex(id), seq, now: v.time, by, v });
  }

  evaluation(k, blinded, v, proof) {
    const B = element(unhex(blinded)), Z = B.multiply(k.secret);
    const e = { evaluated: hex(bytes(Z)) };
    if (!proof) return e;
    return { ...e, public_key: hex(bytes(G.multiply(k.secret))), proof: hex(prove(k.secret, B, fromLE(unhex(v.proof_random)))) };
  }

  create(p, { id, seq, now, by, v }) {
    if (p.limit < 1 || p.limit > 10 || !element(unhex(p.blinded)) || p.authority > 2 || (p.authority === 0) !== (p.replaces === NONE32)) refuse(7);
    const replay = () => ["create", this.evaluation(this.find(id, now)[1], p.blinded, v, true)];
    try {
      const [, k] = this.find(id, now);
      if (k.state === PENDING && k.blinded === p.blinded && k.limit === p.limit) return replay();
      refuse(9);
    } catch (e) { if (e.code !== 1) throw e; }
    const k = { id, state: PENDING, limit: p.limit, blinded: p.blinded, last: 0, slot: NONE32, attempt: null };
    const take = this.sequence(k, seq, now);
    const begin = (g) => {
      if (v.fault) refuse(12);
      take();
      k.secret = deriveKey(unhex(v.oprf_seed), ascii("satchel/v1/oprf-key"));
      g.keys.push(k);
      this.groups.add(g);
      return replay();
    };
    if (p.authority === 0) {
      if (v.token !== "let-me-in") refuse(13);
      k.expires = now + WEEK;
      return begin({ keys: [], used: 0, wrong: 0, life: 0, until: 0, owner: NONE32, epoch: 0, head_key: NONE32, head: noHead, unproven: 0 });
    }
    const [g, old] = this.find(p.replaces, now);
    if (old !== g.keys[0] || old.state === PENDING || !by(p.authority === 1 ? old.proof : g.owner)) refuse(8);
    g.keys.length = 1;
    return begin(g);
  }

  confirm(p, { id, seq, now, by }) {
    const [g, k] = this.find(id, now);
    if (k.state === ERASED) refuse(2);
    if (!by(p.proof_key)) refuse(8);
    if (k.state === ACTIVE) return k.proof === p.proof_key && k.slot === p.slot ? ["confirm"] : refuse(9);
    const take = this.sequence(k, seq, now);
    if (this.left(g, k) === 0) this.erase(k, take);
    take();
    Object.assign(k, { state: ACTIVE, proof: p.proof_key, slot: p.slot, attempt: null, expires: 0 });
    g.keys = [k];
    if (g.owner !== p.owner_key) Object.assign(g, { owner: p.owner_key, epoch: p.epoch, head_key: p.head_key, head: noHead });
    Object.assign(g, { used: 0, wrong: 0, life: 0, until: 0 });
    return ["confirm"];
  }

  evaluate(p, { id, seq, now, v }) {
    const [g, k] = this.find(id, now);
    if (p.with_proof > 1 || !element(unhex(p.blinded))) refuse(7);
    if (k.state === ERASED) refuse(2);
    if (k.state === ACTIVE && p.slot !== k.slot) refuse(4);
    const newest = k.attempt && k.attempt.id === p.attempt;
    if (!newest || k.attempt.blinded !== p.blinded || k.attempt.finished) {
      if (newest || p.attempt === NONE16) refuse(8);
      const take = this.sequence(k, seq, now);
      if (now < g.until) refuse(3, { until: g.until, left: this.left(g, k) });
      if (this.left(g, k) === 0) this.erase(k, take);
      take();
      g.used++; g.wrong++; g.life++;
      const wait = g.used < 3 ? 0 : backoff[Math.min(g.used - 3, 5)];
      const lock = this.left(g, k) === 0 ? Math.max(wait, 10 * MINUTE) : wait;
      g.until = lock ? now + lock : 0;
      k.attempt = { id: p.attempt, blinded: p.blinded };
    }
    return [p.with_proof ? "proven" : "evaluate", { ...this.evaluation(k, p.blinded, v, p.with_proof), left: this.left(g, k) }];
  }

  finish(p, { id, seq, now, by }) {
    const [g, k] = this.find(id, now), own = p.attempt !== NONE16;
    if (k.state === PENDING) refuse(10);
    if (k.state === ERASED) refuse(2);
    if (!by(k.proof)) refuse(8);
    if (own && k.attempt?.id === p.attempt && k.attempt.finished) return ["finish", { wrong: k.attempt.wrong }];
    if (own ? k.attempt?.id !== p.attempt : p.nonce !== k.nonce) refuse(8);
    this.sequence(k, seq, now)();
    const wrong = g.wrong - (own ? 1 : 0);
    if (own) { g.life--; Object.assign(k.attempt, { finished: true, wrong }); }
    Object.assign(g, { used: 0, wrong: 0, until: 0 });
    return ["finish", { wrong }];
  }

  status(_, { id, now, v }) {
    const [g, k] = this.find(id, now);
    // A nonce MUST change with everything that is written; which it is is the server's affair.
    const { nonce } = v.answer;
    const state = JSON.stringify([g, k], (name, x) => (name === "nonce" ? 0 : typeof x === "bigint" ? `${x}` : x));
    if (this.nonces.has(nonce) && this.nonces.get(nonce) !== state) throw new Error("a nonce came twice");
    this.nonces.set(nonce, state);
    k.nonce = nonce;
    return ["status", {
      state: k.state, limit: k.limit, left: this.left(g, k), used: g.wrong, life: g.life, until: g.until > now ? g.until : 0, expires: k.state === PENDING ? k.expires ?? 0 : 0,
      last: k.last, now, nonce, slot: k.slot, epoch: g.epoch, head_key: g.head_key, head: g.head, unproven: g.unproven,
    }];
  }

  head(p, { id, seq, now, by }) {
    const [g, k] = this.find(id, now);
    if (k.state === PENDING) refuse(10);
    if (p.epoch !== g.epoch) refuse(11, g.head);
    if (!by(g.head_key)) refuse(8);
    const again = isDeepStrictEqual(p, g.head);
    if (again && !g.unproven) return ["head", g.head];
    if (p.epoch === g.head.epoch && p.generation <= g.head.generation && !again) refuse(11, g.head);
    this.sequence(k, seq, now)();
    Object.assign(g, { head: p, unproven: 0 });
    return ["head", g.head];
  }

  epoch(p, { id, seq, now, by }) {
    const [g, k] = this.find(id, now);
    if (k.state === PENDING) refuse(10);
    if (!by(g.owner)) refuse(8);
    if (p.epoch === g.epoch && p.head_key === g.head_key) return ["epoch"];
    if (p.epoch !== g.epoch + 1) refuse(11, g.head);
    this.sequence(k, seq, now)();
    Object.assign(g, { epoch: p.epoch, head_key: p.head_key });
    return ["epoch"];
  }

  delete(p, { id, now, by }) {
    const [g, k] = this.find(id, now);
    const ok = p.authority === 0 ? k.state === PENDING && p.signature === NONE64
      : p.authority === 1 ? k.state === ACTIVE && by(k.proof)
        : p.authority === 2 && k.state !== PENDING && by(g.owner);
    if (!ok) refuse(8);
    if (k === g.keys[0]) this.groups.delete(g);
    else g.keys.length = 1;
    return ["delete"];
  }
}

// ---- the vectors
const folder = new URL("protocol/", import.meta.url);
const load = (file) => JSON.parse(readFileSync(new URL(file, folder), "utf8"));
const files = readdirSync(folder).filter((f) => /^[0-9]+-.*\.json$/.test(f)).sort();
let failed = 0, name = "";
const fail = (what, got, want) => { failed++; console.error(`${name}: ${what}\n got ${got}\nwant ${want}`); };
const expect = (what, got, want) => { if (!isDeepStrictEqual(got, want)) fail(what, JSON.stringify(got), JSON.stringify(want)); };

const server = new Server(), codes = new Set();
for (const file of files) {
  const v = load(file), body = unhex(v.request), reply = unhex(v.reply);
  name = v.name;
  try {
    codes.add(v.code);
    // The client's side: the same bytes, and every signature verifies.
    if (!v.change) {
      expect("request", hex(request(v)), v.request);
      expect("account", hex(account(publicOf(unhex(v.access_seed)))), v.account);
    }
    if (v.signer_seed) expect("second signature", hex(sign(unhex(v.signer_seed), ...second(v.operation, v.payload, unhex(v.account)))), v.payload.signature);
    const shape = reply[1] ? details[reply[1]] ?? [] : answers[v.operation === "evaluate" && v.payload.with_proof ? "proven" : v.operation];
    expect("code", reply[1], v.code);
    expect("answer", decode(shape, reply.subarray(2)), v.answer ?? {});
    if (v.blind) {
      const r = fromLE(unhex(v.blind)), B = hashToGroup(unhex(v.input)).multiply(r);
      expect("blinded", hex(bytes(B)), v.payload.blinded);
      if (v.code === 0) {
        const Z = element(unhex(v.answer.evaluated));
        expect("output", hex(finalize(unhex(v.input), Z.multiply(inverse(r)))), v.output);
        if (v.answer.proof && !verify(element(unhex(v.answer.public_key)), B, Z, unhex(v.answer.proof))) fail("proof", "wrong", "right");
        if (v.answer.proof && verify(element(unhex(v.answer.public_key)), B, Z.add(G), unhex(v.answer.proof))) fail("proof of another element", "right", "wrong");
      }
    }
    // The server's side.
    if (v.after_restore) server.afterRestore();
    expect("reply", hex(server.answer(body, v)), v.reply);
  } catch (e) { failed++; console.error(`${v.name}: ${e.stack}`); }
}
for (let c = 0; c <= 14; c++) if (!codes.has(c)) { failed++; console.error(`no vector has code ${c}`); }

// What RFC 9497 itself gives, appendix A.1.2.
name = "rfc9497";
const rfc = load("rfc9497.json");
const k = deriveKey(unhex(rfc.seed), unhex(rfc.info));
expect("key", hex(toLE(k)), rfc.key);
expect("public key", hex(bytes(G.multiply(k))), rfc.public_key);
for (const t of rfc.tests) {
  const r = fromLE(unhex(t.blind)), B = hashToGroup(unhex(t.input)).multiply(r);
  expect("blinded", hex(bytes(B)), t.blinded);
  expect("evaluated", hex(bytes(B.multiply(k))), t.evaluated);
  expect("proof", hex(prove(k, B, fromLE(unhex(t.proof_random)))), t.proof);
  expect("verified", verify(G.multiply(k), B, element(unhex(t.evaluated)), unhex(t.proof)), true);
  expect("output", hex(finalize(unhex(t.input), element(unhex(t.evaluated)).multiply(inverse(r)))), t.output);
}

if (files.length < 100) { console.error("vectors are missing"); failed++; }
console.log(`${files.length} messages and replies, RFC 9497: ${failed} failures`);
process.exit(failed ? 1 : 0);
