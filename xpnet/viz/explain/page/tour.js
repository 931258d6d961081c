// A walk through the network in a dozen stops, told with the numbers of this very model and picture.

import { offsetOf } from "../engine/tensors.js";
import { isLogarithm, lossNow } from "./answer.js";
import { button, byId, make, narrow } from "./dom.js";
import { logitsOf } from "./ends.js";
import { largest, now, placeIn, shapeOf, stepNow } from "./now.js";
import { chance, plainly, shown, sizes } from "./numbers.js";
import { openSheet } from "./detail.js";
import { activationName } from "./places.js";
import { PICTURE, change, state } from "./state.js";
import { announce, word } from "./words.js";

let stops = [];

/** Begin the walk. */
export function startTour() {
  stops = stopsOf(now.net);
  goToStop(0);
}

/** Leave it. */
export function endTour() {
  change({ tour: null });
  byId("tour-start").focus();
}

/** The next or the last stop. */
export function stepTour(by) {
  if (state.tour === null) return;
  if (state.tour + by >= stops.length) endTour();
  else goToStop(Math.max(0, state.tour + by));
}

/** Draw the card of the stop. */
export function drawTour(focus) {
  const card = byId("tour");
  card.hidden = state.tour === null;
  if (card.hidden) return;
  const stop = stops[state.tour];
  const values = stop.values();
  const heading = make("h2", { text: word(stop.title), tabindex: -1 });
  card.replaceChildren(
    make("div", { class: "tour-text" }, heading, make("p", { text: word(stop.text, values) })),
    make(
      "div",
      { class: "row" },
      make("span", { class: "soft", text: `${state.tour + 1} / ${stops.length}` }),
      button(word("tour.back"), () => stepTour(-1), { id: "tour-back", disabled: state.tour === 0 }),
      button(word(state.tour === stops.length - 1 ? "tour.done" : "tour.next"), () => stepTour(1), {
        id: "tour-next",
        class: "strong",
      }),
      button(word("tour.end"), endTour, { id: "tour-end", class: "link" }),
    ),
  );
  if (focus) {
    heading.focus({ preventScroll: true });
    if (narrow()) byId("below").scrollTop = 0;
    else card.scrollIntoView({ block: "center" });
    announce(`${word(stop.title)}. ${word(stop.text, values)}`);
  }
}

function goToStop(number) {
  const stop = stops[number];
  change({ tour: number, mode: stop.mode ?? "forward", view: stop.view ?? "sum", layer: stop.layer });
  const at = stop.layer < now.net.layers.length ? (stop.at?.() ?? placeIn(stop.layer)) : [0];
  change({ at });
  openSheet();
}

/** The stops that this model has. */
function stopsOf(net) {
  const find = (...kinds) =>
    net.layers.find(({ kind, status }) => kinds.includes(kind) && status !== "unsupported");
  const stopAt = (layer, stop) => layer && { layer: layer.index, ...stop };
  const conv = find("Conv2D");
  const dense = find("Dense");
  const flatten = find("Flatten");
  const pool = find("MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D");
  const bent = net.layers.find(({ activation }) => activation === "relu") ?? find("ReLU");
  const norm = find("BatchNormalization", "LayerNormalization", "GroupNormalization");
  const drop = find("Dropout", "SpatialDropout2D");
  const residual = find("Residual");
  const answer = net.layers.length;
  const classes = Boolean(now.run.probabilities);
  const learns = conv ?? dense;
  return [
    { title: "tour.picture.title", text: "tour.picture", layer: PICTURE, values: pictureValues },
    stopAt(conv, { title: "tour.conv.title", text: "tour.conv", values: () => convValues(conv) }),
    stopAt(conv, {
      title: "tour.matrix.title",
      text: "tour.matrix",
      view: "matrix",
      values: () => convValues(conv),
    }),
    stopAt(bent, { title: "tour.relu.title", text: "tour.relu", values: () => reluValues(bent) }),
    stopAt(norm, { title: "tour.norm.title", text: "tour.norm", values: () => ({ kind: norm.kind }) }),
    stopAt(pool, {
      title: "tour.pool.title",
      text: pool?.kind.includes("Max") ? "tour.pool.max" : "tour.pool.average",
      values: () => poolValues(pool),
    }),
    stopAt(residual, { title: "tour.residual.title", text: "tour.residual", values: () => ({}) }),
    stopAt(flatten, {
      title: "tour.flatten.title",
      text: "tour.flatten",
      values: () => ({ maps: sizes(flatten?.inShape ?? []), count: flatten?.outShape[0] }),
    }),
    stopAt(dense, { title: "tour.dense.title", text: "tour.dense", values: () => denseValues(dense) }),
    stopAt(drop, {
      title: "tour.dropout.title",
      text: "tour.dropout",
      values: () => ({ rate: plainly(drop?.config.rate ?? 0) }),
    }),
    classes && { title: "tour.softmax.title", text: "tour.softmax", layer: answer, values: softmaxValues },
    net.loss?.kind && {
      title: "tour.loss.title",
      text: isLogarithm() ? "tour.loss" : "tour.loss.plain",
      layer: answer,
      mode: "backward",
      values: lossValues,
    },
    learns &&
      net.loss?.kind && {
        title: "tour.backward.title",
        text: "tour.backward",
        layer: learns.index,
        mode: "backward",
        view: "gradient",
        values: backwardValues(learns),
      },
    learns &&
      net.loss?.kind && {
        title: "tour.weights.title",
        text: "tour.weights",
        layer: learns.index,
        mode: "backward",
        view: "weights",
        values: backwardValues(learns),
      },
    learns &&
      net.loss?.kind && {
        title: "tour.step.title",
        text: "tour.step",
        layer: learns.index,
        mode: "backward",
        view: "step",
        values: stepValues,
      },
  ].filter(Boolean);
}

