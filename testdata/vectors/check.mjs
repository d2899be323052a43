// A second reader of Satchel's backup format, written from docs/format.md alone,
// to prove that the document is enough. It reads every vector in format/ and
// fails if one ends otherwise than it says.
//
//   npm ci --prefix testdata/vectors --ignore-scripts
//   node testdata/vectors/check.mjs
//
// Only age itself comes from a library (age-encryption, by the author of age).
import { createHash, createHmac, createPrivateKey, createPublicKey, hkdfSync, timingSafeEqual } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { Decrypter, identityToRecipient } from "age-encryption";

const MAX = { value: 67108864, inline: 2048, plain: 67108864, line: 4096, items: 262144, keyFile: 4096, slots: 64, past: 1000, slot: 65536, object: 83886080 };
const MAX_EPOCH = 999999, MAX_GENERATION = 9999999999;

class Fault extends Error {
  constructor(verdict, why, found) { super(`${verdict}: ${why}`); this.verdict = verdict; this.found = found; }
}
const damaged = (why) => { throw new Fault("damaged", why); };
const need = (ok, why) => { if (!ok) damaged(why); };

// ---- bytes
const hex = (b) => Buffer.from(b).toString("hex");
const sha256 = (b) => createHash("sha256").update(b).digest();
const hashOf = (b) => hex(sha256(b)).slice(0, 32);
const hmac = (key, ...parts) => { const m = createHmac("sha256", key); for (const p of parts) m.update(p); return m.digest(); };
const isHex = (s, n) => typeof s === "string" && s.length === n && /^[0-9a-f]*$/.test(s);
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
function text(bytes) {
  try { return utf8.decode(bytes); } catch { return damaged("not UTF-8"); }
}

function padme(l) {
  if (l < 2) return l;
  const e = 31 - Math.clz32(l), s = 31 - Math.clz32(e) + 1, unit = 2 ** (e - s);
  return Math.ceil(l / unit) * unit;
}

// ---- section 3: keys
const CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
function bech32(hrp, bytes) {
  const polymod = (values) => {
    let chk = 1;
    for (const v of values) {
      const top = chk >>> 25;
      chk = ((chk & 0x1ffffff) << 5) ^ v;
      [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3].forEach((g, i) => { if ((top >>> i) & 1) chk ^= g; });
    }
    return chk >>> 0;
  };
  const data = [];
  let acc = 0, bits = 0;
  for (const b of bytes) {
    acc = ((acc << 8) | b) & 0xfff;
    for (bits += 8; bits >= 5; bits -= 5) data.push((acc >>> (bits - 5)) & 31);
  }
  if (bits > 0) data.push((acc << (5 - bits)) & 31);
  const codes = [...hrp].map((c) => c.charCodeAt(0));
  const chk = polymod([...codes.map((c) => c >> 5), 0, ...codes.map((c) => c & 31), ...data, 0, 0, 0, 0, 0, 0]) ^ 1;
  for (let i = 0; i < 6; i++) data.push((chk >>> (5 * (5 - i))) & 31);
  return hrp + "1" + data.map((v) => CHARSET[v]).join("");
}

class Keys {
  constructor(idHex, keyHex) { this.idHex = idHex; this.id = Buffer.from(idHex, "hex"); this.key = Buffer.from(keyHex, "hex"); }
  derive(info) { return Buffer.from(hkdfSync("sha256", this.key, this.id, Buffer.from(info), 32)); }
  get seed() { return this.derive("satchel/v1/payload"); }
  get identity() { return bech32("age-secret-key-pq-", this.seed).toUpperCase(); }
  get nameKey() { return this.derive("satchel/v1/name"); }
  get ownerSignature() { return this.derive("satchel/v1/owner-signature"); }
  get ownerKey() { return this.derive("satchel/v1/owner"); }
  writer(epoch, device) { return this.derive(`satchel/v1/writer/${epoch}/${device}`); }
  head(epoch) { return this.derive(`satchel/v1/head/${epoch}`); }
  dir(item) { return item === "keys" ? "keys" : hex(hmac(this.nameKey, "satchel/v1/item/", item)).slice(0, 32); }
  packDir() { return hex(hmac(this.nameKey, "satchel/v1/pack")).slice(0, 32); }
  keyFile() {
    return "# Satchel backup key. Whoever has this file can open the backup.\n# satchel-key-file: 1\n" +
      `# satchel-backup-id: ${this.idHex}\n# satchel-backup-key: ${hex(this.key)}\n${this.identity}\n`;
  }
}

