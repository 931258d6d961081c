// Backward: where the gradient of a pixel came from, and what it says about the weights.

import { offsetOf, sizeOf } from "../engine/tensors.js";
import { aroundZero, scaleOf } from "./colors.js";
import { make } from "./dom.js";
import { now, readersOf, shapeOf } from "./now.js";
import { chipRow, ledger, mapView, numberGrid, productList, sentence, sign, together } from "./pieces.js";
import { activationName, placeHead, placeName, reasonOf, titleOf } from "./places.js";
import { PICTURE, change, state } from "./state.js";
import { shown } from "./numbers.js";
import { roundingRow, strongest, total } from "./windows.js";
import { word } from "./words.js";

/** dL/dy of one element: the outputs of the next layer that it went into, times the weight. */
export function gradientPanel(i) {
  const shape = shapeOf(i);
  const own = now.net.layers[i];
  const of = own ? "y" : "x";
  const move = (y, x) => change({ at: [state.at[0], y, x] });
  const here = mapView(150, move);
  const sum = ledger();
  const readers = readersOf(i).map((reader) => ({
    reader,
    list: productList("sources"),
    used: mapView(150),
  }));
  const node = make(
    "div",
    { class: "panel" },
    make(
      "div",
      { class: "arithmetic" },
      ...readers.map(({ list, used }) => together(used.node, list.node)),
      together(sum.node, here.node),
    ),
  );
  if (!readers.length) node.prepend(sentence(word("gradient.from.loss")));
  const why = sentence("", { class: "notice", data: { name: "unknown" } });
  node.prepend(why);

  function update() {
    const [c, y, x] = state.at;
    const gradient = i === PICTURE ? now.back.dPicture : now.back.dOutputs[i];
    here.node.hidden = shape.length !== 3 || !gradient;
    if (!here.node.hidden) {
      const marks = [{ tile: 0, top: y, left: x, height: 1, width: 1 }];
      here.show(
        word("gradient.map", { of, map: c }),
        gradient.data,
        shape[1],
        shape[2],
        aroundZero(gradient.data),
        marks,
        { first: c, at: [y, x] },
      );
    }
    why.hidden = Boolean(gradient);
    if (!gradient) why.textContent = unknownText(i);
    for (const one of readers) showReader(one);
    sum.show([
      ...readers.flatMap(({ reader }) => sourceRows(reader, shape, readers.length > 1)),
      {
        label: `∂L/∂${of}`,
        value: gradient ? gradient.data[offsetOf(shape, state.at)] : NaN,
        total: true,
        name: "gradient",
      },
      ...slopeRows(own),
    ]);
  }

  return { node, update };
}

function sourcesIn(reader) {
  const layer = now.net.layers[reader];
  return layer.status === "unsupported" ? null : now.net.sources(now.run, now.back, layer, state.at);
}

/** Why there is no gradient at layer i: the layer behind it that the page cannot go back through. */
function unknownText(i) {
  const stops = barrierBehind(i);
  if (!stops) return word("gradient.unknown");
  return `${word("gradient.stopped", { layer: stops.name })} ${reasonOf(stops)}`;
}

/** The nearest layer behind layer i whose output has a gradient and whose input has none. */
function barrierBehind(i) {
  for (const reader of readersOf(i)) {
    const found = now.back.dOutputs[reader] ? now.net.layers[reader] : barrierBehind(reader);
    if (found && !now.back.dInputs[found.index]) return found;
  }
  return null;
}

/** What came back by one reader; of one that gives no account, the gradient at the same place in it. */
function sourceRows(reader, shape, several) {
  const layer = now.net.layers[reader];
  const found = sourcesIn(reader);
  const dz = now.back.dPre[reader];
  const label = word("gradient.by", { layer: titleOf(reader) });
  if (found) {
    const rest = found.rounding !== null && [
      { label: word("sum.of", { count: found.contributions.length }), value: found.total - found.rounding },
      roundingRow(found.rounding),
    ];
    return [...(rest || []), several && { label, value: found.total, name: "source" }];
  }
  if (dz?.data.length !== sizeOf(shape)) return [];
  const value = dz.data[offsetOf(shape, state.at)];
  const behind = {
    label: word("gradient.behind", { layer: layer.kind }),
    value,
    name: "behind",
    text: shown(value, 5),
  };
  const norm = layer.status === "unsupported" ? null : now.net.normSource(now.run, now.back, layer, state.at);
  if (!norm) return [behind];
  return [behind, ...normRows(norm), several && { label, value: norm.total, name: "source" }];
}

