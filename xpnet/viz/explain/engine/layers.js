// What each kind of layer computes, forward and backward side by side.  Maps are (C, H, W), vectors (D,).
//
//     forward(layer, xs, train)        -> {z, kept}       z: before the layer's activation
//     backward(layer, dz, xs, kept)    -> {dxs, grads}    dL/dx of each input, dL/dW by the parameter's name
//     remembers: true                  -> backward needs what forward kept
//
// layer: the entry of net.layers, with layer.p.weight and so on.  xs: its inputs, one but for Residual and
// Concatenate.  kept: what backward has to remember.  Without its weights a layer has no dx, null.

import { map, sizeOf, tensor } from "./tensors.js";
import { normalize, normalizeBackward, sharing, statistics } from "./normalize.js";
import * as windows from "./windows.js";

/** z[o] = b[o] + sum over i of W[o, i] x[i];  dW = dz x',  dx = W' dz. */
const Dense = {
  forward({ p, outShape: [O] }, [x]) {
    const z = tensor([O]), I = x.data.length, w = p.weight.data;
    for (let o = 0, k = 0; o < O; o++) {
      let sum = p.bias ? p.bias.data[o] : 0;
      for (let i = 0; i < I; i++, k++) sum += w[k] * x.data[i];
      z.data[o] = sum;
    }
    return { z };
  },
  backward({ p, shapes }, dz, [x]) {
    const I = x.data.length, weight = tensor(shapes.weight);
    const dx = p.weight && new Float64Array(I);
    dz.data.forEach((d, o) => {
      for (let i = 0, k = o * I; i < I; i++, k++) {
        weight.data[k] = d * x.data[i];
        if (dx) dx[i] += d * p.weight.data[k];
      }
    });
    return { dxs: [dx && tensor([I], Float32Array.from(dx))], grads: { weight, bias: map(dz, (d) => d) } };
  },
};

/** A kernel slides over the map: windows.correlate; dx by its adjoint. */
const Conv2D = {
  forward({ p, window, config, outShape }, [x]) {
    const seen = windows.pad(x, window.padding);
    return { z: windows.correlate(seen, p.weight, p.bias, window, config.groups, outShape) };
  },
  backward({ p, shapes, window, config }, dz, [x]) {
    const seen = windows.pad(x, window.padding);
    const weight = windows.kernelGradient(seen, dz, window, config.groups, shapes.weight);
    const dx = p.weight && windows.spread(dz, p.weight, window, config.groups, seen.shape);
    return {
      dxs: [dx && windows.crop(dx, window.padding)],
      grads: { weight, bias: windows.biasGradient(dz) },
    };
  },
};

/** A convolution run backwards: every pixel leaves its multiple of the kernel; dx is the convolution. */
const Conv2DTranspose = {
  forward({ p, window, config, outShape: [F, OH, OW] }, [x]) {
    const [[top, bottom], [left, right]] = window.padding;
    const shape = [F, OH + top + bottom, OW + left + right];
    const full = windows.spread(x, p.weight, window, config.groups, shape);
    const z = windows.crop(full, window.padding), pixels = OH * OW;
    return { z: p.bias ? map(z, (value, i) => value + p.bias.data[Math.floor(i / pixels)]) : z };
  },
  backward({ p, shapes, window, config, inShape }, dz, [x]) {
    const seen = windows.pad(dz, window.padding);
    const weight = windows.kernelGradient(seen, x, window, config.groups, shapes.weight);
    const dx = p.weight && windows.correlate(seen, p.weight, null, window, config.groups, inShape);
    return { dxs: [dx], grads: { weight, bias: windows.biasGradient(dz) } };
  },
};

/** The largest element under each window, which alone gets the gradient. */
const MaxPooling2D = {
  remembers: true,
  forward({ window, outShape }, [x]) {
    const { y, winners } = windows.maxPool(x, window, outShape);
    return { z: y, kept: winners };
  },
  backward(layer, dz, [x], winners) {
    const dx = tensor(x.shape);
    winners.forEach((winner, o) => (dx.data[winner] += dz.data[o]));
    return { dxs: [dx], grads: {} };
  },
};

