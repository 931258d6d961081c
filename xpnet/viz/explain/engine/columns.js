// A layer's input as a matrix.

import { numberAt, outside, placeOf, rowOf } from "./places.js";
import { indexOf } from "./tensors.js";

/**
 * im2col: every patch as a column, so that a convolution is one product of matrices, (F, C KH KW) by
 * (C KH KW, OH OW): {rows, columns, at(row, column), row(f)}, row(f) being the numbers of kernel f.
 *
 * Rows are in the order (c, kh, kw) of the weight, columns in the order (oh, ow) of the output.  group: which
 * of the layer's groups of channels.  A vector is a matrix of one column.
 */
export function columnsOf(run, layer, group = 0) {
  const x = run.inputs[layer.index], { weight } = layer.p;
  if (!x || !layer.known) return null;
  const kernels = { row: (f) => (weight ? rowOf(weight, f).data : null) };
  if (layer.kind === "Dense") {
    return { rows: x.data.length, columns: 1, at: (row) => x.data[row], ...kernels };
  }
  if (layer.kind !== "Conv2D") return null;
  const { window, shapes: { weight: [, CG, KH, KW] }, outShape: [, OH, OW] } = layer;
  const at = (row, column) => {
    const [c, kh, kw] = indexOf([CG, KH, KW], row), [oh, ow] = indexOf([OH, OW], column);
    const { rows, cols } = placeOf(window, oh, ow);
    return outside(x, rows[kh], cols[kw]) ? 0 : numberAt(x, [group * CG + c, rows[kh], cols[kw]]);
  };
  return { rows: CG * KH * KW, columns: OH * OW, at, ...kernels };
}
