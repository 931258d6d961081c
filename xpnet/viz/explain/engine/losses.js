// What training makes small: the loss of one answer p and its derivative.  As xpnet/losses.py, of one sample.
// p: (K,) or a map (K, H, W).  target: a class, a tensor of classes (H, W), or a tensor like p.

import { activate, softmaxOf } from "./activations.js";
import { channelsOf, map, tensor } from "./tensors.js";

const TINY = 1e-7; // the smallest probability whose logarithm is taken

/** The target as numbers like the answer's: a class becomes a one among zeros. */
export function wanted(target, shape) {
  if (target?.data && target.data.length === shape.reduce((a, b) => a * b, 1)) return target;
  const [, pixels] = channelsOf(shape), classes = target?.data ?? [target];
  if (classes.length !== pixels) throw new RangeError(`a target of ${classes.length} numbers for ${shape}`);
  if (shape[0] === 1 && pixels === 1) return tensor(shape, Float32Array.of(target)); // yes or no, or a number
  const t = tensor(shape);
  classes.forEach((k, pixel) => (t.data[k * pixels + pixel] = 1));
  return t;
}

/** -sum of t log q, q = softmax(p) or p itself; the mean over pixels. */
function categorical({ fromLogits, smoothing }, p, target) {
  const [K, pixels] = channelsOf(p.shape);
  const t = map(target, (value) => value * (1 - smoothing) + smoothing / K);
  const { loss, dp } = fromLogits ? ofLogits(p, t, pixels) : ofProbabilities(p, t);
  return { loss: loss / pixels, dp: map(dp, (d) => d / pixels) };
}

/** dp = q sum(t) - t, rounded where xpnet rounds: where an answer is sure, hardly more than that is left. */
function ofLogits(p, t, pixels) {
  const { max, exps, total } = softmaxOf(p), mass = new Float64Array(pixels);
  let loss = 0;
  t.data.forEach((share, i) => {
    mass[i % pixels] += share;
    loss -= share * (p.data[i] - max[i % pixels] - Math.log(total[i % pixels]));
  });
  const sum = pixels === 1 ? [sumOf32(exps.data)] : total;
  const factor = Float32Array.from(mass, (shares, pixel) => shares / Math.fround(sum[pixel]));
  return { loss, dp: map(t, (share, i) => Math.fround(exps.data[i] * factor[i % pixels]) - share) };
}

/** The sum of float32 numbers in float32, in the order of NumPy's: by eights, long rows by halves. */
function sumOf32(a) {
  const n = a.length, plus = (x, y) => Math.fround(x + y);
  if (n < 8) return a.reduce(plus, 0);
  if (n > 128) {
    const half = Math.floor(n / 2), middle = half - (half % 8);
    return plus(sumOf32(a.subarray(0, middle)), sumOf32(a.subarray(middle)));
  }
  const lanes = a.slice(0, 8), whole = n - (n % 8);
  for (let i = 8; i < whole; i++) lanes[i % 8] += a[i];
  const [r0, r1, r2, r3, r4, r5, r6, r7] = lanes;
  const eights = plus(plus(plus(r0, r1), plus(r2, r3)), plus(plus(r4, r5), plus(r6, r7)));
  return a.subarray(whole).reduce(plus, eights);
}

function ofProbabilities(p, t) {
  const q = map(p, (value) => Math.max(value, TINY));
  const loss = t.data.reduce((sum, share, i) => sum - share * Math.log(q.data[i]), 0);
  return { loss, dp: map(t, (share, i) => -share / q.data[i]) };
}

/** -(t log q + (1 - t) log(1 - q)), q = sigmoid(p) or p itself; the mean over the outputs. */
function binary({ fromLogits, smoothing }, p, target) {
  const n = p.data.length, t = map(target, (value) => value * (1 - smoothing) + 0.5 * smoothing);
  let loss = 0;
  if (fromLogits) {
    p.data.forEach((z, i) => (loss += Math.max(z, 0) - z * t.data[i] + Math.log1p(Math.exp(-Math.abs(z)))));
    const q = activate({ name: "sigmoid" }, p);
    return { loss: loss / n, dp: map(q, (value, i) => (value - t.data[i]) / n) };
  }
  const clip = (value) => Math.min(Math.max(value, TINY), 1 - TINY);
  const dp = map(p, (value, i) => {
    const q = clip(value);
    loss -= t.data[i] * Math.log(q) + (1 - t.data[i]) * Math.log1p(-q);
    return (q - t.data[i]) / (q * (1 - q)) / n;
  });
  return { loss: loss / n, dp };
}

/** Losses of the differences d = p - t: value(d) and slope(d), the mean over the outputs unless summed. */
const byDifference = (value, slope, summed = false) => (options, p, t) => {
  const n = summed ? 1 : p.data.length;
  let loss = 0;
  const dp = map(p, (one, i) => {
    const d = one - t.data[i];
    loss += value(d, options);
    return slope(d, options) / n;
  });
  return { loss: loss / n, dp };
};

const huber = byDifference(
  (d, { delta }) => (Math.abs(d) <= delta ? 0.5 * d * d : delta * (Math.abs(d) - 0.5 * delta)),
  (d, { delta }) => Math.min(Math.max(d, -delta), delta),
);

const LOSSES = {
  "softmax-cross-entropy": categorical,
  "binary-cross-entropy": binary,
  mse: byDifference((d) => d * d, (d) => 2 * d),
  "half-squared-error": byDifference((d) => 0.5 * d * d, (d) => d),
  "sum-squared-error": byDifference((d) => d * d, (d) => 2 * d, true),
  mae: byDifference(Math.abs, Math.sign),
  huber,
};

/** The loss and its derivative by p; loss: net.loss. */
export function lossOf(loss, p, target) {
  return LOSSES[loss.kind](loss, p, wanted(target, p.shape));
}
