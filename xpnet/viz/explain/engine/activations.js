// Functions between layers: forward z -> y, backward dL/dy -> dL/dz, side by side.  As xpnet/activations.py.

import { channelsOf, map, tensor } from "./tensors.js";

const sigmoid = (z) => 1 / (1 + Math.exp(-z));
const ROOT_2_PI = Math.sqrt(2 * Math.PI);

/** erf(x), by a series of positive terms: 2 / sqrt(pi) exp(-x^2) (x + 2 x^3 / 3 + 4 x^5 / 15 + ...). */
function erf(x) {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x, sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) sum += term *= (2 * x * x) / (2 * n + 1);
  return ((2 / Math.sqrt(Math.PI)) * Math.exp(-x * x)) * sum;
}

/** The normal distribution function, exact or by the tanh formula, and its derivative. */
function normal(z, approximate) {
  if (!approximate) return [0.5 * (1 + erf(z * Math.SQRT1_2)), Math.exp(-0.5 * z * z) / ROOT_2_PI];
  const a = Math.sqrt(2 / Math.PI), t = Math.tanh(a * (z + 0.044715 * z * z * z));
  return [0.5 * (1 + t), 0.5 * (1 - t * t) * a * (1 + 3 * 0.044715 * z * z)];
}

// Element by element: y = value(z, options), dy/dz = slope(z, y, options).
const ELEMENTWISE = {
  linear: { value: (z) => z, slope: () => 1 },
  relu: { value: (z) => (z > 0 ? z : z !== z ? z : 0), slope: (z, y) => (y > 0 ? 1 : 0) },
  leaky_relu: {
    value: (z, o) => Math.max(z, o.negative_slope * z),
    slope: (z, y, o) => (y > 0 ? 1 : o.negative_slope),
  },
  elu: {
    value: (z, o) => (z > 0 ? z : o.alpha * Math.expm1(z)),
    slope: (z, y, o) => (y > 0 ? 1 : y + o.alpha),
  },
  sigmoid: { value: sigmoid, slope: (z, y) => y * (1 - y) },
  tanh: { value: Math.tanh, slope: (z, y) => 1 - y * y },
  softplus: {
    value: (z) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))),
    slope: (z, y) => -Math.expm1(-y),
  },
  gelu: {
    value: (z, o) => z * normal(z, o.approximate)[0],
    slope: (z, y, o) => {
      const [Phi, phi] = normal(z, o.approximate);
      return Phi + z * phi;
    },
  },
  silu: {
    value: (z) => z * sigmoid(z),
    slope: (z) => sigmoid(z) * (1 + z * (1 - sigmoid(z))),
  },
};

/** Softmax over the features of (D,), or over the channels at each pixel of (C, H, W): all its numbers. */
export function softmaxOf(z) {
  const [C, pixels] = channelsOf(z.shape);
  const max = new Float64Array(pixels).fill(-Infinity), total = new Float64Array(pixels);
  const exps = tensor(z.shape), y = tensor(z.shape);
  for (let i = 0; i < C * pixels; i++) max[i % pixels] = Math.max(max[i % pixels], z.data[i]);
  for (let i = 0; i < C * pixels; i++) {
    exps.data[i] = Math.exp(z.data[i] - max[i % pixels]);
    total[i % pixels] += exps.data[i];
  }
  for (let i = 0; i < C * pixels; i++) y.data[i] = exps.data[i] / total[i % pixels];
  return { max, exps, total, y };
}

/** Sums over the channels of f(i), one for each pixel. */
function channelSums(shape, f) {
  const [C, pixels] = channelsOf(shape), sums = new Float64Array(pixels);
  for (let i = 0; i < C * pixels; i++) sums[i % pixels] += f(i);
  return (i) => sums[i % pixels];
}

// Over the features or channels: forward(z) -> y, backward(dy, y) -> dz.
const TOGETHER = {
  softmax: {
    forward: (z) => softmaxOf(z).y,
    backward: (dy, y) => {
      const inner = channelSums(y.shape, (i) => dy.data[i] * y.data[i]);
      return map(y, (p, i) => p * (dy.data[i] - inner(i)));
    },
  },
  log_softmax: {
    forward: (z) => {
      const { max, total } = softmaxOf(z), pixels = max.length;
      return map(z, (value, i) => value - max[i % pixels] - Math.log(total[i % pixels]));
    },
    backward: (dy, y) => {
      const sum = channelSums(y.shape, (i) => dy.data[i]);
      return map(y, (p, i) => dy.data[i] - Math.exp(p) * sum(i));
    },
  },
};

/** y = f(z); f: {name, ...its numbers}, null for none. */
export function activate(f, z) {
  if (!f) return z;
  if (TOGETHER[f.name]) return TOGETHER[f.name].forward(z);
  const { value } = ELEMENTWISE[f.name];
  return map(z, (one) => value(one, f));
}

/** dL/dz from dL/dy. */
export function activateBackward(f, dy, z, y) {
  if (!f) return dy;
  if (TOGETHER[f.name]) return TOGETHER[f.name].backward(dy, y);
  const { slope } = ELEMENTWISE[f.name];
  return map(dy, (d, i) => d * slope(z.data[i], y.data[i], f));
}
