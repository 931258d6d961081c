// How single numbers come about: one output from its inputs, one gradient from those behind it.

import { softmaxOf } from "./activations.js";
import { lastToFirst, stretched } from "./layers.js";
import { sharing } from "./normalize.js";
import { channelsOf, indexOf, map, offsetOf, sizeOf, tensor } from "./tensors.js";

const range = (count, f) => Array.from({ length: count }, (_, i) => f(i));

/** The number at an index list; NaN outside of a map. */
function numberAt(a, at) {
  return at.every((index, axis) => index >= 0 && index < a.shape[axis]) ? a.data[offsetOf(a.shape, at)] : NaN;
}

/** Whether a position lies beyond the edges of a map. */
const outside = ({ shape: [, H, W] }, row, col) => row < 0 || col < 0 || row >= H || col >= W;

// -- windows ---------------------------------------------------------------------------------------------------------

/** Where the window of output (oh, ow) lies on the input; rows and columns may lie beyond its edges. */
function placeOf({ kernel: [KH, KW], strides: [SH, SW], dilation: [DH, DW], padding: [[t], [l]] }, oh, ow) {
  const top = oh * SH - t, left = ow * SW - l;
  return {
    top,
    left,
    height: (KH - 1) * DH + 1,
    width: (KW - 1) * DW + 1,
    rows: range(KH, (kh) => top + kh * DH),
    cols: range(KW, (kw) => left + kw * DW),
  };
}

/** The outputs whose window reaches position y of the input along one axis: [{o, k}], k: the kernel's element. */
function reaching(y, stride, dilation, kernel, before, outputs) {
  const found = [];
  for (let k = 0; k < kernel; k++) {
    const o = (y + before - k * dilation) / stride;
    if (Number.isInteger(o) && o >= 0 && o < outputs) found.push({ o, k });
  }
  return found.reverse();
}

/** `reaching` for both axes: [{oh, ow, kh, kw}]. */
function reachingBoth(window, [y, x], [, OH, OW]) {
  const { kernel: [KH, KW], strides: [SH, SW], dilation: [DH, DW], padding: [[top], [left]] } = window;
  const columns = reaching(x, SW, DW, KW, left, OW);
  return reaching(y, SH, DH, KH, top, OH).flatMap(({ o: oh, k: kh }) =>
    columns.map(({ o: ow, k: kw }) => ({ oh, ow, kh, kw })),
  );
}

/** The patch under a window, channels [first, last); outside of the map `border`. */
function patchOf(x, place, first, last, border) {
  const { rows, cols } = place, patch = tensor([last - first, rows.length, cols.length]);
  let i = 0;
  for (let c = first; c < last; c++) {
    for (const row of rows) {
      for (const col of cols) {
        patch.data[i++] = outside(x, row, col) ? border : numberAt(x, [c, row, col]);
      }
    }
  }
  return patch;
}

/** The channels that filter f of F sees: [first, last). */
function channelsSeen(f, F, groups, CG) {
  const first = Math.floor((f * groups) / F) * CG;
  return [first, first + CG];
}

/** Number f of the rows that a weight has along its first axis, as a tensor. */
function rowOf(weight, f) {
  const shape = weight.shape.slice(1), size = sizeOf(shape);
  return tensor(shape, weight.data.subarray(f * size, (f + 1) * size));
}

// -- one output ------------------------------------------------------------------------------------------------------

/** How output `out` of a layer was made; see the kinds below.  null where the run did not get there. */
export function termsOf(net, run, layer, out) {
  const { index } = layer, x = run.inputs[index], z = run.pre[index];
  if (!z || !TERMS[layer.kind]) return null;
  const made = TERMS[layer.kind]({ net, run, layer, out, x });
  if (!made) return null;
  made.sum = numberAt(z, out);
  made.activated = numberAt(run.outputs[index], out);
  if (layer.f?.name === "softmax") made.softmax = softmaxTerms(z, out);
  return made;
}

