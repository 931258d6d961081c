// What a window that slides over a map computes: convolution, its two gradients, and pooling.
// Kernel rows go through a map three elements at a time, so that a number is read and written less often.
// window: {kernel: [KH, KW], strides: [SH, SW], dilation: [DH, DW], padding: [[top, bottom], [left, right]]}

import { sizeOf, tensor } from "./tensors.js";

/** x (C, H, W) with a border of zeros. */
export function pad(x, [[top, bottom], [left, right]]) {
  if (!(top || bottom || left || right)) return x;
  const [C, H, W] = x.shape, wide = left + W + right;
  const out = tensor([C, top + H + bottom, wide]);
  for (let row = 0; row < C * H; row++) {
    const c = Math.floor(row / H), y = top + (row % H);
    out.data.set(x.data.subarray(row * W, (row + 1) * W), (c * out.shape[1] + y) * wide + left);
  }
  return out;
}

/** The part of a padded map that is not border; the inverse of pad. */
export function crop(x, [[top, bottom], [left, right]]) {
  if (!(top || bottom || left || right)) return x;
  const [C, tall, wide] = x.shape, H = tall - top - bottom, W = wide - left - right;
  const out = tensor([C, H, W]);
  for (let row = 0; row < C * H; row++) {
    const start = (Math.floor(row / H) * tall + top + (row % H)) * wide + left;
    out.data.set(x.data.subarray(start, start + W), row * W);
  }
  return out;
}

/** Where kernel row kh begins on a map W wide while the window stands at its first place. */
const rowStart = ({ dilation: [DH] }, W, kh) => kh * DH * W;

/**
 * Cross-correlation: every filter's answer at every place of the window.
 *
 *     z[f, oh, ow] = b[f] + sum over c, kh, kw of  W[f, c, kh, kw]  x[c, oh SH + kh DH, ow SW + kw DW]
 *
 * x (C, H, W), with its border; W (F, C/G, KH, KW); b (F,) or null -> z (F, OH, OW).
 */
export function correlate(x, weight, bias, window, groups, [F, OH, OW]) {
  const [, H, W] = x.shape, [, CG, KH, KW] = weight.shape;
  const { strides: [SH, SW], dilation: [, DW] } = window;
  const z = tensor([F, OH, OW]), sum = new Float64Array(OH * OW);
  for (let f = 0; f < F; f++) {
    const first = Math.floor((f * groups) / F) * CG; // the first channel that this filter sees
    sum.fill(bias ? bias.data[f] : 0);
    for (let c = 0; c < CG; c++) {
      for (let kh = 0; kh < KH; kh++) {
        const start = (first + c) * H * W + rowStart(window, W, kh), k = ((f * CG + c) * KH + kh) * KW;
        addKernelRow(sum, x.data, start, weight.data.subarray(k, k + KW), OH, OW, SH * W, SW, DW);
      }
    }
    z.data.set(sum, f * OH * OW);
  }
  return z;
}

/** sum += each w of a kernel row times x, the kernel's elements being `apart` on the map. */
function addKernelRow(sum, x, start, w, OH, OW, row, step, apart) {
  const KW = w.length;
  let kw = 0;
  for (; kw + 3 <= KW; kw += 3) {
    addThree(sum, x, start + kw * apart, w[kw], w[kw + 1], w[kw + 2], OH, OW, row, step, apart);
  }
  for (; kw < KW; kw++) addOne(sum, x, start + kw * apart, w[kw], OH, OW, row, step);
}

/** sum += w x for OH rows of OW places; a row is `row` and a place `step` further on in x. */
function addOne(sum, x, start, w, OH, OW, row, step) {
  for (let oh = 0, o = 0; oh < OH; oh++, start += row) {
    for (let ow = 0, i = start; ow < OW; ow++, o++, i += step) sum[o] += w * x[i];
  }
}

function addThree(sum, x, start, a, b, c, OH, OW, row, step, apart) {
  for (let oh = 0, o = 0; oh < OH; oh++, start += row) {
    for (let ow = 0, i = start; ow < OW; ow++, o++, i += step) {
      sum[o] += a * x[i] + b * x[i + apart] + c * x[i + 2 * apart];
    }
  }
}

/**
 * The adjoint of correlate: every place leaves its multiple of the kernel.
 *
 *     x[c, oh SH + kh DH, ow SW + kw DW] += W[f, c, kh, kw] z[f, oh, ow]
 *
 * z (F, OH, OW); W (F, C/G, KH, KW) -> x of the shape (C, H, W), its border included.
 */
export function spread(z, weight, window, groups, [C, H, W]) {
  const [F, OH, OW] = z.shape, [, CG, KH, KW] = weight.shape;
  const { strides: [SH, SW], dilation: [, DW] } = window;
  const x = tensor([C, H, W]), sum = new Float64Array(H * W), FG = F / groups;
  for (let c = 0; c < C; c++) {
    const group = Math.floor(c / CG);
    sum.fill(0);
    for (let f = group * FG; f < (group + 1) * FG; f++) {
      for (let kh = 0; kh < KH; kh++) {
        const start = rowStart(window, W, kh), k = ((f * CG + (c % CG)) * KH + kh) * KW;
        const w = weight.data.subarray(k, k + KW);
        leaveKernelRow(sum, start, z.data, f * OH * OW, w, OH, OW, SH * W, SW, DW);
      }
    }
    x.data.set(sum, c * H * W);
  }
  return x;
}

