// How one output of a layer was made of its inputs.

import { softmaxOf } from "./activations.js";
import { lastToFirst, stretched } from "./layers.js";
import { sharing } from "./normalize.js";
import { channelsSeen, numberAt, patchOf, placeOf, range, reachingBoth, rowOf } from "./places.js";
import { channelsOf, indexOf, map, offsetOf } from "./tensors.js";

/**
 * How output `out` of a layer was made; see the kinds below.  null where the run did not get there.
 *
 * rounding: what the sum has more than products of rounded weights, where it was stored; else null.
 */
export function termsOf(net, run, layer, out) {
  const { index } = layer, x = run.inputs[index], z = run.pre[index];
  const isHere = layer.inputs.every((from) => from < 0 || run.outputs[from]);
  if (!z || !isHere || !layer.known) return null;
  const made = TERMS[layer.kind]({ net, run, layer, out, x });
  if (!made) return null;
  made.sum = numberAt(z, out);
  made.rounding = layer.status === "rounded" && run.recalled[index] ? made.sum - summed(made) : null;
  made.activated = numberAt(run.outputs[index], out);
  if (layer.f?.name === "softmax") made.softmax = softmaxTerms(z, out);
  return made;
}

/** Softmax of the vector (or of a map's pixel) that output `out` belongs to: exp(z - max) over their sum. */
export function softmaxTerms(z, [index, ...pixel]) {
  const { max, exps, total, y } = softmaxOf(z), [C, pixels] = channelsOf(z.shape);
  const at = offsetOf(z.shape.slice(1), pixel);
  const along = (a) => Float32Array.from({ length: C }, (_, c) => a.data[c * pixels + at]);
  return {
    kind: "softmax",
    logits: along(z),
    max: max[at],
    exps: along(exps),
    total: total[at],
    probabilities: along(y),
    index,
  };
}

/** The sum of the products and the bias. */
function summed({ products, contributions, bias }) {
  const list = products ? products.data : (contributions ?? []).map(({ product }) => product);
  return list.reduce((sum, product) => sum + product, bias ?? 0);
}

function weighted(kind, { layer, out: [o] }, patch, more = {}) {
  const { weight, bias } = layer.p;
  if (!weight) return { kind, patch, kernel: null, products: null, bias: null, ...more };
  const kernel = rowOf(weight, o), products = map(patch, (value, i) => value * kernel.data[i]);
  return { kind, patch, kernel, products, bias: bias ? bias.data[o] : null, ...more };
}

function poolTerms({ layer, out: [c, oh, ow], x, run }) {
  const { window, kind, index } = layer, isMax = kind.includes("Max"), isGlobal = kind.startsWith("Global");
  const place = isGlobal ? placeOf(window, 0, 0) : placeOf(window, oh, ow);
  const patch = patchOf(x, place, c, c + 1, NaN);
  const o = offsetOf(layer.outShape, isGlobal ? [c] : [c, oh, ow]);
  const reach = { ...place, channels: [c, c + 1] };
  const made = { kind: "pool", mode: isMax ? "max" : "average", patch, window: reach };
  if (!isMax) return { ...made, chosen: null, divisor: 1 / layer.share[o % layer.share.length] };
  const winners = run.kept[index];
  if (!winners) return { ...made, chosen: null, divisor: null };
  const [, y, col] = indexOf(x.shape, winners[o]);
  return { ...made, chosen: (y - place.top) * place.cols.length + (col - place.left), divisor: null };
}

function normTerms({ layer, out, x, run }) {
  const i = offsetOf(layer.outShape, out), { weight, bias } = layer.p, kept = run.kept[layer.index];
  if (!kept) return null;
  const { stats, xhat } = kept, { groupOf, weightOf } = sharing(layer, x.shape), g = groupOf(i);
  return {
    kind: "norm",
    x: x.data[i],
    mean: stats.mean[g],
    variance: stats.variance[g],
    epsilon: layer.config.epsilon ?? 0,
    gamma: weight ? weight.data[weightOf(i)] : null,
    beta: bias ? bias.data[weightOf(i)] : null,
    normalized: xhat[i],
    over: stats.moving ? "sample" : "moving",
  };
}

function dropoutTerms({ layer, out, x, run }) {
  const i = offsetOf(layer.outShape, out), factor = run.kept[layer.index]?.(i) ?? 1;
  return { kind: "dropout", x: x.data[i], kept: factor !== 0, scale: factor };
}