/** From dL/dy to dL/dx of a normalization: through the mean and the variance too, where x makes these. */
function normRows({ dy, gamma, moving, mean, xhat, inner, slope }) {
  const row = (label, value, name) => ({ label, value, name, text: shown(value, 5) });
  const g = (gamma ?? 1) * dy;
  return [
    gamma !== null && row(word("norm.gamma"), gamma, "gamma"),
    gamma !== null && row("g = γ · ∂L/∂z", g, "g"),
    moving && row(word("gradient.norm.mean"), mean, "mean-g"),
    moving && row("x̂ = (x − μ) / √(σ² + ε)", xhat, "xhat"),
    moving && row(word("gradient.norm.inner"), inner, "mean-gx"),
    row("1 / √(σ² + ε)", slope, "slope"),
    moving
      ? { label: "(g − ḡ − x̂ · m) / √(σ² + ε)", text: "", value: "", name: "formula" }
      : { label: word("gradient.norm.constant"), text: "", value: "", name: "formula" },
  ];
}

function showReader({ reader, list, used }) {
  const layer = now.net.layers[reader];
  const found = sourcesIn(reader);
  const dz = now.back.dPre[reader];
  list.node.hidden = used.node.hidden = !found;
  if (!found) return;
  const items = found.contributions.map(({ out, dy, w, product }) => ({
    label: placeName(out),
    a: dy,
    b: w,
    product,
    pick: () => change({ layer: reader, at: out }),
  }));
  list.show(items, [placeHead(layer.kind, layer.outShape), "∂L/∂z", word("gradient.weight")]);
  used.node.hidden = layer.outShape.length !== 3 || !items.length || !dz;
  if (used.node.hidden) return;
  const best = found.contributions.reduce((a, b) => (Math.abs(b.product) > Math.abs(a.product) ? b : a))
    .out[0];
  const [, H, W] = layer.outShape;
  const marks = found.contributions
    .filter(({ out }) => out[0] === best)
    .map(({ out }) => ({ tile: 0, top: out[1], left: out[2], height: 1, width: 1, strong: false }));
  used.show(
    word("gradient.next", { layer: layer.kind, map: best }),
    dz.data,
    H,
    W,
    aroundZero(dz.data),
    marks,
    { first: best },
  );
}

/** Through the activation: dL/dz = dL/dy times the slope. */
function slopeRows(layer) {
  if (!layer?.activation || layer.activation === "linear" || !now.back.dPre[layer.index]) return [];
  const at = offsetOf(layer.outShape, state.at);
  const z = now.run.pre[layer.index]?.data[at];
  const name = activationName(layer.activation);
  const dz = now.back.dPre[layer.index].data[at];
  const gate =
    layer.activation === "relu"
      ? word(z > 0 ? "gradient.open" : "gradient.shut", { z: shown(z) })
      : word("gradient.slope", { name });
  return [{ label: gate, value: dz, name: "gradient-pre", text: `∂L/∂z = ${shown(dz, 5)}` }];
}

/** dL/dW of a layer: each number is a sum of inputs times gradients. */
export function weightsPanel(layer) {
  const names = now.back.dParams[layer.index].map(({ name }) => name);
  const windowed = layer.p.weight?.shape.length === 4;
  return names.includes("weight") && windowed ? kernelPanel(layer) : parameterPanel(layer);
}