/** sum += each w of a kernel row times z, the places of z being further apart in sum. */
function leaveKernelRow(sum, start, z, from, w, OH, OW, row, step, apart) {
  const KW = w.length;
  let kw = 0;
  for (; kw + 3 <= KW; kw += 3) {
    leaveThree(sum, start + kw * apart, z, from, w[kw], w[kw + 1], w[kw + 2], OH, OW, row, step, apart);
  }
  for (; kw < KW; kw++) leaveOne(sum, start + kw * apart, z, from, w[kw], OH, OW, row, step);
}

function leaveOne(sum, start, z, from, w, OH, OW, row, step) {
  for (let oh = 0; oh < OH; oh++, start += row) {
    for (let ow = 0, i = start; ow < OW; ow++, i += step) sum[i] += w * z[from++];
  }
}

function leaveThree(sum, start, z, from, a, b, c, OH, OW, row, step, apart) {
  for (let oh = 0; oh < OH; oh++, start += row) {
    for (let ow = 0, i = start; ow < OW; ow++, i += step) {
      const value = z[from++];
      sum[i] += a * value;
      sum[i + apart] += b * value;
      sum[i + 2 * apart] += c * value;
    }
  }
}

/**
 * The gradient of the kernel: how each of its numbers met what it multiplied.
 *
 *     dW[f, c, kh, kw] = sum over oh, ow of  dz[f, oh, ow]  x[c, oh SH + kh DH, ow SW + kw DW]
 *
 * x (C, H, W), with its border; dz (F, OH, OW) -> dW of the shape (F, C/G, KH, KW).
 */
export function kernelGradient(x, dz, window, groups, shape) {
  const [, H, W] = x.shape, [F, OH, OW] = dz.shape, [, CG, KH, KW] = shape;
  const { strides: [SH, SW], dilation: [, DW] } = window;
  const dW = tensor(shape);
  for (let f = 0, k = 0; f < F; f++) {
    const first = Math.floor((f * groups) / F) * CG;
    for (let c = 0; c < CG; c++) {
      for (let kh = 0; kh < KH; kh++, k += KW) {
        const start = (first + c) * H * W + rowStart(window, W, kh);
        const dw = dW.data.subarray(k, k + KW);
        dotKernelRow(dw, x.data, start, dz.data, f * OH * OW, OH, OW, SH * W, SW, DW);
      }
    }
  }
  return dW;
}

/** dw[kw] = the sum of x dz over OH rows of OW places, for each element of a kernel row. */
function dotKernelRow(dw, x, start, dz, from, OH, OW, row, step, apart) {
  const KW = dw.length;
  let kw = 0;
  for (; kw + 3 <= KW; kw += 3) {
    dw.set(dotThree(x, start + kw * apart, dz, from, OH, OW, row, step, apart), kw);
  }
  for (; kw < KW; kw++) dw[kw] = dotOne(x, start + kw * apart, dz, from, OH, OW, row, step);
}

function dotOne(x, start, dz, from, OH, OW, row, step) {
  let sum = 0;
  for (let oh = 0; oh < OH; oh++, start += row) {
    for (let ow = 0, i = start; ow < OW; ow++, i += step) sum += x[i] * dz[from++];
  }
  return sum;
}

function dotThree(x, start, dz, from, OH, OW, row, step, apart) {
  let a = 0, b = 0, c = 0;
  for (let oh = 0; oh < OH; oh++, start += row) {
    for (let ow = 0, i = start; ow < OW; ow++, i += step) {
      const d = dz[from++];
      a += x[i] * d;
      b += x[i + apart] * d;
      c += x[i + 2 * apart] * d;
    }
  }
  return [a, b, c];
}

/** The bias's gradient: dz (F, OH, OW) summed over the map -> (F,). */
export function biasGradient(dz) {
  const [F] = dz.shape, pixels = sizeOf(dz.shape) / F, db = tensor([F]);
  for (let f = 0; f < F; f++) {
    let sum = 0;
    for (let i = f * pixels; i < (f + 1) * pixels; i++) sum += dz.data[i];
    db.data[f] = sum;
  }
  return db;
}

/**
 * Calls visit(output, input) for each element of x (C, H, W) under each window, rows first; no border.
 * A vector (C,) is as a map (C, 1, 1).
 */
export function eachUnder(window, [C, H, W], [, OH = 1, OW = 1], visit) {
  const [KH, KW] = window.kernel, [SH, SW] = window.strides, [[top], [left]] = window.padding;
  for (let c = 0, o = 0; c < C; c++) {
    for (let oh = 0; oh < OH; oh++) {
      for (let ow = 0; ow < OW; ow++, o++) {
        for (let y = Math.max(oh * SH - top, 0); y < Math.min(oh * SH - top + KH, H); y++) {
          for (let x = Math.max(ow * SW - left, 0); x < Math.min(ow * SW - left + KW, W); x++) {
            visit(o, (c * H + y) * W + x);
          }
        }
      }
    }
  }
}

/** The largest element under each window, and where the first of them lies: x (C, H, W) -> y (C, OH, OW). */
export function maxPool(x, window, outShape) {
  const y = tensor(outShape, new Float32Array(sizeOf(outShape)).fill(-Infinity));
  const winners = new Int32Array(y.data.length).fill(-1);
  eachUnder(window, x.shape, outShape, (o, i) => {
    const value = x.data[i];
    if (winners[o] < 0 || value > y.data[o] || value !== value) {
      y.data[o] = value;
      winners[o] = i;
    }
  });
  return { y, winners };
}
