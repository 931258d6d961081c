// Layers that look through a window: convolution and pooling, written out for one pixel.

import { aroundZero, scaleOf } from "./colors.js";
import { make } from "./dom.js";
import { activationOf, largest, now, shapeOf } from "./now.js";
import { scaleOfLayer } from "./legend.js";
import { shown } from "./numbers.js";
import { chipRow, ledger, mapView, numberGrid, sign, together } from "./pieces.js";
import { activationName } from "./places.js";
import { change, state } from "./state.js";
import { word } from "./words.js";

/** patch × kernel = products, and their sum. */
export function convolutionPanel(layer) {
  const input = mapView(138, (y, x, key) => moveWindow(layer, y, x, key));
  const patch = numberGrid(word("sum.patch"), "patch");
  const kernel = numberGrid(word("sum.kernel"), "kernel");
  const products = numberGrid(word("sum.products"), "products");
  const sum = ledger();
  const outputs = outputViews(layer);
  const chips = chipRow(word("sum.channels"));
  const node = make(
    "div",
    { class: "panel" },
    make(
      "div",
      { class: "arithmetic" },
      input.node,
      together(sign("→"), patch.node, sign("×"), kernel.node, sign("="), products.node),
      together(sign("→"), sum.node),
      outputs.node,
    ),
    chips.node,
  );

  let first = null;

  function update(terms) {
    const [CG, KH, KW] = terms.patch.shape;
    const each = KH * KW;
    const sums = Array.from({ length: CG }, (_, c) =>
      total(terms.products.data.subarray(c * each, (c + 1) * each)),
    );
    first ??= strongest(sums);
    const channel = state.channel ?? first;
    const from = channel * each;
    const part = ({ data }) => data.subarray(from, from + each);
    showInput(input, layer, terms, terms.window.channels[0] + channel);
    const { rows, cols } = terms.window;
    const [, H, W] = layer.inShape;
    const outside = Array.from({ length: each }, (_, i) => {
      const y = rows[Math.floor(i / KW)];
      const x = cols[i % KW];
      return y < 0 || y >= H || x < 0 || x >= W;
    });
    const pixels = activationOf(layer.inputs[0]);
    patch.show(part(terms.patch), KH, KW, scaleOfLayer(layer.inputs[0], pixels), { outside });
    kernel.show(part(terms.kernel), KH, KW, aroundZero(layer.p.weight.data));
    products.show(part(terms.products), KH, KW, aroundZero(terms.products.data), { outside });
    chips.node.hidden = CG === 1;
    chips.show(
      sums,
      channel,
      (c) => String(terms.window.channels[0] + c),
      (c) => change({ channel: c }),
    );
    const others = total(sums) - sums[channel];
    sum.show([
      { label: word("sum.of", { count: each }), value: sums[channel], name: "channel-sum" },
      CG > 1 && { label: word("sum.others", { count: CG - 1 }), value: others, name: "others" },
      terms.bias !== null && { label: word("sum.bias"), value: terms.bias, name: "bias" },
      roundingRow(terms.rounding),
      { label: word("sum.total"), value: terms.sum, total: true, name: "sum" },
      activated(layer, terms),
    ]);
    outputs.update();
  }

  return { node, update };
}

/** The window of a pooling and what it makes of it. */
export function poolingPanel(layer) {
  const input = mapView(138, (y, x, key) => moveWindow(layer, y, x, key));
  const patch = numberGrid(word("pool.window"), "patch");
  const sum = ledger();
  const outputs = outputViews(layer);
  const node = make(
    "div",
    { class: "panel" },
    make(
      "div",
      { class: "arithmetic" },
      input.node,
      together(sign("→"), patch.node),
      together(sign("→"), sum.node),
      outputs.node,
    ),
  );

  function update(terms) {
    const [, KH, KW] = terms.patch.shape;
    const pixels = activationOf(layer.inputs[0]);
    const source = terms.window.channels?.[0] ?? state.at[0];
    showInput(input, layer, terms, source);
    const outside = Array.from(terms.patch.data, Number.isNaN);
    patch.show(terms.patch.data, KH, KW, scaleOfLayer(layer.inputs[0], pixels), {
      lit: terms.chosen ?? -1,
      outside,
    });
    const inside = terms.patch.data.filter((v) => !Number.isNaN(v));
    sum.show(
      terms.mode === "max"
        ? [
            {
              label: word("pool.largest", { count: inside.length }),
              value: terms.activated,
              total: true,
              name: "sum",
            },
          ]
        : [
            { label: word("sum.of", { count: inside.length }), value: total(inside), name: "total" },
            {
              label: word("pool.divided"),
              text: String(terms.divisor),
              value: terms.divisor,
              name: "divisor",
            },
            { label: word("pool.average"), value: terms.activated, total: true, name: "sum" },
          ],
    );
    outputs.update();
  }

  return { node, update };
}

