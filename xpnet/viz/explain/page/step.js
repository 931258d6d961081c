// One step of gradient descent: weights before, change, after; the loss before and after.

import { aroundZero } from "./colors.js";
import { button, make } from "./dom.js";
import { now, stepNow } from "./now.js";
import { chance, shown, signed } from "./numbers.js";
import { ledger, numberGrid, sentence, sign, together } from "./pieces.js";
import { change, state } from "./state.js";
import { announce, word } from "./words.js";

const LOW = -4;
const HIGH = 0.5; // powers of ten on the slider

/** The step that the gradients now say, before one takes it. */
export function stepPanel(layer) {
  const slider = make("input", {
    type: "range",
    id: "rate",
    min: LOW,
    max: HIGH,
    step: 0.05,
    value: Math.log10(state.rate),
    on: { input: (event) => change({ rate: Number((10 ** Number(event.target.value)).toPrecision(2)) }) },
  });
  const rate = make("output", { for: "rate", data: { name: "rate" } });
  const take = button(word("step.take"), takeStep, { id: "take-step", class: "strong" });
  const reset = button(word("step.reset"), resetWeights, { id: "reset-weights" });
  const count = make("span", { class: "soft", data: { name: "steps" } });
  const before = numberGrid(word("step.before"), "weight-before");
  const moved = numberGrid("−η · ∂L/∂W", "weight-change");
  const after = numberGrid(word("step.after"), "weight-after");
  const sum = ledger();
  const rows = make("div", { class: "scroll" });
  const grids = together(before.node, sign("+"), moved.node, sign("="), after.node);
  const node = make(
    "div",
    { class: "panel" },
    make(
      "div",
      { class: "row controls" },
      make("label", { for: "rate", text: word("step.rate") }),
      slider,
      rate,
      take,
      reset,
      count,
    ),
    make("div", { class: "arithmetic" }, grids, rows, sign("→"), sum.node),
    sentence(word("step.say"), { class: "say soft" }),
  );

  function update() {
    rate.textContent = `η = ${shown(state.rate, 2)}`;
    reset.disabled = !state.steps;
    count.textContent = state.steps ? word("step.count", { count: state.steps }) : "";
    const step = stepNow();
    take.disabled = !step;
    sum.show(step ? lossRows(step) : [{ label: word("step.none"), text: "–", value: "", name: "none" }]);
    grids.hidden = rows.hidden = true;
    if (step && layer) showWeights(layer, step, { before, moved, after, grids, rows });
  }

  return { node, update };
}

function lossRows(step) {
  const p = now.run.probabilities;
  const q = step.runAfter.probabilities;
  const k = state.target;
  const numeric = p && q && typeof k === "number";
  return [
    { label: word("step.loss.before"), value: step.before, name: "loss-before", plain: true },
    { label: word("step.loss.after"), value: step.after, name: "loss-after", plain: true },
    {
      label: word("step.loss.change"),
      text: signed(step.after - step.before, 4),
      value: step.after - step.before,
      total: true,
      name: "loss-change",
    },
    numeric && {
      label: word("answer.p", { name: now.net.classes[k] }),
      text: `${chance(p[k])} → ${chance(q[k])}`,
      value: q[k],
      name: "p-after",
    },
  ];
}

function showWeights(layer, step, views) {
  const delta = step.deltas[layer.index].find(({ name }) => name === "weight");
  const weight = layer.p.weight;
  if (!delta || !weight) return;
  if (weight.shape.length === 4) showKernel(weight, delta, views);
  else if (weight.shape.length === 2) showUnit(weight, delta, views.rows);
}

function showKernel({ shape: [A, B, KH, KW], data }, delta, { before, moved, after, grids }) {
  const each = KH * KW;
  const from = (Math.min(state.at[0], A - 1) * B + Math.min(state.channel ?? 0, B - 1)) * each;
  const w = data.subarray(from, from + each);
  const d = delta.data.subarray(from, from + each);
  const sum = w.map((value, i) => value + d[i]);
  const scale = aroundZero(w, sum);
  grids.hidden = false;
  before.show(w, KH, KW, scale, { decimals: 4 });
  moved.show(d, KH, KW, aroundZero(delta.data));
  after.show(sum, KH, KW, scale, { decimals: 4 });
}

function showUnit({ shape: [, I], data }, delta, rows) {
  const unit = state.at[0];
  const changes = Array.from({ length: I }, (_, k) => ({
    k,
    w: data[unit * I + k],
    d: delta.data[unit * I + k],
  }))
    .sort((a, b) => Math.abs(b.d) - Math.abs(a.d))
    .slice(0, 10);
  const heads = [word("weights.weight"), word("step.before"), "−η · ∂L/∂W", word("step.after")];
  rows.hidden = false;
  rows.replaceChildren(
    make(
      "table",
      { class: "softmax", data: { name: "weight-steps" } },
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          heads.map((text) => make("th", { text, scope: "col" })),
        ),
      ),
      make(
        "tbody",
        {},
        changes.map(({ k, w, d }) =>
          make(
            "tr",
            {},
            make("th", { scope: "row", text: `W[${unit}, ${k}]` }),
            [shown(w, 4), signed(d, 3), shown(w + d, 4)].map((text) => make("td", { text })),
          ),
        ),
      ),
    ),
  );
}

/** Take the step with all weights. */
function takeStep() {
  const step = stepNow();
  if (!step) return;
  now.net.apply(step);
  change({ steps: state.steps + 1 });
  announce(word("step.said", { before: shown(step.before, 4), after: shown(step.after, 4) }));
}

/** Back to the weights of the file. */
function resetWeights() {
  now.net.reset();
  change({ steps: 0 });
}
