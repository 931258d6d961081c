// A convolution as one product of matrices: kernels (F, K) times columns (K, P) gives the maps (F, P).

import { aroundZero, scaleOf, token, paletteOf, step256 } from "./colors.js";
import { byId, make } from "./dom.js";
import { activationOf, now } from "./now.js";
import { scaleOfLayer } from "./legend.js";
import { roundingRow, total } from "./windows.js";
import { ledger, productList, sentence } from "./pieces.js";
import { sizes } from "./numbers.js";
import { change, state } from "./state.js";
import { steers } from "./tiles.js";
import { word } from "./words.js";

const MOST_CELL = 15; // CSS pixels of an element, of the columns, of the list
const TALL = 270;
const BESIDE = 470;

/** The three matrices, the row and the column that meet in the pixel, and their products. */
export function matrixPanel(layer) {
  const [CG, KH, KW] = layer.p.weight.shape.slice(1);
  const [F, OH, OW] = layer.outShape;
  const K = CG * KH * KW;
  const P = OH * OW;
  const side = (count, room) => Math.max(30, Math.min(MOST_CELL * count, room));
  const whole = byId("detail").clientWidth - 60;
  const room = whole > 1000 ? whole - BESIDE : whole;
  const left = side(K, Math.min(330, room * 0.35));
  const width = side(P, Math.max(200, room - left));
  const top = side(K, TALL);
  const bottom = side(F, 170);
  const kernels = picture(left, bottom, word("matrix.kernels", { size: sizes([F, K]) }));
  const columns = picture(width, top, word("matrix.columns", { size: sizes([K, P]) }));
  const maps = picture(width, bottom, word("matrix.maps", { size: sizes([F, P]) }));
  maps.canvas.tabIndex = 0;
  maps.canvas.setAttribute("role", "application");
  const list = productList("matrix-products");
  const sum = ledger();
  const node = make(
    "div",
    { class: "panel matrix" },
    make(
      "div",
      { class: "falk-scroll", tabindex: 0, "aria-label": word("matrix.title"), role: "group" },
      make(
        "div",
        { class: "falk" },
        make("div", { class: "corner", text: "" }),
        columns.node,
        kernels.node,
        maps.node,
      ),
    ),
    make(
      "div",
      { class: "beside" },
      list.node,
      sum.node,
      sentence(word("matrix.memory"), { class: "say soft" }),
    ),
  );

  const go = (f, p) => change({ at: [f, Math.floor(p / OW), p % OW] });
  columns.pick((share) => go(state.at[0], clamp(share.x * P, P)));
  maps.pick((share) => go(clamp(share.y * F, F), clamp(share.x * P, P)));
  kernels.pick((share) => go(clamp(share.y * F, F), state.at[1] * OW + state.at[2]));
  steers(
    maps.canvas,
    () => layer.outShape,
    () => state.at,
    (at) => change({ at }),
  );

  const painted = { run: null, group: null };

  function paint(view, group) {
    const input = activationOf(layer.inputs[0]);
    const z = now.run.pre[layer.index];
    const weight = layer.p.weight.data;
    columns.paint(K, P, view.at, scaleOfLayer(layer.inputs[0], input));
    kernels.paint(F, K, (row, col) => weight[row * K + col], aroundZero(weight));
    maps.paint(F, P, (row, col) => z.data[row * P + col], scaleOf(z.data));
    Object.assign(painted, { run: now.run, group });
  }

  function update(terms) {
    const [f, y, x] = state.at;
    const p = y * OW + x;
    const group = Math.floor(f / (F / (layer.config.groups ?? 1)));
    const view = now.net.columns(now.run, layer, group);
    if (painted.run !== now.run || painted.group !== group) paint(view, group);
    columns.light({ col: p, cols: P });
    kernels.light({ row: f, rows: F });
    maps.light({ row: f, rows: F, col: p, cols: P });
    const row = layer.p.weight.data.subarray(f * K, (f + 1) * K);
    const items = Array.from(row, (w, k) => ({
      label: `${Math.floor(k / (KH * KW))} · ${Math.floor(k / KW) % KH}, ${k % KW}`,
      a: w,
      b: view.at(k, p),
      product: w * view.at(k, p),
    }));
    list.show(items, [word("place.order"), word("matrix.row"), word("matrix.column")]);
    const product = total(items.map((item) => item.product));
    sum.show([
      { label: word("matrix.product"), value: product, total: true, name: "matrix-product" },
      terms.bias !== null && { label: word("sum.bias"), value: terms.bias, name: "bias" },
      roundingRow(terms.rounding),
      {
        label: word("sum.total"),
        value: product + (terms.bias ?? 0) + (terms.rounding ?? 0),
        total: true,
        name: "matrix-sum",
      },
    ]);
  }

  return { node, update };
}