function pictureValues() {
  const { shape, low, high } = now.net.input;
  const count = shape.reduce((a, b) => a * b, 1);
  return { shape: sizes(shape), count, low: plainly(low), high: plainly(high) };
}

function here(layer) {
  const at = state.layer === layer.index ? state.at : placeIn(layer.index);
  return { at, terms: now.run.outputs[layer.index] ? now.net.terms(now.run, layer, at) : null };
}

function convValues(layer) {
  const { at, terms } = here(layer);
  const [CG, KH, KW] = layer.p.weight?.shape.slice(1) ?? [];
  return {
    filters: layer.outShape[0],
    size: `${KH} × ${KW}`,
    count: CG * KH * KW,
    map: at[0],
    row: at[1],
    column: at[2],
    sum: shown(terms?.sum, 4),
    rows: CG * KH * KW,
    columns: layer.outShape[1] * layer.outShape[2],
    bias: shown(terms?.bias ?? 0, 3),
  };
}

function reluValues(layer) {
  const { data } = now.run.pre[layer.index] ?? { data: [] };
  const negative = [...data].filter((z) => z < 0).length;
  return {
    name: activationName("relu"),
    negative,
    count: data.length,
    share: `${Math.round((100 * negative) / data.length)}%`,
  };
}

function poolValues(layer) {
  const { terms } = here(layer);
  const inside = terms?.patch ? [...terms.patch.data].filter((v) => !Number.isNaN(v)) : [];
  return {
    from: sizes(layer.inShape),
    to: sizes(layer.outShape),
    count: inside.length,
    value: shown(terms?.activated, 4),
    numbers:
      inside
        .slice(0, 9)
        .map((v) => shown(v, 3))
        .join(", ") + (inside.length > 9 ? ", …" : ""),
  };
}

function denseValues(layer) {
  const { at, terms } = here(layer);
  const products = terms?.products?.data ?? [0];
  const strongest = largest([...products].map(Math.abs));
  return {
    units: layer.outShape[0],
    inputs: layer.inShape[0],
    unit: at[0],
    sum: shown(terms?.sum, 4),
    product: shown(products[strongest], 3),
    a: shown(terms?.patch?.data[strongest], 3),
    b: shown(terms?.kernel?.data[strongest], 3),
  };
}

function softmaxValues() {
  const p = now.run.probabilities ?? [0];
  const best = largest(p);
  const z = logitsOf(now.run);
  return {
    name: now.net.classes[best],
    p: chance(p[best]),
    z: z?.length === p.length ? shown(z[best], 4) : shown(z?.[0], 4),
  };
}

function lossValues() {
  const p = now.run.probabilities;
  const k = state.target;
  const numeric = p && typeof k === "number";
  return {
    loss: shown(lossNow(), 4),
    name: numeric ? now.net.classes[k] : "",
    p: numeric ? chance(p[k]) : "",
    difference: numeric ? shown(p[k] - 1, 4) : "",
  };
}

function backwardValues(layer) {
  return () => {
    const gradient = now.back?.dOutputs[layer.index];
    const weights = now.back?.dParams[layer.index] ?? [];
    const at = state.layer === layer.index ? state.at : placeIn(layer.index);
    return {
      layer: layer.kind,
      gradient: gradient ? shown(gradient.data[offsetOf(shapeOf(layer.index), at)], 3) : "–",
      count: weights.reduce((sum, { data }) => sum + data.length, 0),
    };
  };
}

function stepValues() {
  const step = stepNow();
  return { rate: shown(state.rate, 2), before: shown(step?.before, 4), after: shown(step?.after, 4) };
}