/** A kernel and its gradient; of the number chosen, the sum over all places where it was used. */
function kernelPanel(layer) {
  const kernel = numberGrid(word("sum.kernel"), "kernel");
  const slope = numberGrid("∂L/∂W", "kernel-gradient");
  const seen = mapView(132);
  const dz = mapView(132);
  const products = mapView(132);
  const sum = ledger();
  const chips = chipRow(word("sum.channels"));
  const node = make(
    "div",
    { class: "panel" },
    make(
      "div",
      { class: "arithmetic" },
      together(kernel.node, slope.node),
      together(sign("→"), seen.node, sign("×"), dz.node, sign("="), products.node),
      together(sign("→"), sum.node),
    ),
    chips.node,
  );
  let first = null;

  function update() {
    const [A, B, KH, KW] = layer.p.weight.shape;
    const each = KH * KW;
    const transposed = layer.kind === "Conv2DTranspose";
    const f = state.at[0] % (transposed ? B : A);
    const parts = transposed ? A : B;
    const gradient = parameterGradient(layer, "weight");
    const sums = Array.from({ length: parts }, (_, k) => {
      const start = (transposed ? k * B + f : f * B + k) * each;
      return total(gradient.data.subarray(start, start + each));
    });
    first ??= strongest(sums);
    const c = state.channel ?? first;
    const [a, b] = transposed ? [c, f] : [f, c];
    const from = (a * B + b) * each;
    const part = gradient.data.subarray(from, from + each);
    const chosen = state.weight ?? strongest(part);
    const pick = (weight) => change({ weight });
    kernel.show(layer.p.weight.data.subarray(from, from + each), KH, KW, aroundZero(layer.p.weight.data), {
      lit: chosen,
    });
    slope.show(part, KH, KW, aroundZero(gradient.data), { lit: chosen, pick });
    const at = [a, b, Math.floor(chosen / KW), chosen % KW];
    const terms = now.net.weightTerms(now.run, now.back, layer, "weight", at);
    const [H, W] = terms.x.shape.slice(-2);
    seen.show(word("weights.seen"), terms.x.data, H, W, scaleOf(terms.x.data));
    dz.show("∂L/∂z", terms.dy.data, H, W, aroundZero(terms.dy.data));
    products.show(word("sum.products"), terms.products.data, H, W, aroundZero(terms.products.data));
    sum.show([
      {
        label: word("weights.entry", { count: H * W, at: at.join(", ") }),
        value: terms.total,
        total: true,
        name: "weight-gradient",
      },
      biasRow(layer, f),
    ]);
    chips.node.hidden = sums.length === 1;
    chips.show(sums, c, String, (channel) => change({ channel }));
  }

  return { node, update };
}

/** A dense unit's weights, dL/dW = x dL/dz, the largest first; or the parameters of any other layer. */
function parameterPanel(layer) {
  const list = productList("weight-gradients");
  const sum = ledger();
  const node = make("div", { class: "panel" }, make("div", { class: "arithmetic" }, list.node, sum.node));

  function update() {
    const weight = layer.p.weight;
    const unit = state.at[0];
    list.node.hidden = weight?.shape.length !== 2;
    if (!list.node.hidden) {
      const dz = now.back.dPre[layer.index].data[unit];
      const x = now.run.inputs[layer.index].data;
      list.show(
        [...x].map((value, k) => ({ label: `W[${unit}, ${k}]`, a: value, b: dz, product: value * dz })),
        [word("weights.weight"), "x", "∂L/∂z"],
      );
    }
    sum.show(
      now.back.dParams[layer.index]
        .filter(({ shape }) => shape.length === 1)
        .map(({ name, data }) => ({
          label: `∂L/∂${name}[${unit % data.length}]`,
          value: data[unit % data.length],
          name: `${name}-gradient`,
        })),
    );
  }

  return { node, update };
}

function biasRow(layer, f) {
  const bias = now.back.dParams[layer.index].find(({ name }) => name === "bias");
  return bias && { label: `∂L/∂b[${f}] = Σ ∂L/∂z`, value: bias.data[f], name: "bias-gradient" };
}

function parameterGradient(layer, wanted) {
  return now.back.dParams[layer.index].find(({ name }) => name === wanted);
}
