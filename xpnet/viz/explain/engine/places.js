// Where windows lie on a map, and which of them reach a pixel.

import { offsetOf, sizeOf, tensor } from "./tensors.js";

/** [f(0), .., f(count - 1)]. */
export const range = (count, f) => Array.from({ length: count }, (_, i) => f(i));

/** The number at an index list; NaN outside of a map. */
export function numberAt(a, at) {
  return at.every((index, axis) => index >= 0 && index < a.shape[axis]) ? a.data[offsetOf(a.shape, at)] : NaN;
}

/** Whether a position lies beyond the edges of a map. */
export const outside = ({ shape: [, H, W] }, row, col) => row < 0 || col < 0 || row >= H || col >= W;

/** Where the window of output (oh, ow) lies on the input; rows and columns may lie beyond its edges. */
export function placeOf(window, oh, ow) {
  const { kernel: [KH, KW], strides: [SH, SW], dilation: [DH, DW], padding: [[above], [before]] } = window;
  const top = oh * SH - above, left = ow * SW - before;
  return {
    top,
    left,
    height: (KH - 1) * DH + 1,
    width: (KW - 1) * DW + 1,
    rows: range(KH, (kh) => top + kh * DH),
    cols: range(KW, (kw) => left + kw * DW),
  };
}

/** The outputs whose window reaches position y along one axis: [{o, k}], k: the kernel's element. */
function reaching(y, stride, dilation, kernel, before, outputs) {
  const found = [];
  for (let k = 0; k < kernel; k++) {
    const o = (y + before - k * dilation) / stride;
    if (Number.isInteger(o) && o >= 0 && o < outputs) found.push({ o, k });
  }
  return found.reverse();
}

/** `reaching` for both axes: [{oh, ow, kh, kw}]. */
export function reachingBoth(window, [y, x], [, OH, OW]) {
  const { kernel: [KH, KW], strides: [SH, SW], dilation: [DH, DW], padding: [[top], [left]] } = window;
  const columns = reaching(x, SW, DW, KW, left, OW);
  return reaching(y, SH, DH, KH, top, OH).flatMap(({ o: oh, k: kh }) =>
    columns.map(({ o: ow, k: kw }) => ({ oh, ow, kh, kw })),
  );
}

/** The patch under a window, channels [first, last); outside of the map `border`. */
export function patchOf(x, place, first, last, border) {
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
export function channelsSeen(f, F, groups, CG) {
  const first = Math.floor((f * groups) / F) * CG;
  return [first, first + CG];
}

/** Number f of the rows that a weight has along its first axis, as a tensor. */
export function rowOf(weight, f) {
  const shape = weight.shape.slice(1), size = sizeOf(shape);
  return tensor(shape, weight.data.subarray(f * size, (f + 1) * size));
}
