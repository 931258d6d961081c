// Layers whose numbers come from whole vectors or from single numbers: dense, normalisation, dropout, sums.

import { make } from "./dom.js";
import { isTraining, shapeOf } from "./now.js";
import { chance, shown } from "./numbers.js";
import { ledger, productList, sentence, sign, together } from "./pieces.js";
import { activationName, behindFlatten, elementName, lookAtElement, placeHead, placeName } from "./places.js";
import { change } from "./state.js";
import { word } from "./words.js";
import { activated, outputViews, roundingRow, throughPanel, total } from "./windows.js";
import { weightMaps } from "./weightmaps.js";

/** inputs × weights, the largest products first, and their sum. */
export function densePanel(layer) {
  const list = productList("products");
  const sum = ledger();
  const maps = weightMaps(layer);
  const node = make(
    "div",
    { class: "panel" },
    make("div", { class: "arithmetic" }, maps.node, list.node, together(sign("→"), sum.node)),
  );

  function update(terms) {
    const { patch, kernel, products } = terms;
    const from = layer.inputs[0];
    const items = [...products.data].map((product, i) => ({
      label: elementName(from, i),
      a: patch.data[i],
      b: kernel.data[i],
      product,
      pick: () => lookAtElement(from, i),
    }));
    list.show(items, [placeHead(word("dense.input"), shapeOf(behindFlatten(from))), "x", "w"]);
    maps.update(terms);
    sum.show([
      { label: word("sum.of", { count: items.length }), value: total(products.data), name: "products-sum" },
      terms.bias !== null && { label: word("sum.bias"), value: terms.bias, name: "bias" },
      roundingRow(terms.rounding),
      { label: word("sum.total"), value: terms.sum, total: true, name: "sum" },
      activated(layer, terms),
    ]);
  }

  return { node, update };
}

/** Every output was made of some inputs, each times a kernel number: transposed convolution. */
export function contributionsPanel(layer) {
  const list = productList("products");
  const sum = ledger();
  const outputs = outputViews(layer);
  const node = make(
    "div",
    { class: "panel" },
    make("div", { class: "arithmetic" }, list.node, together(sign("→"), sum.node), outputs.node),
  );

  function update(terms) {
    const from = layer.inputs[0];
    const items = terms.contributions.map(({ from: at, x, w, product }) => ({
      label: placeName(at),
      a: x,
      b: w,
      product,
      pick: () => change({ layer: from, at }),
    }));
    list.show(items, [placeHead(word("dense.input"), layer.inShape), "x", "w"]);
    sum.show([
      {
        label: word("sum.of", { count: items.length }),
        value: total(items.map(({ product }) => product)),
        name: "products-sum",
      },
      terms.bias !== null && { label: word("sum.bias"), value: terms.bias, name: "bias" },
      roundingRow(terms.rounding),
      { label: word("sum.total"), value: terms.sum, total: true, name: "sum" },
      activated(layer, terms),
    ]);
    outputs.update();
  }

  return { node, update };
}

/** Normalisation: less the mean, over the deviation, times γ, plus β. */
export function normPanel(layer) {
  return throughPanel(layer, (terms) => [
    plain("x", terms.x, "x"),
    plain(word(terms.over === "moving" ? "norm.moving" : "norm.sample"), terms.mean, "mean"),
    plain(word("norm.variance"), terms.variance, "variance"),
    plain("(x − μ) / √(σ² + ε)", terms.normalized, "normalized"),
    terms.gamma !== null && terms.gamma !== undefined && plain(word("norm.gamma"), terms.gamma, "gamma"),
    terms.beta !== null && terms.beta !== undefined && plain(word("norm.beta"), terms.beta, "beta"),
    { label: word("norm.result"), value: terms.activated, total: true, name: "sum" },
  ]);
}

/** Dropout: its mask, and the scale that makes up for it. */
export function dropoutPanel(layer) {
  return throughPanel(layer, (terms) => [
    plain("x", terms.x, "x"),
    {
      label: word(terms.kept ? "dropout.kept" : "dropout.silenced"),
      text: terms.kept ? "1" : "0",
      value: Number(terms.kept),
      name: "mask",
    },
    terms.kept && plain(word(scaleWord(layer)), terms.scale, "scale"),
    { label: word("out"), value: terms.activated, total: true, name: "sum" },
  ]);
}

/** What the scale of dropout is: it makes up for those that are silenced, in training or at inference. */
function scaleWord({ config: { scaling } }) {
  if (scaling !== "inference") return isTraining() ? "dropout.up" : "dropout.scale";
  return isTraining() ? "dropout.scale" : "dropout.down";
}

/** An activation of its own. */
export function activationPanel(layer) {
  return throughPanel(layer, (terms) => [
    plain("z", terms.x, "x"),
    {
      label: terms.name === "relu" ? "max(0, z)" : `${activationName(terms.name)}(z)`,
      value: terms.activated,
      total: true,
      name: "sum",
    },
  ]);
}

/** Exponentials over their sum, for a vector or for the maps at one pixel. */
export function softmaxPanel() {
  const table = make("table", { class: "softmax", data: { name: "softmax" } });
  const node = make("div", { class: "panel" }, make("div", { class: "scroll" }, table));

  function update({ logits, exps, total: all, probabilities, index }) {
    const head = ["", "z", word("answer.exp"), "p"].map((text) => make("th", { text, scope: "col" }));
    const rows = Array.from(probabilities, (p, k) =>
      make(
        "tr",
        { class: k === index ? "target" : "" },
        make("th", { text: k, scope: "row" }),
        [shown(logits[k], 4), shown(exps[k], 4), chance(p)].map((text) => make("td", { text })),
      ),
    );
    const foot = ["Σ", "", shown(all, 4), "1"].map((text) => make("td", { text }));
    table.replaceChildren(
      make("thead", {}, make("tr", {}, head)),
      make("tbody", {}, rows),
      make("tfoot", {}, make("tr", { class: "total" }, foot)),
    );
  }

  return { node, update };
}

/** A factor and an offset. */
export function scalePanel(layer) {
  return throughPanel(layer, (terms) => [
    plain("x", terms.x, "x"),
    plain(word("scale.factor"), terms.factor, "factor"),
    plain(word("scale.offset"), terms.offset, "offset"),
    { label: word("out"), value: terms.activated, total: true, name: "sum" },
  ]);
}

/** Layers that only put numbers elsewhere. */
export function movePanel(layer) {
  return throughPanel(layer, (terms) => [
    {
      label: placeHead(word("move.from"), terms.from),
      text: terms.from ? placeName(terms.from) : word("move.border"),
      value: "",
      name: "from",
    },
    { label: word("out"), value: terms.activated, total: true, name: "sum" },
  ]);
}

/** Branches that meet in a sum. */
export function addPanel(layer) {
  return throughPanel(layer, (terms) => [
    ...terms.parts.map(({ name, value }) => ({ label: name, value, name: "part" })),
    { label: word("sum.total"), value: terms.sum, total: true, name: "sum" },
    activated(layer, terms),
  ]);
}

/** Branches side by side. */
export function concatPanel(layer) {
  return throughPanel(layer, (terms) => [
    {
      label: placeHead(word("concat.from"), terms.from[1]),
      text: `${terms.from[0]}: ${placeName(terms.from[1])}`,
      value: "",
      name: "from",
    },
    { label: word("out"), value: terms.activated, total: true, name: "sum" },
  ]);
}

function plain(label, value, name) {
  return { label, text: shown(value, 5), value, name };
}

/** A panel of one sentence. */
export function saying(text) {
  return { node: make("div", { class: "panel" }, sentence(text)), update() {} };
}