/** Softmax of the vector (or of a map's pixel) that output `out` belongs to: exp(z - max) over their sum. */
export function softmaxTerms(z, [index, ...pixel]) {
  const { max, exps, total, y } = softmaxOf(z), [C, pixels] = channelsOf(z.shape);
  const at = offsetOf(z.shape.slice(1), pixel);
  const along = (a) => Float32Array.from({ length: C }, (_, c) => a.data[c * pixels + at]);
  return { kind: "softmax", logits: along(z), max: max[at], exps: along(exps), total: total[at], probabilities: along(y), index };
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
  const made = { kind: "pool", mode: isMax ? "max" : "average", patch, window: { ...place, channels: [c, c + 1] } };
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
  if (interpolation === "nearest") return { kind: "move", from: [c, row.pixel, column.pixel] };
  const ends = ({ pixel, neighbour, share }) => [[pixel, 1 - share], [neighbour, share]].filter(([, w]) => w);
  const contributions = ends(row).flatMap(([y, a]) =>
    ends(column).map(([col, b]) => contribution(x, [c, y, col], null, a * b)),
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

// -- the same as a matrix --------------------------------------------------------------------------------------------

/**
 * im2col: every patch as a column, so that a convolution is one product of matrices, (F, C KH KW) by
 * (C KH KW, OH OW).  Rows in the order (c, kh, kw) of the weight, columns in the order (oh, ow) of the output.
 * group: which of the layer's groups of channels.  A vector is a matrix of one column.
 */
export function columnsOf(run, layer, group = 0) {
  const x = run.inputs[layer.index], { weight } = layer.p;
  const kernels = { row: (f) => (weight ? rowOf(weight, f).data : null) };
  if (layer.kind === "Dense") return { rows: x.data.length, columns: 1, at: (row) => x.data[row], ...kernels };
  if (layer.kind !== "Conv2D") return null;
  const { window, shapes: { weight: [, CG, KH, KW] }, outShape: [, OH, OW] } = layer;
  const at = (row, column) => {
    const [c, kh, kw] = indexOf([CG, KH, KW], row), [oh, ow] = indexOf([OH, OW], column);
    const { rows, cols } = placeOf(window, oh, ow);
    return outside(x, rows[kh], cols[kw]) ? 0 : numberAt(x, [group * CG + c, rows[kh], cols[kw]]);
  };
  return { rows: CG * KH * KW, columns: OH * OW, at, ...kernels };
}

// -- one gradient ----------------------------------------------------------------------------------------------------

/** Where dL/dx at an index list of a layer's input came from: the outputs that used it, each times how it did. */
export function sourcesOf(run, back, layer, at) {
  const dz = back.dPre[layer.index], found = dz && SOURCES[layer.kind]?.({ run, layer, at, dz });
  if (!found) return null;
  const contributions = found.list.map(({ out, w, at: weightAt }) => {
    const dy = numberAt(dz, out);
    return { out, dy, w, at: weightAt ?? null, product: dy * w };
  });
  return { kind: found.kind, contributions, total: numberAt(back.dInputs[layer.index], at) };
}

const SOURCES = {
  Dense: ({ layer: { p, outShape: [O] }, at: [i] }) =>
    p.weight && { kind: "dense", list: range(O, (o) => ({ out: [o], w: numberAt(p.weight, [o, i]), at: [o, i] })) },
  Conv2D({ layer, at: [c, y, x] }) {
    const { p, window, config: { groups }, outShape } = layer, [F] = outShape;
    if (!p.weight) return null;
    const [, CG] = p.weight.shape, FG = F / groups, first = Math.floor(c / CG) * FG;
    const places = reachingBoth(window, [y, x], outShape);
    const list = range(FG, (i) => first + i).flatMap((f) =>
      places.map(({ oh, ow, kh, kw }) => {
        const at = [f, c % CG, kh, kw];
        return { out: [f, oh, ow], w: numberAt(p.weight, at), at };
      }),
    );
    return { kind: "conv", list };
  },
  Conv2DTranspose({ layer, at: [c, y, x] }) {
    const { p, window, config: { groups }, inShape: [C], outShape: [F, OH, OW] } = layer;
    if (!p.weight) return null;
    const FG = F / groups, first = Math.floor((c * groups) / C) * FG, { rows, cols } = placeOf(window, y, x);
    const list = range(FG, (own) => own).flatMap((own) =>
      rows.flatMap((oh, kh) => cols.map((ow, kw) => ({ out: [first + own, oh, ow], at: [c, own, kh, kw] }))),
    );
    const within = list.filter(({ out: [, oh, ow] }) => oh >= 0 && oh < OH && ow >= 0 && ow < OW);
    return { kind: "transpose", list: within.map((one) => ({ ...one, w: numberAt(p.weight, one.at) })) };
  },
  MaxPooling2D: ({ run, layer, at }) => pooled(layer, at, (o, i) => (run.kept[layer.index]?.[o] === i ? 1 : 0)),
  AveragePooling2D: ({ layer, at }) => pooled(layer, at, (o) => layer.share[o % layer.share.length]),
  GlobalMaxPooling2D: (given) => SOURCES.MaxPooling2D(given),
  GlobalAveragePooling2D: (given) => SOURCES.AveragePooling2D(given),
};

/** The windows over an element and what each makes of it. */
function pooled({ window, inShape, outShape }, [c, y, x], weight) {
  const i = offsetOf(inShape, [c, y, x]), isVector = outShape.length === 1;
  const places = isVector ? [{ oh: 0, ow: 0 }] : reachingBoth(window, [y, x], outShape);
  const list = places.map(({ oh, ow }) => {
    const out = isVector ? [c] : [c, oh, ow];
    return { out, w: weight(offsetOf(outShape, out), i) };
  });
  return { kind: "pool", list };
}

/**
 * What dL/dW at an index list of a parameter is the sum of: x, dy and their products, tensors (OH, OW) for
 * kernels, (1,) for a dense layer's weights; x null for a bias.
 */
export function weightTermsOf(run, back, layer, name, at) {
  const dz = back.dPre[layer.index], x = run.inputs[layer.index];
  if (!dz || !x || !WEIGHTS[layer.kind]) return null;
  const param = back.dParams[layer.index].find((one) => one.name === name);
  const total = param ? numberAt(param, at) : NaN;
  if (name === "bias") {
    const dy = rowOf(tensor([dz.shape[0], ...(dz.shape.length > 1 ? dz.shape.slice(1) : [1])], dz.data), at[0]);
    return { x: null, dy, products: dy, total };
  }
  const made = WEIGHTS[layer.kind]({ layer, x, dz, at });
  return { ...made, products: map(made.x, (value, i) => value * made.dy.data[i]), total };
}

/** Of a map, what a kernel's element (kh, kw) lay over in channel c: (OH, OW). */
function underElement(x, window, c, kh, kw, OH, OW) {
  const seen = tensor([OH, OW]);
  for (let oh = 0; oh < OH; oh++) {
    for (let ow = 0; ow < OW; ow++) {
      const { rows, cols } = placeOf(window, oh, ow);
      if (!outside(x, rows[kh], cols[kw])) seen.data[oh * OW + ow] = numberAt(x, [c, rows[kh], cols[kw]]);
    }
  }
  return seen;
}

const one = (value) => tensor([1], Float32Array.of(value));

const WEIGHTS = {
  Dense: ({ x, dz, at: [o, i] }) => ({ x: one(x.data[i]), dy: one(dz.data[o]) }),
  Conv2D({ layer, x, dz, at: [f, c, kh, kw] }) {
    const [F, OH, OW] = layer.outShape, [, CG] = layer.shapes.weight;
    const [first] = channelsSeen(f, F, layer.config.groups, CG);
    return { x: underElement(x, layer.window, first + c, kh, kw, OH, OW), dy: rowOf(dz, f) };
  },
  Conv2DTranspose({ layer, x, dz, at: [c, own, kh, kw] }) {
    const [C, H, W] = layer.inShape, FG = layer.outShape[0] / layer.config.groups;
    const f = Math.floor((c * layer.config.groups) / C) * FG + own;
    return { x: rowOf(x, c), dy: underElement(dz, layer.window, f, kh, kw, H, W) };
  },
};