function parseKeyFile(bytes) {
  need(bytes.length <= MAX.keyFile, "key file too long");
  const file = Buffer.from(bytes).toString("latin1"); // A key file is ASCII.
  const newer = /^[^\n]*\n# satchel-key-file: ([1-9][0-9]{0,8})\n/.exec(file);
  if (newer && Number(newer[1]) > 1) throw new Fault("newer", "key file", { version: Number(newer[1]), software: "" });
  const m = /^# satchel-backup-id: ([0-9a-f]{32})\n# satchel-backup-key: ([0-9a-f]{64})$/m.exec(file);
  need(m, "key file");
  const keys = new Keys(m[1], m[2]);
  need(keys.keyFile() === file, "key file");
  return keys;
}

function parseDeviceKey(bytes) {
  const file = text(bytes), newer = /^\{"satchel-device-key":([1-9][0-9]{0,8})[,}]/.exec(file);
  if (newer && Number(newer[1]) > 1) throw new Fault("newer", "device key", { version: Number(newer[1]), software: "" });
  const m = /^\{"satchel-device-key":1,"backup":"([0-9a-f]{32})","epoch":([1-9][0-9]{0,5}),"device":"([0-9a-f]{16})","recipient":"(age1pq1[0-9a-z]{1952})","name":"[0-9a-f]{64}","writer":"[0-9a-f]{64}","head":"[0-9a-f]{64}"\}$/.exec(file);
  need(m, "device key");
  // 1,216 bytes are 1,946 characters and 6 of checksum; encode anew to compare.
  need(bech32("age1pq", unbech32(m[4].slice(7))) === m[4], "recipient");
  return { backup: m[1], epoch: Number(m[2]), device: m[3] };
}
function unbech32(s) {
  const out = [];
  let acc = 0, bits = 0;
  for (const c of s.slice(0, -6)) {
    acc = ((acc << 5) | CHARSET.indexOf(c)) & 0xfff;
    if ((bits += 5) >= 8) { bits -= 8; out.push((acc >>> bits) & 255); }
  }
  return out;
}

// ---- names (sections 1 and 2)
const number = (digits, max) => { const n = Number(digits); return n >= 1 && n <= max ? n : damaged("number out of range"); };
function snapshotName(s) {
  const m = /^([0-9]{6})-([0-9]{10})-([0-9a-f]{16})-([0-9a-f]{32})$/.exec(s);
  need(m && !s.endsWith("\n"), "snapshot name");
  return { epoch: number(m[1], MAX_EPOCH), generation: number(m[2], MAX_GENERATION), device: m[3], hash: m[4] };
}
function parsePath(path) {
  let m;
  try {
    if ((m = /^snapshots\/([^\n]*)\.age$/.exec(path))) return { is: "snapshot", ...snapshotName(m[1]) };
    if ((m = /^slots\/([a-z0-9-]{1,32})-([0-9a-f]{16})-([0-9a-f]{32})\.age$/.exec(path))) return { is: "slot", kind: m[1], id: m[2], hash: m[3] };
    if ((m = /^items\/(keys|[0-9a-f]{32})\/([0-9]{10})-([0-9a-f]{32})\.age$/.exec(path))) return { is: "item", dir: m[1], version: number(m[2], MAX_GENERATION), hash: m[3] };
  } catch (e) { if (!(e instanceof Fault)) throw e; }
  throw new Fault("not-ours", "not a name of the format");
}
function checkItemName(name) {
  const n = Buffer.byteLength(name);
  need(n >= 1 && n <= 255 && name === name.normalize("NFC"), "item name");
  need(!/[\p{Cc}\u2028\u2029\\]/u.test(name), "character in item name");
  need(name.split("/").every((e) => e !== "" && e !== "." && e !== ".."), "element of item name");
}