/** A matrix on a canvas, drawn with as many of its rows and columns as there is room for. */
function picture(width, height, title) {
  const canvas = make("canvas", {
    "aria-label": title,
    role: "img",
    style: { width: `${width}px`, height: `${height}px` },
  });
  const node = make("figure", { class: "map" }, make("figcaption", { text: title }), canvas);
  const ratio = window.devicePixelRatio || 1;
  let image = null;

  function paint(rows, columns, at, scale) {
    const h = Math.min(rows, Math.round(height * ratio));
    const w = Math.min(columns, Math.round(width * ratio));
    const pixels = new ImageData(w, h);
    const palette = paletteOf(scale.kind);
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++) {
        const value = at(Math.floor((y * rows) / h), Math.floor((x * columns) / w));
        const from = 3 * step256(scale, value);
        const to = 4 * (y * w + x);
        for (let k = 0; k < 3; k++) pixels.data[to + k] = palette[from + k];
        pixels.data[to + 3] = 255;
      }
    }
    image = document.createElement("canvas");
    [image.width, image.height] = [w, h];
    image.getContext("2d").putImageData(pixels, 0, 0);
  }

  /** Show what was painted, all but the lit row or column dimmed a little. */
  function light({ row = null, rows = 1, col = null, cols = 1 }) {
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.imageSmoothingEnabled = false;
    const dx = width / cols;
    const dy = height / rows;
    context.globalAlpha = 0.7;
    context.drawImage(image, 0, 0, width, height);
    context.globalAlpha = 1;
    for (const [x, y, w, h] of [
      col === null ? null : [col * dx, 0, dx, height],
      row === null ? null : [0, row * dy, width, dy],
    ].filter(Boolean))
      lit(context, x, y, w, h, row !== null && col !== null ? 0.6 : 1);
    if (row !== null && col !== null) lit(context, col * dx, row * dy, dx, dy, 1);
  }

  function lit(context, x, y, w, h, alpha) {
    const [wide, high] = [Math.max(w, 2), Math.max(h, 2)];
    context.save();
    context.beginPath();
    context.rect(x, y, wide, high);
    context.clip();
    context.drawImage(image, 0, 0, width, height);
    context.restore();
    context.globalAlpha = alpha;
    context.strokeStyle = token("--mark");
    context.lineWidth = alpha === 1 ? 2 : 1;
    context.strokeRect(Math.max(1, x), Math.max(1, y), Math.min(wide, width - 2), Math.min(high, height - 2));
    context.globalAlpha = 1;
  }

  function pick(f) {
    const choose = (event) => {
      const bounds = canvas.getBoundingClientRect();
      f({ x: (event.clientX - bounds.left) / bounds.width, y: (event.clientY - bounds.top) / bounds.height });
    };
    canvas.addEventListener("pointerdown", choose);
    canvas.addEventListener("pointermove", (event) => event.buttons === 1 && choose(event));
  }

  return { node, canvas, paint, light, pick };
}

function clamp(value, size) {
  return Math.max(0, Math.min(size - 1, Math.floor(value)));
}
