// The detail of the element looked at: how its number was made, where its gradient came from.

import { offsetOf } from "../engine/tensors.js";
import { byId, button, calm, choice, make, narrow } from "./dom.js";
import { answerPanel, picturePanel } from "./ends.js";
import { gradientPanel, weightsPanel } from "./gradients.js";
import { matrixPanel } from "./matrix.js";
import { aboutIn, layerNow, now, shapeOf, tensorOf } from "./now.js";
import { shown } from "./numbers.js";
import { layerName, reasonOf, titleOf } from "./places.js";
import { PICTURE, change, state } from "./state.js";
import { stepPanel } from "./step.js";
import {
  activationPanel,
  addPanel,
  concatPanel,
  contributionsPanel,
  densePanel,
  dropoutPanel,
} from "./sums.js";
import { movePanel, normPanel, saying, scalePanel, softmaxPanel } from "./sums.js";
import { convolutionPanel, poolingPanel } from "./windows.js";
import { announce, languageNow, word } from "./words.js";

const PANELS = {
  conv: convolutionPanel,
  transpose: contributionsPanel,
  blend: contributionsPanel,
  dense: densePanel,
  pool: poolingPanel,
  norm: normPanel,
  dropout: dropoutPanel,
  activation: activationPanel,
  softmax: softmaxPanel,
  scale: scalePanel,
  move: movePanel,
  add: addPanel,
  concat: concatPanel,
};
const ABOUT = {
  Conv2D: "about.conv",
  Conv2DTranspose: "about.transpose",
  Dense: "about.dense",
  MaxPooling2D: "about.maxpool",
  AveragePooling2D: "about.average",
  GlobalAveragePooling2D: "about.global.average",
  GlobalMaxPooling2D: "about.global.max",
  BatchNormalization: "about.batchnorm",
  LayerNormalization: "about.layernorm",
  GroupNormalization: "about.groupnorm",
  Dropout: "about.dropout",
  SpatialDropout2D: "about.dropout.maps",
  Flatten: "about.flatten",
  Reshape: "about.reshape",
  Residual: "about.residual",
  Concatenate: "about.concatenate",
  UpSampling2D: "about.upsampling",
  ZeroPadding2D: "about.padding",
  Rescaling: "about.rescaling",
  Normalization: "about.normalization",
  Activation: "about.activation",
  ReLU: "about.activation",
  LeakyReLU: "about.activation",
  ELU: "about.activation",
  Softmax: "about.softmax",
};

const TABS = {
  sum: "tab.sum",
  matrix: "tab.matrix",
  gradient: "tab.gradient",
  weights: "tab.weights",
  step: "tab.step",
};

let panel = null;
let head = null;
let built = "";
let sliding = null;

/** Draw the detail: anew where another kind of thing is looked at, else only its numbers. */
export function drawDetail() {
  const key = [
    state.layer,
    state.mode,
    viewNow(),
    state.training,
    languageNow(),
    Boolean(now.back),
    stateOfLayer(),
  ].join(" ");
  if (key !== built) build(key);
  head.update();
  panel.update(termsNow());
}

/** Build it anew at the next drawing. */
export function forgetDetail() {
  built = "";
}

/** The tabs that the layer has in this view. */
export function viewsNow() {
  const layer = layerNow();
  if (state.mode === "forward")
    return layer?.kind === "Conv2D" && isLive(layer) ? ["sum", "matrix"] : ["sum"];
  const views = ["gradient"];
  if (layer && now.back?.dParams[layer.index]?.length) views.push("weights");
  return [...views, "step"];
}

/** The tab shown. */
export function viewNow() {
  const views = viewsNow();
  return views.includes(state.view) ? state.view : views[0];
}

/** Let the window slide over the map by itself, or stop it. */
export function slide() {
  if (sliding) {
    clearInterval(sliding);
    sliding = null;
  } else {
    sliding = setInterval(slideOn, calm() ? 700 : 160);
  }
  if (head) head.update();
}

function slideOn() {
  const layer = layerNow();
  if (!layer?.window || state.mode !== "forward") return slide();
  const [, H, W] = layer.outShape;
  const [c, y, x] = state.at;
  const next = (y * W + x + 1) % (H * W);
  change({ at: [c, Math.floor(next / W), next % W] });
}

function build(key) {
  built = key;
  head = headOf();
  panel = panelOf();
  byId("detail").replaceChildren(head.node, panel.node);
}

function isLive(layer) {
  return layer.status === "live" || layer.status === "rounded";
}

/** What of the layer decides which panel is shown. */
function stateOfLayer() {
  const layer = layerNow();
  return layer ? `${layer.status} ${Boolean(now.run.outputs[layer.index])}` : "";
}

function termsNow() {
  const layer = layerNow();
  return layer && state.mode === "forward" && now.run.outputs[layer.index] ? elementTerms(layer) : null;
}

function elementTerms(layer) {
  return layer.status === "unsupported" ? null : now.net.terms(now.run, layer, state.at);
}