// ---- age
async function open(data, setUp, limit) {
  need(data.length <= limit, "object too large");
  const d = new Decrypter();
  setUp(d);
  return Buffer.from(await d.decrypt(data));
}
async function openPayload(keys, data, hash) {
  if (hashOf(data) !== hash) damaged("hash");
  // The header: a line, stanzas that begin with "-> ", a line "--- MAC".
  const end = data.indexOf("\n--- ");
  const stanzas = end < 0 ? [] : data.subarray(0, end + 1).toString("latin1").split("\n").filter((l) => l.startsWith("-> "));
  need(data.subarray(0, 22).toString("latin1") === "age-encryption.org/v1\n" && stanzas.length === 1, "age header");
  try {
    return await open(data, (d) => d.addIdentity(keys.identity), MAX.object);
  } catch (e) {
    if (e instanceof Fault) throw e;
    if (/no identity matched/.test(e.message)) throw new Fault("not-ours", e.message);
    return damaged(e.message);
  }
}

// ---- JSON in its only spelling (section 6)
const quote = (s) => '"' + s.replaceAll('"', '\\"') + '"';
const same = (a, b) => need(a === b, "spelling");
function parseJSON(line) {
  let v;
  try { v = JSON.parse(line); } catch { damaged("not JSON"); }
  need(v !== null && typeof v === "object" && !Array.isArray(v), "not an object");
  return v;
}
const isInt = (n, max, min = 0) => Number.isSafeInteger(n) && n >= min && n <= max;
const isStr = (s) => typeof s === "string";

const OWNER = ["descriptors", "keys"];

// parseItem reads an item line without its line feed.
function parseItem(line) {
  const j = parseJSON(line);
  need(isStr(j.item) && isInt(j.version, MAX_GENERATION, 0), "item line");
  let out = `{"item":${quote(j.item)},"version":${j.version}`;
  if (j.removed === true) {
    out += `,"removed":true`;
    if (j.owner !== undefined) out += `,"owner":"${j.owner}"`;
    same(out + "}", line);
    need(j.owner === undefined || isHex(j.owner, 64), "owner");
    return { item: j.item, version: j.version, owner: j.owner, place: "removed", required: false };
  }
  need(isInt(j.size, MAX.value) && isHex(j.sha256, 64), "size or sha256");
  out += `,"size":${j.size},"sha256":"${j.sha256}"`;
  if (j.required === true) out += `,"required":true`;
  if (j.owner !== undefined) { need(isHex(j.owner, 64), "owner"); out += `,"owner":"${j.owner}"`; }
  const it = { item: j.item, version: j.version, size: j.size, sha256: j.sha256, required: j.required === true, owner: j.owner };
  if (j.data !== undefined) {
    it.place = "data";
    need(isStr(j.data), "data");
    it.data = Buffer.from(j.data, "base64");
    out += `,"data":"${it.data.toString("base64")}"`;
  } else if (j.object !== undefined) {
    it.place = "object";
    need(isHex(j.object, 32), "object");
    it.hash = j.object;
    out += `,"object":"${j.object}"`;
  } else if (j.snapshot !== undefined) {
    it.place = "snapshot";
    need(isStr(j.snapshot), "snapshot");
    it.name = j.snapshot;
    it.in = snapshotName(j.snapshot);
    out += `,"snapshot":"${j.snapshot}"`;
  } else {
    it.place = "pack";
    const m = isStr(j.pack) && /^([0-9]{10})-([0-9a-f]{32})$/.exec(j.pack);
    need(m && isInt(j.offset, MAX.value), "pack");
    it.packVersion = number(m[1], MAX_GENERATION);
    it.hash = m[2];
    it.offset = j.offset;
    out += `,"pack":"${j.pack}","offset":${j.offset}`;
  }
  same(out + "}", line);
  return it;
}

function itemPath(keys, it) {
  const digits = (n) => String(n).padStart(10, "0");
  if (it.place === "object") return `items/${keys.dir(it.item)}/${digits(it.version)}-${it.hash}.age`;
  if (it.place === "pack") return `items/${keys.packDir()}/${digits(it.packVersion)}-${it.hash}.age`;
  return it.place === "snapshot" ? `snapshots/${it.name}.age` : undefined;
}

