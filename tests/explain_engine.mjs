// Runs the explain page's engine over pages' numbers and writes what it computes.
// node explain_engine.mjs ENGINE INPUT.json OUTPUT.json

import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [engine, input, output] = process.argv.slice(2);
const { loadNet } = await import(pathToFileURL(`${engine}/net.js`));
const { inspect } = await import(pathToFileURL(`${engine}/inspect.js`));

const found = [];
for (const page of JSON.parse(readFileSync(input, "utf8"))) {
  const net = await loadNet({ getElementById: (id) => ({ textContent: page[id] }) });
  found.push(inspect(net, page.x, page.sample));
}
writeFileSync(output, JSON.stringify(found));