/** share times the sum of each window: 1 / (how many elements count). */
const AveragePooling2D = {
  forward({ window, share, outShape }, [x]) {
    const sum = new Float64Array(sizeOf(outShape));
    windows.eachUnder(window, x.shape, outShape, (o, i) => (sum[o] += x.data[i]));
    return { z: tensor(outShape, Float32Array.from(sum, (value, o) => value * share[o % share.length])) };
  },
  backward({ window, share, outShape }, dz, [x]) {
    const dx = new Float64Array(x.data.length);
    windows.eachUnder(window, x.shape, outShape, (o, i) => (dx[i] += dz.data[o] * share[o % share.length]));
    return { dxs: [tensor(x.shape, Float32Array.from(dx))], grads: {} };
  },
};

/** Batch, layer and group normalization, by statistics of x; see normalize.js. */
const Normalizing = {
  remembers: true,
  forward(layer, [x]) {
    const groups = sharing(layer, x.shape), stats = statistics(x, groups, layer.config.epsilon);
    const { y, xhat } = normalize(x, groups, stats, layer.p.weight, layer.p.bias);
    return { z: y, kept: { groups, stats, xhat } };
  },
  backward(layer, dz, xs, { groups, stats, xhat }) {
    return normalizeBackward(dz, groups, stats, xhat, layer.p.weight);
  },
};

/** In training by statistics of the batch, here of one sample; otherwise by the running ones. */
const BatchNormalization = {
  forward(layer, [x], train) {
    if (train && !layer.frozen) return Normalizing.forward(layer, [x]);
    const slope = Float64Array.from(layer.p.running_var.data, (v) => 1 / Math.sqrt(v + layer.config.epsilon));
    return byConstants(layer, x, slope);
  },
  backward: Normalizing.backward,
  remembers: true,
};

/** By statistics of the training data. */
const Normalization = {
  forward(layer, [x]) {
    const slope = Float64Array.from(layer.p.running_var.data, (v) => 1 / Math.max(Math.sqrt(v), 1e-7));
    return byConstants(layer, x, slope);
  },
  backward: Normalizing.backward,
  remembers: true,
};

function byConstants(layer, x, slope) {
  const groups = sharing(layer, x.shape);
  const stats = { mean: layer.p.running_mean.data, variance: layer.p.running_var.data, slope, moving: false };
  const { y, xhat } = normalize(x, groups, stats, layer.p.weight, layer.p.bias);
  return { z: y, kept: { groups, stats, xhat } };
}

/** x times a mask of 0 and 1 / (1 - rate) in training, x itself otherwise (or x (1 - rate)). */
const Dropout = {
  remembers: true,
  forward(layer, [x], train) {
    const factor = dropoutFactor(layer, x.shape, train);
    return { z: map(x, (value, i) => value * factor(i)), kept: factor };
  },
  backward(layer, dz, xs, factor) {
    return { dxs: [map(dz, (d, i) => d * factor(i))], grads: {} };
  },
};

/** What each element is multiplied by. */
function dropoutFactor({ config: { rate, scaling }, p, keep }, shape, train) {
  if (!train) return () => (scaling === "inference" ? 1 - rate : 1);
  if (!p.mask) return () => 1;
  const each = sizeOf(shape) / p.mask.data.length; // a bit an element, or a bit a channel
  return (i) => (p.mask.data[Math.floor(i / each)] ? keep : 0);
}

/** The same numbers in another shape. */
const Moving = {
  forward: ({ outShape }, [x]) => ({ z: tensor(outShape, x.data) }),
  backward: ({ inShape }, dz) => ({ dxs: [tensor(inShape, dz.data)], grads: {} }),
};

/** Reshape; a vector that becomes a map is read as (H, W, C) in a model with channels last. */
const Reshape = {
  forward(layer, [x]) {
    const data = layer.channelsLast ? gather(x.data, lastToFirst(layer.outShape)) : x.data;
    return { z: tensor(layer.outShape, data) };
  },
  backward(layer, dz) {
    if (!layer.channelsLast) return Moving.backward(layer, dz);
    const dx = tensor(layer.inShape), from = lastToFirst(layer.outShape);
    dz.data.forEach((d, i) => (dx.data[from(i)] = d));
    return { dxs: [dx], grads: {} };
  },
};

const gather = (data, from) => data.map((_, i) => data[from(i)]);