function checkOwner(keys, it) {
  if (!OWNER.includes(it.item)) return;
  const [size, sum] = it.place === "removed" ? ["removed", ""] : [it.size, it.sha256];
  const want = hmac(keys.ownerKey, `satchel/v1/owner-item\n${it.item}\n${it.version}\n${size}\n${sum}\n`);
  if (it.owner === undefined || !timingSafeEqual(want, Buffer.from(it.owner, "hex"))) throw new Fault("forged", "owner MAC");
}

function parseHeader(line) {
  const newer = /^\{"satchel-snapshot":([1-9][0-9]{0,8})[,}]/.exec(line);
  if (newer && Number(newer[1]) > 1) {
    let software = "";
    try { software = JSON.parse(line).software; } catch { /* not told */ }
    if (!isStr(software) || !/^[A-Za-z0-9/.\-_+ ]{1,64}$/.test(software)) software = "";
    throw new Fault("newer", "snapshot", { version: Number(newer[1]), software });
  }
  const h = parseJSON(line);
  need(isHex(h.backup, 32) && isInt(h.epoch, MAX_EPOCH, 1) && isInt(h.generation, MAX_GENERATION, 1) && isHex(h.device, 16), "header");
  need(isStr(h.parent) && isStr(h.time) && isStr(h.software) && ["checkpoint", "delta"].includes(h.kind), "header");
  need(h.past === undefined || isInt(h.past, MAX.past, 1), "number of past lines");
  need(isInt(h.items, MAX.items) && (h.slots === undefined || isInt(h.slots, MAX.slots)), "numbers of lines");
  need(/^[A-Za-z0-9/.\-_+ ]{1,64}$/.test(h.software), "software");
  const t = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z$/.exec(h.time);
  need(t && t[1] !== "0000" && !Number.isNaN(Date.parse(h.time)) && new Date(h.time).toISOString() === h.time.replace("Z", ".000Z"), "time");
  same(`{"satchel-snapshot":1,"backup":"${h.backup}","epoch":${h.epoch},"generation":${h.generation},"device":"${h.device}","parent":"${h.parent}",` +
    `"time":"${h.time}","software":"${h.software}","kind":"${h.kind}"` + (h.past === undefined ? "" : `,"past":${h.past}`) + (h.slots === undefined ? "" : `,"slots":${h.slots}`) + `,"items":${h.items}}`, line);
  return h;
}