/** Layers that hand each number on, changed or moved: the element in its map before and after. */
export function throughPanel(layer, rowsOf) {
  const before = mapView(150);
  const sum = ledger();
  const outputs = outputViews(layer);
  const node = make(
    "div",
    { class: "panel" },
    make("div", { class: "arithmetic" }, before.node, together(sign("→"), sum.node), outputs.node),
  );

  function update(terms) {
    const source = layer.inputs[0];
    const pixels = activationOf(source);
    const shape = shapeOf(source);
    before.node.hidden = shape.length !== 3 || !pixels;
    if (!before.node.hidden) {
      const [c, y, x] = terms.from ?? state.at;
      const marks = terms.from === null ? [] : [{ tile: 0, top: y, left: x, height: 1, width: 1 }];
      before.show(
        word("map.input", { map: c }),
        pixels.data,
        shape[1],
        shape[2],
        scaleOfLayer(source, pixels),
        marks,
        { first: c },
      );
    }
    sum.show(rowsOf(terms));
    outputs.update();
  }

  return { node, update };
}

/** The row of a ledger in which the activation acts on the sum. */
export function activated(layer, terms) {
  if (!layer.activation || layer.activation === "linear") return null;
  const name = activationName(layer.activation);
  const label = layer.activation === "relu" ? "ReLU: max(0, z)" : `${name}(z)`;
  return { label, value: terms.activated, name: "activated", text: shown(terms.activated, 5) };
}

/** The map that the pixel stands in, before and after the activation. */
export function outputViews(layer) {
  const twice = Boolean(layer.activation && layer.activation !== "linear");
  const [, H, W] = layer.outShape.length === 3 ? layer.outShape : [0, 0, 0];
  const moved = (y, x) => change({ at: [state.at[0], y, x] });
  const before = mapView(twice ? 92 : 138, moved);
  const after = mapView(twice ? 92 : 138, moved);
  const node = make("div", { class: "together outputs" });
  if (layer.outShape.length === 3) {
    node.append(sign("→"), ...(twice ? [before.node, sign("→"), after.node] : [after.node]));
  } else node.hidden = true;

  function update() {
    if (node.hidden) return;
    const [c, y, x] = state.at;
    const marks = [{ tile: 0, top: y, left: x, height: 1, width: 1 }];
    const { pre, outputs } = now.run;
    const options = { first: c, at: [y, x] };
    if (twice) {
      const tensor = pre[layer.index];
      before.show(
        word("map.before", { map: c }),
        tensor?.data,
        H,
        W,
        tensor && scaleOf(tensor.data),
        marks,
        options,
      );
    }
    const tensor = outputs[layer.index];
    const title = twice
      ? word("map.after", { map: c, name: activationName(layer.activation) })
      : word("map.output", { map: c });
    after.show(title, tensor?.data, H, W, tensor && scaleOf(tensor.data), marks, options);
  }

  return { node, update };
}

/** Where the number lies that is furthest from 0. */
export function strongest(numbers) {
  return largest(Array.from(numbers, Math.abs));
}

/** What rounded weights leave of a sum that was stored; nothing where the sum was made of them. */
export function roundingRow(rounding) {
  return rounding !== null && { label: word("sum.rounding"), value: rounding, name: "rounding" };
}

/** The sum, in doubles. */
export function total(numbers) {
  let sum = 0;
  for (const value of numbers) sum += value;
  return sum;
}

function showInput(view, layer, terms, channel) {
  const source = layer.inputs[0];
  const pixels = activationOf(source);
  const [, H, W] = layer.inShape;
  const { top, left, height, width, rows } = terms.window;
  const marks = [{ tile: 0, top, left, height, width }];
  const at = [top + Math.floor(height / 2), left + Math.floor(width / 2)];
  view.show(word("map.input", { map: channel }), pixels.data, H, W, scaleOfLayer(source, pixels), marks, {
    first: channel,
    at: rows ? at : [0, 0],
    beyond: Math.max(0, ...(layer.window?.padding.flat() ?? [])),
  });
}

/** Move the window so that its middle comes to (y, x) of the input; key: by a whole stride at least. */
function moveWindow(layer, y, x, key) {
  if (!layer.window) return;
  const { kernel, strides, dilation, padding } = layer.window;
  const target = [y, x].map((value, axis) => {
    const middle = ((kernel[axis] - 1) * (dilation?.[axis] ?? 1)) / 2 - padding[axis][0];
    const place = (value - Math.floor(middle)) / strides[axis];
    const old = state.at[axis + 1];
    const next = key ? old + Math.sign(place - old) * Math.ceil(Math.abs(place - old)) : Math.round(place);
    return Math.max(0, Math.min(layer.outShape[axis + 1] - 1, next));
  });
  change({ at: [state.at[0], ...target] });
}
