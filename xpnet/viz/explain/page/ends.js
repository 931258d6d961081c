// The two ends of the network: the picture that goes in, and the answer and loss that come out.

import { offsetOf } from "../engine/tensors.js";
import { make } from "./dom.js";
import { scaleOfLayer } from "./legend.js";
import { isLogarithm, lossNow } from "./answer.js";
import { now } from "./now.js";
import { chance, shown } from "./numbers.js";
import { ledger, mapView, numberGrid, sentence, sign } from "./pieces.js";
import { PICTURE, change, state } from "./state.js";
import { word } from "./words.js";

const FORWARD = { "softmax-cross-entropy": "answer.softmax", "binary-cross-entropy": "answer.sigmoid" };
const BACKWARD = {
  "softmax-cross-entropy": "answer.backward",
  "binary-cross-entropy": "answer.backward.sigmoid",
};
const ELSE = { forward: "answer.plain", backward: "answer.backward.plain" };

/** The picture: the number of a pixel among its neighbours. */
export function picturePanel() {
  const shape = now.net.input.shape;
  const node = make("div", { class: "panel" });
  const sum = ledger();
  const view = mapView(220, (y, x) => change({ at: [state.at[0], y, x] }));
  const grid = numberGrid(word("picture.around"), "around");
  node.append(
    make(
      "div",
      { class: "arithmetic" },
      ...(shape.length === 3 ? [view.node, sign("→"), grid.node] : []),
      sum.node,
    ),
  );

  function update() {
    const { x } = state;
    sum.show([
      { label: word("picture.value"), value: x.data[offsetOf(shape, state.at)], total: true, name: "value" },
    ]);
    if (shape.length !== 3) return;
    const [c, row, column] = state.at;
    const [, H, W] = shape;
    const scale = scaleOfLayer(PICTURE, x);
    const h = Math.min(9, H);
    const w = Math.min(9, W);
    const top = Math.max(0, Math.min(H - h, row - (h >> 1)));
    const left = Math.max(0, Math.min(W - w, column - (w >> 1)));
    view.show(
      word("map.channel", { map: c }),
      x.data,
      H,
      W,
      scale,
      [
        { tile: 0, top, left, height: h, width: w, strong: false },
        { tile: 0, top: row, left: column, height: 1, width: 1 },
      ],
      { first: c, at: [row, column] },
    );
    const near = Float32Array.from(
      { length: h * w },
      (_, i) => x.data[offsetOf(shape, [c, top + Math.floor(i / w), left + (i % w)])],
    );
    grid.show(near, h, w, scale, { lit: (row - top) * w + column - left });
  }

  return { node, update };
}

/** From the last layer's numbers to probabilities and loss; backward: p − y, where the gradient begins. */
export function answerPanel() {
  const table = make("table", { class: "softmax", data: { name: "softmax" } });
  const sum = ledger();
  const text = sentence("");
  const node = make(
    "div",
    { class: "panel" },
    make("div", { class: "arithmetic" }, make("div", { class: "scroll" }, table), sum.node),
    text,
  );

  function update() {
    const { run, net, back } = now;
    const p = run.probabilities;
    table.hidden = !p;
    const kind = p ? net.loss.kind : "";
    text.textContent = word((state.mode === "backward" ? BACKWARD : FORWARD)[kind] ?? ELSE[state.mode]);
    const loss = lossNow();
    const numeric = p && typeof state.target === "number";
    sum.show([
      numeric && {
        label: word("answer.p", { name: net.classes[state.target] }),
        value: p[state.target],
        name: "p",
        plain: true,
      },
      loss !== null && { label: lossLabel(numeric), value: loss, total: true, name: "loss" },
    ]);
    if (p) fill(table, p, logitsOf(run), back?.dPre.at(-1)?.data);
  }

  return { node, update };
}

function lossLabel(numeric) {
  return word(numeric && isLogarithm() ? "answer.minus.log" : "loss");
}

/** What the softmax takes: the last layer's output, or what it was before its activation. */
export function logitsOf(run) {
  const last = now.net.layers.at(-1);
  const name = last.activation ?? last.config.activation;
  const softmax = name === "softmax" || last.kind === "Softmax";
  const tensor =
    softmax && ["Activation", "Softmax"].includes(last.kind) ? run.inputs.at(-1) : run.pre.at(-1);
  return tensor?.data ?? null;
}

function fill(table, p, z, dz) {
  const wide = z && z.length === p.length; // a sigmoid's two classes have one z
  const most = wide ? Math.max(...z) : 0;
  const backward = state.mode === "backward" && dz?.length === p.length && typeof state.target === "number";
  const heads = [
    word("answer.class"),
    ...(wide ? ["z", word("answer.exp")] : []),
    "p",
    ...(backward ? ["y", "p − y"] : []),
  ];
  const head = make(
    "tr",
    {},
    heads.map((text) => make("th", { text, scope: "col" })),
  );
  const rows = [...p].map((value, k) => {
    const cells = wide ? [shown(z[k], 4), shown(Math.exp(z[k] - most), 4)] : [];
    cells.push(chance(value));
    if (backward) cells.push(state.target === k ? "1" : "0", shown(dz[k], 4));
    return make(
      "tr",
      { class: state.target === k ? "target" : "" },
      make("th", { scope: "row", text: now.net.classes[k] }),
      cells.map((text, at) =>
        make("td", { text, data: { value: at === cells.length - 1 && backward ? dz[k] : "" } }),
      ),
    );
  });
  const foot = [];
  if (wide) {
    const sum = [...z].reduce((a, value) => a + Math.exp(value - most), 0);
    foot.push(
      make(
        "tr",
        { class: "total" },
        make("th", { text: "Σ" }),
        make("td"),
        make("td", { text: shown(sum, 4) }),
        make("td", { text: "1" }),
        ...(backward ? [make("td", { text: "1" }), make("td", { text: "0" })] : []),
      ),
    );
  }
  table.replaceChildren(make("thead", {}, head), make("tbody", {}, rows), make("tfoot", {}, foot));
}