function parseSnapshot(keys, plain, name) {
  need(plain.length <= MAX.plain, "plaintext too long");
  let at = 0;
  const line = (limit = MAX.line) => {
    const end = plain.indexOf(10, at);
    if (end < 0 && plain.length - at < limit) throw new Fault("truncated", "ends within a line");
    need(end >= 0 && end + 1 - at <= limit, "line too long");
    const l = text(plain.subarray(at, end));
    at = end + 1;
    return l;
  };
  const h = parseHeader(line());
  if (h.backup !== keys.idHex) throw new Fault("not-ours", "backup id");
  need(h.epoch === name.epoch && h.generation === name.generation && h.device === name.device, "header and name");

  const past = [];
  for (let i = 0; i < (h.past ?? 0); i++) {
    const l = line(), j = parseJSON(l);
    need(isStr(j.past), "past line");
    same(`{"past":"${j.past}"}`, l);
    past.push({ name: j.past, ...snapshotName(j.past) });
  }
  const slots = [];
  for (let i = 0; i < (h.slots ?? 0); i++) {
    const l = line(), j = parseJSON(l);
    need(isStr(j.slot) && /^[a-z0-9-]{1,32}$/.test(j.slot) && isHex(j.id, 16) && isHex(j.object, 32), "slot line");
    same(`{"slot":"${j.slot}","id":"${j.id}","object":"${j.object}"}`, l);
    need(i === 0 || slots[i - 1].id < j.id, "order of slots");
    slots.push({ kind: j.slot, id: j.id, path: `slots/${j.slot}-${j.id}-${j.object}.age` });
  }
  const items = [];
  for (let i = 0; i < h.items; i++) {
    items.push(parseItem(line()));
    need(i === 0 || Buffer.compare(Buffer.from(items[i - 1].item), Buffer.from(items[i].item)) < 0, "order of items");
  }
  const bare = at + 11 + 75;
  same(line(MAX.plain), `{"pad":"${"0".repeat(padme(bare) - bare)}"}`);
  const covered = plain.subarray(0, at);
  const mac = /^\{"mac":"([0-9a-f]{64})"\}$/.exec(line());
  need(mac, "MAC line");
  if (!timingSafeEqual(hmac(keys.writer(h.epoch, h.device), covered), Buffer.from(mac[1], "hex"))) throw new Fault("forged", "MAC");
  need(at === plain.length, "bytes after the end");

  // The rules.
  let parent;
  if (h.generation === 1) need(h.parent === "" && h.kind === "checkpoint", "first snapshot");
  else {
    parent = snapshotName(h.parent);
    need(parent.generation === h.generation - 1, "generation of the parent");
    const own = parent.epoch === h.epoch && parent.device === h.device;
    need(own || (h.kind === "checkpoint" && parent.epoch < h.epoch), "parent");
  }
  need(h.past === undefined || h.kind === "checkpoint", "past in a delta");
  const crossed = parent && parent.epoch < h.epoch;
  need(!crossed || (past.length > 0 && past[past.length - 1].name === h.parent), "parent that is not the last of the past");
  past.forEach((p, i) => {
    const next = past[i + 1] ?? (crossed || !parent ? h : parent);
    need(p.epoch < next.epoch && p.generation < next.generation, "order of the past");
  });
  if (h.kind === "checkpoint") {
    need(h.slots !== undefined, "checkpoint without slots");
    need(OWNER.every((o) => items.some((it) => it.item === o)), "checkpoint without owner items");
  }
  for (const it of items) {
    checkItemName(it.item);
    need(isInt(it.version, h.generation, 1), "version of an item");
    const owner = OWNER.includes(it.item);
    need(owner === (it.owner !== undefined), "owner MAC");
    if (it.place === "removed") {
      need(owner || h.kind === "delta", "removed item in a checkpoint");
      continue;
    }
    need(!owner || it.required, "owner item not required");
    need(it.item !== "keys" || it.place === "object", "keys are not an object");
    if (it.place === "data") {
      need(it.version === h.generation && it.data.length <= MAX.inline && it.data.length === it.size && hex(sha256(it.data)) === it.sha256, "data");
    } else if (it.place === "snapshot") {
      need(it.size <= MAX.inline && it.in.generation === it.version && parent, "reference");
      const before = it.in.generation < parent.generation &&
        ((it.in.epoch === parent.epoch && it.in.device === parent.device) || it.in.epoch < parent.epoch);
      need(it.name === h.parent || before, "reference");
    } else if (it.place === "pack") {
      need(it.offset + it.size <= MAX.value && it.packVersion <= h.generation, "pack");
    }
  }
  for (const it of items) checkOwner(keys, it);
  return {
    plaintext: plain.toString(), backup: h.backup, epoch: h.epoch, generation: h.generation, device: h.device, parent: h.parent,
    time: h.time, software: h.software, kind: h.kind, past: past.map((p) => p.name), slots: h.slots === undefined ? null : slots,
    items: items.map((it) => {
      const o = { item: it.item, version: it.version, required: it.required, place: it.place };
      if (it.place !== "removed") Object.assign(o, { size: it.size, sha256: it.sha256 });
      if (it.place === "data") o.value = it.data.toString("base64");
      else if (it.place !== "removed") o.path = itemPath(keys, it);
      if (it.place === "pack") o.offset = it.offset;
      return o;
    }),
  };
}

async function readItem(keys, it, data) {
  const plain = await openPayload(keys, data, it.hash);
  let value;
  if (it.place === "pack") {
    need(plain.length === padme(plain.length) && it.offset + it.size <= plain.length, "place in a pack");
    value = plain.subarray(it.offset, it.offset + it.size);
  } else {
    need(plain.length === padme(it.size) && plain.subarray(it.size).every((b) => b === 0), "padding");
    value = plain.subarray(0, it.size);
  }
  need(hex(sha256(value)) === it.sha256, "sha256");
  return { value: value.toString("base64") };
}

