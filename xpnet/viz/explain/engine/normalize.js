// Normalization: batch, layer and group are one computation over different groups of elements.

import { channelsOf, tensor } from "./tensors.js";

/** Which elements of x share a mean, and which a weight: {groups, groupOf(i), weightOf(i)} of element i. */
export function sharing(layer, shape) {
  const [C, pixels] = channelsOf(shape);
  const channel = (i) => Math.floor(i / pixels);
  switch (layer.kind) {
    case "LayerNormalization":
      if (shape.length === 3 && layer.config.axis === "channels") {
        return { groups: pixels, groupOf: (i) => i % pixels, weightOf: channel };
      }
      return { groups: 1, groupOf: () => 0, weightOf: (i) => i };
    case "GroupNormalization": {
      const groups = layer.config.groups === -1 ? C : layer.config.groups;
      return { groups, groupOf: (i) => Math.floor((channel(i) * groups) / C), weightOf: channel };
    }
    default:
      return { groups: C, groupOf: channel, weightOf: channel };
  }
}

/** Means over the groups of f(i). */
export function groupMeans({ groups, groupOf }, count, f) {
  const sums = new Float64Array(groups), counts = new Float64Array(groups);
  for (let i = 0; i < count; i++) {
    sums[groupOf(i)] += f(i);
    counts[groupOf(i)]++;
  }
  return sums.map((sum, g) => sum / counts[g]);
}

/** Mean of each group of x, and 1 / sqrt(var + epsilon). */
export function statistics(x, groups, epsilon) {
  const count = x.data.length;
  const mean = groupMeans(groups, count, (i) => x.data[i]);
  const variance = groupMeans(groups, count, (i) => (x.data[i] - mean[groups.groupOf(i)]) ** 2);
  return { mean, variance, slope: variance.map((v) => 1 / Math.sqrt(v + epsilon)), moving: true };
}

/** xhat = (x - mean) slope and y = weight xhat + bias; weight, bias: tensors, or null for 1 and 0. */
export function normalize(x, { groupOf, weightOf }, { mean, slope }, weight, bias) {
  const y = tensor(x.shape), xhat = new Float64Array(x.data.length);
  for (let i = 0; i < xhat.length; i++) {
    const g = groupOf(i), w = weightOf(i);
    xhat[i] = (x.data[i] - mean[g]) * slope[g];
    y.data[i] = weight ? weight.data[w] * xhat[i] + bias.data[w] : xhat[i];
  }
  return { y, xhat };
}

/**
 * dx = slope (g - mean(g) - xhat mean(g xhat)) with g = weight dy, the means over each group; where mean and
 * variance are constants, dx = slope g.  dweight = sum of dy xhat, dbias = sum of dy.
 */
export function normalizeBackward(dy, groups, { slope, moving }, xhat, weight) {
  const { groupOf, weightOf } = groups, count = xhat.length;
  const g = (i) => (weight ? weight.data[weightOf(i)] : 1) * dy.data[i];
  const dx = tensor(dy.shape);
  const inner = moving ? groupMeans(groups, count, (i) => g(i) * xhat[i]) : null;
  const mean = moving ? groupMeans(groups, count, g) : null;
  for (let i = 0; i < count; i++) {
    const k = groupOf(i);
    dx.data[i] = slope[k] * (moving ? g(i) - mean[k] - xhat[i] * inner[k] : g(i));
  }
  if (!weight) return { dxs: [dx], grads: {} };
  const dweight = new Float64Array(weight.data.length), dbias = new Float64Array(weight.data.length);
  for (let i = 0; i < count; i++) {
    dweight[weightOf(i)] += dy.data[i] * xhat[i];
    dbias[weightOf(i)] += dy.data[i];
  }
  const like = (sums) => tensor(weight.shape, Float32Array.from(sums));
  return { dxs: [dx], grads: { weight: like(dweight), bias: like(dbias) } };
}