/** The same number at another place; from: null for a border. */
const moveFrom = (from) => ({ out, layer, x }) => ({ kind: "move", from: from(out, layer, x) });

function upsamplingTerms({ layer, out: [c, oh, ow], x }) {
  const { size: [SH, SW], interpolation } = layer.config, [, H, W] = x.shape;
  const row = stretched(H, SH, interpolation)[oh], column = stretched(W, SW, interpolation)[ow];
  if (interpolation === "nearest") return { kind: "move", from: [c, row[0][0], column[0][0]] };
  const contributions = row.flatMap(([y, a]) =>
    column.map(([col, b]) => contribution(x, [c, y, col], null, a * b)),
  );
  return { kind: "blend", contributions };
}

function contribution(x, from, at, w) {
  const value = numberAt(x, from);
  return { from, at, x: value, w, product: value * w };
}

function transposeTerms({ layer, out: [f, oh, ow], x }) {
  const { weight, bias } = layer.p, { window, config: { groups }, outShape: [F] } = layer;
  const made = { kind: "transpose", contributions: null, bias: bias ? bias.data[f] : null };
  if (!weight) return made;
  const [C] = x.shape, group = Math.floor((f * groups) / F), own = f % (F / groups);
  const places = reachingBoth(window, [oh, ow], x.shape);
  made.contributions = range(C / groups, (i) => group * (C / groups) + i).flatMap((c) =>
    places.map(({ oh: y, ow: col, kh, kw }) =>
      contribution(x, [c, y, col], [c, own, kh, kw], numberAt(weight, [c, own, kh, kw])),
    ),
  );
  return made;
}

function convTerms(given) {
  const { layer, out: [f, oh, ow], x } = given, place = placeOf(layer.window, oh, ow);
  const [F, CG] = layer.shapes.weight, channels = channelsSeen(f, F, layer.config.groups, CG);
  const patch = patchOf(x, place, ...channels, 0);
  return weighted("conv", given, patch, { window: { ...place, channels } });
}

function partsOf({ net, run, layer, out }) {
  const parts = Object.keys(layer.children).map((name, k) => {
    const from = layer.inputs[k], own = layer.children[name].length > 0;
    const value = numberAt(from < 0 ? run.x : run.outputs[from], out);
    return { name, layer: own ? net.layers[from].index : null, value };
  });
  return { kind: "add", parts };
}

function concatTerms({ net, run, layer, out: [c, ...rest] }) {
  const names = Object.keys(layer.children);
  for (const [k, from] of layer.inputs.entries()) {
    const [width] = from < 0 ? run.x.shape : net.layers[from].outShape;
    if (c < width) return { kind: "concat", from: [names[k], [c, ...rest]], layer: from };
    c -= width;
  }
  return null;
}

const shifted = ([c, y, x], { border: [[top], [left]] }, { shape: [, H, W] }) => {
  const from = [c, y - top, x - left];
  return from[1] >= 0 && from[1] < H && from[2] >= 0 && from[2] < W ? from : null;
};

const reshaped = (out, layer, x) => {
  const i = offsetOf(layer.outShape, out);
  return indexOf(x.shape, layer.channelsLast ? lastToFirst(layer.outShape)(i) : i);
};

const activationTerms = ({ layer, out, x }) =>
  layer.f?.name === "softmax"
    ? softmaxTerms(x, out)
    : { kind: "activation", x: numberAt(x, out), name: layer.activation ?? "linear" };

const scaleTerms = ({ layer: { config }, out, x }) => ({
  kind: "scale",
  x: numberAt(x, out),
  factor: config.scale,
  offset: config.offset,
});

const TERMS = {
  Activation: activationTerms,
  AveragePooling2D: poolTerms,
  BatchNormalization: normTerms,
  Concatenate: concatTerms,
  Conv2D: convTerms,
  Conv2DTranspose: transposeTerms,
  Dense: (given) => weighted("dense", given, given.x),
  Dropout: dropoutTerms,
  Flatten: moveFrom(reshaped),
  GlobalAveragePooling2D: poolTerms,
  GlobalMaxPooling2D: poolTerms,
  GroupNormalization: normTerms,
  LayerNormalization: normTerms,
  MaxPooling2D: poolTerms,
  Normalization: normTerms,
  Rescaling: scaleTerms,
  Reshape: moveFrom(reshaped),
  Residual: partsOf,
  SpatialDropout2D: dropoutTerms,
  UpSampling2D: upsamplingTerms,
  ZeroPadding2D: moveFrom(shifted),
};