function panelOf() {
  const layer = layerNow();
  if (state.mode === "backward") return backwardPanel(layer);
  if (state.layer === PICTURE) return picturePanel();
  if (!layer) return answerPanel();
  if (!now.run.outputs[layer.index]) return saying(word("detail.unknown"));
  const terms = elementTerms(layer);
  const panelFor = PANELS[terms?.kind];
  if (!panelFor || terms.kernel === null) return saying(reasonOf(layer) || word("detail.nothing"));
  return viewNow() === "matrix" ? matrixPanel(layer) : panelFor(layer);
}

function backwardPanel(layer) {
  if (!now.back) return saying(word("backward.none"));
  if (viewNow() === "step") return stepPanel(layer);
  if (state.layer >= now.net.layers.length) return answerPanel();
  if (viewNow() === "weights") return weightsPanel(layer);
  return gradientPanel(state.layer);
}

function headOf() {
  const layer = layerNow();
  const i = state.layer;
  const answer = i >= now.net.layers.length;
  const tabs = choice(
    word("detail.tabs"),
    viewsNow().map((view) => [view, word(TABS[view])]),
    (view) => change({ view }),
  );
  const steppers = answer ? [] : shapeOf(i).map((size, axis) => stepper(axis, size));
  const value = make("b", { class: "value", data: { name: "value-here" } });
  const sliderButton = layer?.window && state.mode === "forward" ? button("", slide, { id: "slide" }) : null;
  const told = layer
    ? word((layer.known && ABOUT[layer.kind]) || "about.other")
    : word(answer ? "about.answer" : "about.picture");
  const about = make("p", { class: "say", data: { name: "about" } });
  const title = make(
    "h2",
    {},
    titleOf(i),
    layer ? make("small", { text: layerName(i), class: "soft" }) : null,
    layer ? make("code", { text: layer.text }) : null,
  );
  const node = make(
    "div",
    { class: "detail-head" },
    make(
      "div",
      { class: "title" },
      title,
      button("×", closeSheet, { class: "close", "aria-label": word("detail.close") }),
    ),
    make("p", { class: "say soft", text: told }),
    reasonOf(layer) && make("p", { class: "notice", text: reasonOf(layer) }),
    about,
    make(
      "div",
      { class: "row" },
      viewsNow().length > 1 ? tabs.node : null,
      ...steppers.map((one) => one.node),
      sliderButton,
      value,
    ),
  );

  function update() {
    tabs.show(viewNow());
    steppers.forEach((one, axis) => one.show(state.at[axis]));
    if (sliderButton) sliderButton.textContent = word(sliding ? "detail.stop" : "detail.slide");
    about.textContent = aboutText(i);
    about.hidden = !about.textContent;
    value.hidden = answer;
    if (!answer) value.textContent = valueText(i);
    if (document.activeElement?.closest("#detail canvas, .stepper")) announce(value.textContent);
  }

  return { node, update };
}

function valueText(i) {
  const name = i === PICTURE ? "x" : "y";
  const tensor = tensorOf(i);
  const value = tensor ? tensor.data[offsetOf(tensor.shape, state.at)] : NaN;
  const equals = aboutIn(i) ? "≈" : "=";
  return `${state.mode === "backward" ? `∂L/∂${name}` : name} ${equals} ${shown(value, 5)}`;
}

/** What the numbers of layer i owe to rounded weights, backward. */
function aboutText(i) {
  const stepping = state.mode === "backward" && viewNow() === "step";
  if (stepping) return now.net.hasRounded() ? word("step.about") : "";
  const cause = aboutIn(i);
  return cause ? word("gradient.about", { layer: cause.name }) : "";
}

/** A number with buttons to go down and up. */
function stepper(axis, size) {
  const flat = shapeOf(state.layer).length === 1;
  const label = word(
    flat ? "place.axis.unit" : ["place.axis.map", "place.axis.row", "place.axis.column"][axis],
  );
  const go = (value) =>
    change({ at: state.at.map((old, k) => (k === axis ? Math.max(0, Math.min(size - 1, value)) : old)) });
  const box = make("input", {
    type: "number",
    min: 0,
    max: size - 1,
    inputmode: "numeric",
    "aria-label": label,
    on: { change: (event) => go(Math.round(Number(event.target.value)) || 0) },
  });
  const node = make(
    "span",
    { class: "stepper" },
    make("span", { text: label }),
    button("−", () => go(state.at[axis] - 1), { "aria-label": word("place.down", { axis: label }) }),
    box,
    button("+", () => go(state.at[axis] + 1), { "aria-label": word("place.up", { axis: label }) }),
  );
  return { node, show: (value) => (box.value = value) };
}

/** On a phone the detail is a sheet from below. */
export function openSheet() {
  if (narrow()) byId("below").classList.add("open");
}

export function closeSheet() {
  byId("below").classList.remove("open");
}