/** Where element i of (C, H, W) lies in a vector in the order (H, W, C). */
export const lastToFirst = ([C, H, W]) => (i) => (i % (H * W)) * C + Math.floor(i / (H * W));

/** A border of zeros. */
const ZeroPadding2D = {
  forward: ({ border }, [x]) => ({ z: windows.pad(x, border) }),
  backward: ({ border }, dz) => ({ dxs: [windows.crop(dz, border)], grads: {} }),
};

/** The places of one axis made longer: for each the pixels it is made of, [[pixel, share], ...]. */
export function stretched(length, times, interpolation) {
  return Array.from({ length: length * times }, (_, o) => {
    const pixel = Math.floor(o / times);
    const distance = ((o % times) + 0.5) / times - 0.5; // from the pixel's centre
    const neighbour = Math.min(Math.max(pixel + Math.sign(distance), 0), length - 1);
    const share = interpolation === "bilinear" ? Math.abs(distance) : 0;
    return share ? [[pixel, 1 - share], [neighbour, share]] : [[pixel, 1]];
  });
}

/** Each pixel becomes SH x SW of them, the same or blended into their neighbours. */
const UpSampling2D = {
  forward({ config: { size, interpolation }, outShape }, [x]) {
    const z = new Float64Array(sizeOf(outShape));
    eachBlend(x.shape, size, interpolation, (o, i, weight) => (z[o] += weight * x.data[i]));
    return { z: tensor(outShape, Float32Array.from(z)) };
  },
  backward({ config: { size, interpolation } }, dz, [x]) {
    const dx = new Float64Array(x.data.length);
    eachBlend(x.shape, size, interpolation, (o, i, weight) => (dx[i] += weight * dz.data[o]));
    return { dxs: [tensor(x.shape, Float32Array.from(dx))], grads: {} };
  },
};

/** Calls visit(output, input, weight) for the inputs of every output. */
export function eachBlend([C, H, W], [SH, SW], interpolation, visit) {
  const rows = stretched(H, SH, interpolation), columns = stretched(W, SW, interpolation);
  for (let c = 0, o = 0; c < C; c++) {
    for (const row of rows) {
      for (const column of columns) {
        for (const [y, a] of row) {
          for (const [x, b] of column) visit(o, (c * H + y) * W + x, a * b);
        }
        o++;
      }
    }
  }
}

/** y = scale x + offset. */
const Rescaling = {
  forward: ({ config: { scale, offset } }, [x]) => ({ z: map(x, (value) => scale * value + offset) }),
  backward: ({ config: { scale } }, dz) => ({ dxs: [map(dz, (d) => scale * d)], grads: {} }),
};

/** The activation alone. */
const Activation = {
  forward: (layer, [x]) => ({ z: x }),
  backward: (layer, dz) => ({ dxs: [dz], grads: {} }),
};

/** body(x) + shortcut(x); both get the gradient whole. */
const Residual = {
  forward: (layer, [body, shortcut]) => ({ z: map(body, (value, i) => value + shortcut.data[i]) }),
  backward: (layer, dz) => ({ dxs: [dz, dz], grads: {} }),
};

/** Branches side by side; each gets its part of the gradient. */
const Concatenate = {
  forward({ outShape }, xs) {
    const z = tensor(outShape);
    let start = 0;
    for (const x of xs) {
      z.data.set(x.data, start);
      start += x.data.length;
    }
    return { z };
  },
  backward(layer, dz, xs) {
    let start = 0;
    const part = (x) => tensor(x.shape, dz.data.slice(start, (start += x.data.length)));
    return { dxs: xs.map(part), grads: {} };
  },
};

export const LAYERS = {
  Activation,
  AveragePooling2D,
  BatchNormalization,
  Concatenate,
  Conv2D,
  Conv2DTranspose,
  Dense,
  Dropout,
  Flatten: Moving,
  GlobalAveragePooling2D: AveragePooling2D,
  GlobalMaxPooling2D: MaxPooling2D,
  GroupNormalization: Normalizing,
  LayerNormalization: Normalizing,
  MaxPooling2D,
  Normalization,
  Rescaling,
  Reshape,
  Residual,
  SpatialDropout2D: Dropout,
  UpSampling2D,
  ZeroPadding2D,
};
