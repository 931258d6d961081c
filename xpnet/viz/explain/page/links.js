// The lines between the columns: what the element looked at was made of, and how much each part gave.

import { offsetOf } from "../engine/tensors.js";
import { narrow } from "./dom.js";
import { activationOf, now, readersOf, shapeOf } from "./now.js";
import { state } from "./state.js";
import { asMaps, asPlace } from "./tiles.js";

const MOST_LINES = 48; // lines at once

/** Draw them into the svg of the strip; columns as network.js keeps them. */
export function drawLinks(strip, columns) {
  const svg = strip.querySelector(".links");
  svg.replaceChildren();
  if (narrow()) return;
  svg.setAttribute("width", strip.scrollWidth);
  svg.setAttribute("height", strip.clientHeight);
  shortcuts(svg, columns);
  const links = state.mode === "forward" ? forwardLinks() : backwardLinks();
  const most = Math.max(...links.map(({ weight }) => Math.abs(weight)), 0) || 1;
  links.sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
  for (const { from, to, weight } of links.slice(0, MOST_LINES)) {
    const a = anchor(columns, from, "right");
    const b = anchor(columns, to, "left");
    if (!a || !b) continue;
    const share = Math.abs(weight) / most;
    const bend = (b.x - a.x) / 2;
    svg.append(
      line(`M${a.x} ${a.y} C${a.x + bend} ${a.y} ${b.x - bend} ${b.y} ${b.x} ${b.y}`, {
        class: weight < 0 ? "minus" : "plus",
        "stroke-width": 0.75 + 2.25 * share,
        opacity: 0.25 + 0.75 * share,
      }),
    );
  }
}

/** {layer, tile} of the element at `offset` of layer i, sought past the layers that have no tiles. */
function tileOf(i, offset) {
  const layer = now.net.layers[i];
  const [, H, W] = asMaps(shapeOf(i));
  const slim =
    layer?.known &&
    layer.inputs.length === 1 &&
    ["Flatten", "Reshape", "Input", "Dropout"].includes(layer.kind);
  return slim ? tileOf(layer.inputs[0], offset) : { layer: i, tile: Math.floor(offset / (H * W)) };
}

function gathered(pairs) {
  const sums = new Map();
  for (const { place, weight } of pairs) {
    const key = `${place.layer} ${place.tile}`;
    const known = sums.get(key);
    if (known) known.weight += weight;
    else sums.set(key, { place, weight });
  }
  return [...sums.values()];
}

function forwardLinks() {
  const layer = now.net.layers[state.layer];
  if (!layer || layer.inputs.length === 0 || !activationOf(layer.inputs[0])) return [];
  const terms = layer.status === "unsupported" ? null : now.net.terms(now.run, layer, state.at);
  const to = { layer: state.layer, tile: asPlace(state.at)[0] };
  return gathered(linkParts(layer, terms)).map(({ place, weight }) => ({ from: place, to, weight }));
}

function linkParts(layer, terms) {
  const input = layer.inputs[0];
  if (terms?.kind === "dense" && terms.products) {
    return [...terms.products.data].map((weight, i) => ({ place: tileOf(input, i), weight }));
  }
  if (terms?.kind === "conv" && terms.products) {
    const each = terms.products.shape[1] * terms.products.shape[2];
    const first = terms.window.channels[0];
    const size = shapeOf(input)[1] * shapeOf(input)[2];
    return [...terms.products.data].map((weight, i) => ({
      place: tileOf(input, (first + Math.floor(i / each)) * size),
      weight,
    }));
  }
  if (terms?.kind === "transpose") {
    return terms.contributions.map(({ from, product }) => ({
      place: tileOf(input, offsetOf(shapeOf(input), from)),
      weight: product,
    }));
  }
  if (terms?.kind === "add") {
    return terms.parts.map(({ layer: source, value }) => ({
      place: { layer: source ?? input, tile: asPlace(state.at)[0] },
      weight: value,
    }));
  }
  if (terms?.kind === "softmax") {
    return [...terms.logits].map((_, tile) => ({ place: { layer: input, tile }, weight: 1 }));
  }
  const from = terms?.kind === "move" && terms.from;
  if (from) return [{ place: tileOf(input, offsetOf(shapeOf(input), from)), weight: 1 }];
  return [
    {
      place: { layer: input, tile: Math.min(asPlace(state.at)[0], asMaps(shapeOf(input))[0] - 1) },
      weight: 1,
    },
  ];
}

function backwardLinks() {
  if (!now.back || state.layer >= now.net.layers.length) return [];
  const from = { layer: state.layer, tile: asPlace(state.at)[0] };
  return readersOf(state.layer).flatMap((reader) => {
    const layer = now.net.layers[reader];
    const sources =
      layer.status === "unsupported" ? null : now.net.sources(now.run, now.back, layer, state.at);
    if (!sources) return sameSize(reader) ? [{ from, to: { ...from, layer: reader }, weight: 1 }] : [];
    const parts = sources.contributions.map(({ out, product }) => ({
      place: { layer: reader, tile: asPlace(out)[0] },
      weight: product,
    }));
    return gathered(parts).map(({ place, weight }) => ({ from, to: place, weight }));
  });
}

/** Whether a layer hands on as many maps as it reads. */
function sameSize(i) {
  return String(now.net.layers[i].inShape) === String(now.net.layers[i].outShape);
}

function shortcuts(svg, columns) {
  for (const layer of now.net.layers) {
    for (const input of layer.inputs) {
      if (input === layer.index - 1) continue;
      const a = middleOf(columns, input);
      const b = middleOf(columns, layer.index);
      svg.append(line(`M${a} 34 C${a + 10} 8 ${b - 10} 8 ${b} 34`, { class: "shortcut" }));
    }
  }
}

function middleOf(columns, i) {
  const { node } = columns[i + 1];
  return node.offsetLeft + node.offsetWidth / 2;
}

/** Where a line meets a tile, or a column without tiles. */
function anchor(columns, { layer, tile }, side) {
  const one = columns[layer + 1];
  if (!one) return null;
  if (!one.tiles) {
    const x = one.node.offsetLeft + (side === "right" ? one.node.offsetWidth : 0);
    return { x, y: one.node.offsetTop + one.node.offsetHeight / 2 };
  }
  const canvas = one.tiles.node;
  const box = one.tiles.box(Math.min(tile, one.tiles.count - 1));
  const x = canvas.offsetLeft + one.node.offsetLeft + (side === "right" ? canvas.offsetWidth : 0);
  return { x, y: canvas.offsetTop + one.node.offsetTop + box.top + box.height / 2 };
}

function line(path, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", "path");
  node.setAttribute("d", path);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}
