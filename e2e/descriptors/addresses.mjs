// Derives addresses from descriptors with @bitcoinerlab/descriptors and compares
// them with those on the standard input: [{network, descriptor, change, first}].
import { readFileSync } from "node:fs";
import { DescriptorsFactory, networks } from "@bitcoinerlab/descriptors";
import * as ecc from "@bitcoinerlab/secp256k1";

const { Output } = DescriptorsFactory(ecc);
// Signet has the keys and addresses of testnet.
const params = { mainnet: networks.bitcoin, testnet: networks.testnet, signet: networks.testnet, regtest: networks.regtest };
const fail = (text) => { console.error(text); process.exitCode = 1; };

let addresses = 0, refused = 0;
const wants = JSON.parse(readFileSync(0, "utf8"));
for (const { network, descriptor, change, first } of wants) {
  const output = (descriptor, index) => new Output({
    descriptor, index, network: params[network], checksumRequired: true, ...(change === null ? {} : { change }),
  });
  first.forEach((want, index) => {
    const got = output(descriptor, index).getAddress();
    addresses++;
    if (got !== want) fail(`${network}: ${descriptor.split("(")[0]} ${change ?? ""} ${index}: got ${got}, want ${want}`);
  });
  // The checksum is looked at: each of its symbols, and the text it covers.
  const hash = descriptor.indexOf("#");
  const damage = (i) => descriptor.slice(0, i) + (descriptor[i] === "q" ? "p" : "q") + descriptor.slice(i + 1);
  for (const i of [...Array(8).keys()].map((n) => hash + 1 + n).concat(hash - 20)) {
    try {
      output(damage(i), 0);
      fail(`${network}: a damaged descriptor was taken`);
    } catch (e) {
      if (!/checksum/.test(String(e))) fail(`${network}: not refused for its checksum: ${String(e).slice(0, 60)}`);
      refused++;
    }
  }
  try {
    output(descriptor.slice(0, hash), 0);
    fail(`${network}: a descriptor without checksum was taken`);
  } catch { refused++; }
}
if (wants.length === 0) fail("nothing to compare");
console.log(`${wants.length} descriptors: ${addresses} addresses the same, ${refused} damaged ones refused`);