// ---- the vectors
const bytes = (v) => (v.text !== undefined ? Buffer.from(v.text) : Buffer.from(v.data ?? "", "base64"));
const read = {
  async derivation(v, keys) {
    const headSeed = keys.head(v.epoch);
    const pub = (seed) => {
      const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]);
      return createPublicKey(createPrivateKey({ key: der, format: "der", type: "pkcs8" })).export({ format: "der", type: "spki" }).subarray(-32);
    };
    return {
      payload_seed: hex(keys.seed), identity: keys.identity, recipient: await identityToRecipient(keys.identity),
      name_key: hex(keys.nameKey), owner_key: hex(keys.ownerKey), writer_key: hex(keys.writer(v.epoch, v.device)),
      head_seed: hex(headSeed), head_public: hex(pub(headSeed)), owner_public: hex(pub(keys.ownerSignature)), pack_dir: keys.packDir(),
      dirs: Object.fromEntries(Object.keys(v.want.dirs).map((name) => [name, keys.dir(name)])),
    };
  },
  padme: (v) => v.want.map(([n]) => [n, padme(n)]),
  "owner-mac"(v, keys) { const it = parseItem(v.line.slice(0, -1)); checkOwner(keys, it); return { owner: it.owner }; },
  name(v) {
    if (v.form === "path") return parsePath(v.text);
    checkItemName(v.text);
    return { item: v.text };
  },
  keyfile(v) { const k = parseKeyFile(bytes(v)); return { backup_id: k.idHex, text: k.keyFile() }; },
  device: (v) => parseDeviceKey(bytes(v)),
  async slot(v) {
    const data = bytes(v);
    need(hashOf(data) === parsePath(v.path).hash, "hash");
    const stanzas = data.subarray(0, Math.max(0, data.indexOf("\n---"))).toString("latin1").split("\n").filter((l) => l.startsWith("-> "));
    const factor = stanzas.length === 1 && /^-> scrypt \S+ ([1-9][0-9]?)$/.exec(stanzas[0]);
    need(factor && Number(factor[1]) >= 10 && Number(factor[1]) <= 20, "scrypt stanza");
    let plain;
    try {
      plain = await open(data, (d) => d.addPassphrase(v.passphrase), MAX.slot);
    } catch (e) {
      if (/no identity matched/.test(e.message)) throw new Fault("wrong-secret", e.message);
      damaged(e.message);
    }
    const k = parseKeyFile(plain);
    return { backup_id: k.idHex, text: k.keyFile() };
  },
  item(v, keys) {
    const it = parseItem(v.line.slice(0, -1));
    if (itemPath(keys, it) !== v.path) throw new Error(`path ${itemPath(keys, it)}`);
    return readItem(keys, it, bytes(v));
  },
  async snapshot(v, keys) {
    const name = parsePath(v.path);
    return parseSnapshot(keys, await openPayload(keys, bytes(v), name.hash), name);
  },
  plaintext(v, keys) {
    const { plaintext, ...rest } = parseSnapshot(keys, bytes(v), parsePath(v.path));
    return rest;
  },
};

const folder = new URL("format/", import.meta.url);
const files = readdirSync(folder).filter((f) => f.endsWith(".json"));
let failed = 0;
for (const file of files) {
  const v = JSON.parse(readFileSync(new URL(file, folder), "utf8"));
  const keys = v.backup_key && new Keys(v.backup_id, v.backup_key);
  let got = "ok", found, why = "";
  try {
    found = await read[v.kind](v, keys);
  } catch (e) {
    if (!(e instanceof Fault)) { console.error(`${v.name}: ${e.stack}`); failed++; continue; }
    [got, found, why] = [e.verdict, e.found, e.message];
  }
  const right = got === v.expect || (v.expect === "truncated" && got === "damaged"); // truncated is a kind of damaged
  if (!right || (v.want !== undefined && !isDeepStrictEqual(found, v.want))) {
    failed++;
    console.error(`${v.name}: got ${got} ${why}, want ${v.expect}: ${v.comment}`);
    if (right) console.error(found, v.want);
  }
}
if (files.length < 200) { console.error("vectors are missing"); failed++; }
console.log(`${files.length - failed} of ${files.length} vectors as they should be`);
process.exit(failed ? 1 : 0);
