// The network's answer: probabilities as bars with their numbers, or the numbers or maps themselves.

import { lossOf } from "../engine/losses.js";
import { aroundZero, scaleOf } from "./colors.js";
import { button, byId, make } from "./dom.js";
import { now } from "./now.js";
import { chance, shown, signed } from "./numbers.js";
import { mapView } from "./pieces.js";
import { reasonOf } from "./places.js";
import { change, state } from "./state.js";
import { languageNow, word } from "./words.js";

const LISTED_CLASSES = 12; // classes shown before one asks for all

/** Draw the answer anew. */
export function drawAnswer() {
  const { net, run } = now;
  const last = net.layers.length - 1;
  const open = button(word("answer.title"), () => change({ layer: net.layers.length, at: [0] }), {
    id: "answer-open",
    class: "link heading",
    "aria-pressed": String(state.layer === net.layers.length),
  });
  const parts = [make("h2", {}, open)];
  if (run.stopped !== null) parts.push(make("p", { class: "notice", text: stoppedText() }));
  if (!run.exact) parts.push(make("p", { class: "soft", text: word("answer.about") }));
  if (run.probabilities) parts.push(bars(run.probabilities), targetChoice());
  else if (run.outputs[last]) parts.push(numbersOrMaps(run.outputs[last]));
  parts.push(lossLine());
  if (state.mode === "backward") parts.push(make("p", { class: "soft", text: lossText() }));
  byId("answer").replaceChildren(...parts.filter(Boolean));
}

/** Why what follows a layer is not known. */
function stoppedText() {
  const layer = now.net.layers[now.run.stopped];
  const picked = state.sample !== null;
  const key = !picked ? "answer.stopped" : now.run.answer ? "answer.gap" : "answer.stepped";
  return `${word(key, { layer: layer.name })} ${reasonOf(layer)}`;
}

/** Whether the loss is −ln p of the true class. */
export function isLogarithm() {
  const { kind, smoothing, probabilities } = now.net.loss;
  return Boolean(probabilities) && kind === "softmax-cross-entropy" && !smoothing;
}

/** The loss of the answer; null where there is nothing to compare it with. */
export function lossNow() {
  if (now.back) return now.back.loss;
  const { run, net } = now;
  const known = run.answer && state.target !== null;
  return known ? lossOf(net.loss, net.loss.folded ? run.pre.at(-1) : run.answer, state.target).loss : null;
}

function bars(probabilities) {
  const all = state.expanded.has("answer");
  const order = [...probabilities.keys()];
  const many = order.length > LISTED_CLASSES;
  if (many) order.sort((a, b) => probabilities[b] - probabilities[a]);
  const best = order.reduce((a, b) => (probabilities[b] > probabilities[a] ? b : a));
  const rows = (all ? order : order.slice(0, LISTED_CLASSES)).map((k) => {
    const target = state.target === k;
    return make(
      "li",
      { class: `${k === best ? "best" : ""} ${target ? "target" : ""}`, data: { class: k } },
      make("span", { class: "name", text: now.net.classes[k], title: now.net.classes[k] }),
      make("span", { class: "track" }, make("i", { style: { width: `${100 * probabilities[k]}%` } })),
      make("span", { class: "number", text: chance(probabilities[k]), data: { value: probabilities[k] } }),
    );
  });
  const node = make(
    "div",
    {},
    make(
      "ol",
      { id: "probabilities", class: all && many ? "scroll" : "", tabindex: all && many ? 0 : null },
      rows,
    ),
  );
  if (many) {
    node.append(
      button(
        all ? word("network.fewer") : word("network.all", { count: order.length }),
        () => {
          const expanded = new Set(state.expanded);
          if (!expanded.delete("answer")) expanded.add("answer");
          change({ expanded });
        },
        { class: "link" },
      ),
    );
  }
  return node;
}

/** Which class the loss takes for true. */
function targetChoice() {
  if (typeof state.target !== "number") return null;
  const choose = make(
    "select",
    { id: "target", on: { change: (event) => change({ target: Number(event.target.value) }) } },
    now.net.classes
      .slice(0, now.run.probabilities.length)
      .map((name, k) => make("option", { value: k, text: name, selected: k === state.target })),
  );
  const own = state.sample !== null && now.net.samples[state.sample].label === state.target;
  return make(
    "label",
    { class: "row" },
    make("span", { class: "soft", text: word(own ? "answer.label" : "answer.target") }),
    choose,
  );
}

function lossLine() {
  const loss = lossNow();
  if (loss === null) return null;
  return make(
    "p",
    { class: "loss" },
    make("span", { class: "soft", text: word("loss") }),
    make("b", { text: shown(loss, 4), data: { name: "loss", value: loss } }),
  );
}

/** Which loss it is, and why; a line may break between its words and before its arguments. */
function lossText() {
  const { text, why } = now.net.loss;
  return `${text.replace(/[_(]/g, "$&\u200b")}: ${why[languageNow()]}`;
}

function numbersOrMaps({ shape, data }) {
  const last = now.net.layers.length - 1;
  if (shape.length === 3) {
    const [C, H, W] = shape;
    const node = make("div", { class: "maps" });
    const colour = C === 3;
    const scale = colour ? { kind: "grey", low: now.net.input.low, high: now.net.input.high } : scaleOf(data);
    for (let c = 0; c < (colour ? 1 : Math.min(C, 6)); c++) {
      const view = mapView(
        C > 1 && !colour ? 88 : 168,
        (y, x) => change({ layer: last, at: [c, y, x] }),
        false,
      );
      view.show(word("map.output", { map: c }), data, H, W, scale, [], { first: c, colour });
      node.append(view.node);
    }
    return node;
  }
  const most = aroundZero(data).high;
  return make(
    "ol",
    { id: "outputs" },
    [...data].slice(0, 24).map((value, k) =>
      make(
        "li",
        {},
        make("span", { class: "name", text: now.net.classes?.[k] ?? String(k) }),
        make(
          "span",
          { class: "track signed" },
          make("i", {
            class: value < 0 ? "minus" : "plus",
            style: { width: `${(50 * Math.abs(value)) / most}%` },
          }),
        ),
        make("span", { class: "number", text: signed(value, 4), data: { value } }),
      ),
    ),
  );
}
