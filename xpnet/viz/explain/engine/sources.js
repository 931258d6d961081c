// Where one gradient came from: dL/dx from the outputs that used x, dL/dW from all places where W was used.

import { groupMeans } from "./normalize.js";
import { channelsSeen, numberAt, outside, placeOf, range, reachingBoth, rowOf } from "./places.js";
import { map, offsetOf, tensor } from "./tensors.js";

/**
 * Where dL/dx at an index list of a layer's input came from: the outputs that used it, and how each did.
 *
 * rounding: what the total has more than products of rounded weights, where it was stored; else null.
 */
export function sourcesOf(run, back, layer, at) {
  const dz = back.dPre[layer.index], found = layer.known && dz && SOURCES[layer.kind]?.({ run, layer, at });
  if (!found) return null;
  const contributions = found.list.map(({ out, w, at: weightAt }) => {
    const dy = numberAt(dz, out);
    return { out, dy, w, at: weightAt ?? null, product: dy * w };
  });
  const total = numberAt(back.dInputs[layer.index], at);
  const sum = contributions.reduce((all, { product }) => all + product, 0);
  const rounding = layer.status === "rounded" && back.recalled[layer.index] ? total - sum : null;
  return { kind: found.kind, contributions, total, rounding };
}

/**
 * How a normalization made dL/dx of dL/dy: slope (g - mean(g) - xhat mean(g xhat)) with g = gamma dy, or
 * slope g where mean and variance are constants (moving: false); see normalizeBackward.
 */
export function normSourceOf(run, back, layer, at) {
  const dz = back.dPre[layer.index], kept = run.kept[layer.index], dx = back.dInputs[layer.index];
  if (!layer.known || !dz || !dx || !kept?.xhat) return null;
  const { stats, xhat, groups } = kept, { weight } = layer.p;
  const i = offsetOf(layer.inShape, at), group = groups.groupOf(i);
  const gamma = (k) => (weight ? weight.data[groups.weightOf(k)] : 1);
  const meanOf = (f) => groupMeans(groups, xhat.length, f)[group];
  const g = (k) => gamma(k) * dz.data[k];
  return {
    dy: dz.data[i],
    gamma: weight ? gamma(i) : null,
    slope: stats.slope[group],
    moving: stats.moving,
    mean: meanOf(g),
    xhat: xhat[i],
    inner: meanOf((k) => g(k) * xhat[k]),
    total: numberAt(dx, at),
  };
}

const SOURCES = {
  Dense({ layer: { p, outShape: [O] }, at: [i] }) {
    if (!p.weight) return null;
    const list = range(O, (o) => ({ out: [o], w: numberAt(p.weight, [o, i]), at: [o, i] }));
    return { kind: "dense", list };
  },
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
  MaxPooling2D({ run, layer, at }) {
    const winners = run.kept[layer.index];
    return winners && pooled(layer, at, (o, i) => (winners[o] === i ? 1 : 0));
  },
  AveragePooling2D: ({ layer, at }) => pooled(layer, at, (o) => layer.share[o % layer.share.length]),
  Dropout({ run, layer, at }) {
    const factor = run.kept[layer.index]?.(offsetOf(layer.inShape, at));
    return factor === undefined ? null : { kind: "dropout", list: [{ out: at, w: factor }] };
  },
  SpatialDropout2D: (given) => SOURCES.Dropout(given),
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
  if (!dz || !x || !layer.known || !WEIGHTS[layer.kind]) return null;
  const param = back.dParams[layer.index].find((one) => one.name === name);
  const total = param ? numberAt(param, at) : NaN;
  if (name === "bias") {
    const dy = dz.shape.length > 1 ? rowOf(dz, at[0]) : one(dz.data[at[0]]);
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
