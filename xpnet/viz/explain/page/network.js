// The whole network as one picture: a column for each layer, from left to right, or downwards on a phone.

import { offsetOf } from "../engine/tensors.js";
import { waysOut } from "./beyond.js";
import { byId, button, calm, make, narrow } from "./dom.js";
import { arrangement } from "./layout.js";
import { legendBar, scaleShown } from "./legend.js";
import { drawLinks } from "./links.js";
import { aboutIn, now, isTraining, mapPlace, placeIn, shapeOf, tensorOf } from "./now.js";
import { shown, sizes } from "./numbers.js";
import { activationName, layerName, reasonOf, titleOf } from "./places.js";
import { PICTURE, change, state } from "./state.js";
import { Tiles, asIndex, asMaps, picks, steers } from "./tiles.js";
import { announce, word } from "./words.js";

const COLUMN_ROOM = 352; // CSS pixels of a column's height

let columns = [];
let ways;

/** Build the columns anew: after a change of language, width or kind of pass. */
export function buildNetwork() {
  const left = byId("strip")?.scrollLeft ?? 0;
  const strip = make("div", { class: "strip", id: "strip" });
  const links = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  links.setAttribute("class", "links");
  links.setAttribute("aria-hidden", "true");
  columns = [PICTURE, ...now.net.layers.keys()].map((i) => (isSlim(i) ? slimColumn(i) : column(i)));
  strip.append(links, ...columns.map((one) => one.node));
  ways = waysOut(strip, columns);
  byId("network").replaceChildren(ways.nodes[0], strip, ways.nodes[1]);
  strip.scrollLeft = left;
}

/** Draw the numbers of every column, and what is looked at. */
export function drawNetwork() {
  for (const one of columns) drawColumn(one);
  drawLinks(byId("strip"), columns);
  ways.show();
}

/** Bring the layer that is looked at into sight; on a phone, above the sheet. */
export function revealLayer(behavior = calm() ? "auto" : "smooth") {
  const strip = byId("strip");
  const one = columns[state.layer + 1];
  if (!one) return;
  if (!narrow()) {
    const left = one.node.offsetLeft + one.node.offsetWidth / 2 - strip.clientWidth / 2;
    strip.scrollTo({ left, behavior });
  } else if (byId("below").classList.contains("open")) {
    scrollTo({ top: scrollY + one.node.getBoundingClientRect().top - 8, behavior });
  }
}

/** Give the keyboard to the layer that is looked at. */
export function focusLayer() {
  columns[state.layer + 1]?.target.focus({ preventScroll: false });
}

/** Layers that hand their numbers on as they are take little room. */
function isSlim(i) {
  const layer = now.net.layers[i];
  if (!layer || layer.known === false) return false;
  if (["Flatten", "Reshape", "Input"].includes(layer.kind)) return true;
  return layer.kind.endsWith("Dropout2D") || layer.kind === "Dropout" ? !isTraining() : false;
}

function slimColumn(i) {
  const layer = now.net.layers[i];
  const target = button("", () => change({ layer: i, at: placeIn(i) }), {
    class: "pill",
    title: layer.name,
  });
  target.append(
    make("span", { text: layer.kind }),
    make("span", { class: "soft", text: sizes(layer.outShape) }),
  );
  const node = make("div", { class: "column slim", data: { layer: i } }, target);
  return { i, node, target, tiles: null };
}

function column(i) {
  const layer = now.net.layers[i];
  const shape = shapeOf(i);
  const [C, H, W] = asMaps(shape);
  const across = narrow();
  const room = across ? byId("network").clientWidth - 26 : COLUMN_ROOM;
  const plan = arrangement(C, H, W, room, across, state.expanded.has(i));
  const tiles = new Tiles({ tabindex: 0, role: "application", data: { layer: i } });
  tiles.arrange(plan.shown, H, W, plan.columns, plan.width, plan.gap);
  const legend = legendBar();
  const name = make("b", { text: titleOf(i), title: layerName(i) || null });
  const head = make("div", { class: "head" }, name, activationChip(layer));
  const about = make("span", { class: "chip about", text: word("status.about"), data: { name: "about" } });
  const foot = make(
    "div",
    { class: "foot" },
    make("span", { text: sizes(shape) }),
    legend.node,
    statusChip(layer),
    about,
  );
  if (plan.shown < C || state.expanded.has(i)) foot.append(moreButton(i, C, plan.shown < C));
  const node = make(
    "div",
    { class: "column", data: { layer: i, kind: layer?.kind ?? "picture" } },
    head,
    tiles.node,
    foot,
  );
  const choose = ({ tile, y, x }) => change({ layer: i, at: asIndex(shape, [tile, y, x]) });
  picks(tiles, choose);
  steers(
    tiles.node,
    () => [plan.shown, H, W, plan.columns],
    () => asPlaceOf(i),
    ([c, y, x]) => change({ layer: i, at: asIndex(shape, [c, y, x]) }),
  );
  tiles.node.addEventListener("focus", () => {
    if (state.layer !== i) change({ layer: i, at: placeIn(i) });
  });
  return { i, node, tiles, target: tiles.node, legend, plan, about };
}

function asPlaceOf(i) {
  const { c, y, x } = mapPlace(i, state.layer === i ? state.at : placeIn(i));
  return [c, y, x];
}

function drawColumn(column) {
  const { i, node, target, tiles } = column;
  const selected = state.layer === i;
  node.classList.toggle("selected", selected);
  if (!tiles) return target.setAttribute("aria-pressed", String(selected));
  const cause = aboutIn(i);
  column.about.hidden = !cause;
  column.about.title = cause ? word("gradient.about", { layer: cause.name }) : "";
  const at = selected ? state.at : placeIn(i);
  const { c, y, x } = mapPlace(i, at);
  paintColumn(column, tensorOf(i));
  const marks = [];
  if (selected && c < tiles.count) {
    marks.push({ tile: c, strong: tiles.H * tiles.W === 1 });
    if (tiles.H * tiles.W > 1) marks.push({ tile: c, top: y, left: x, height: 1, width: 1 });
  }
  tiles.show(marks);
  describe(column, at);
}

/** Paint the numbers, unless these are what is painted already. */
function paintColumn(column, tensor) {
  const { i, node, tiles, legend } = column;
  if (column.painted === tensor) return;
  column.painted = tensor;
  if (tensor) {
    const scale = scaleShown(i, tensor);
    tiles.draw(tensor.data, scale);
    legend.show(scale);
  } else tiles.blank();
  node.title = tensor ? "" : reasonOf(now.net.layers[i]);
}

/** Say which element is looked at, and its number: aloud where the keyboard is. */
function describe({ i, target, tiles }, at) {
  const tensor = tensorOf(i);
  const { c, y, x } = mapPlace(i, at);
  const value = shown(tensor ? tensor.data[offsetOf(tensor.shape, at)] : NaN, 4);
  const map = tiles.H * tiles.W > 1;
  const place = map ? word("place.map", { map: c, row: y, column: x }) : word("place.unit", { unit: c });
  const name = [titleOf(i), layerName(i), sizes(shapeOf(i))].filter(Boolean).join(", ");
  target.setAttribute("aria-label", `${name}. ${place}: ${value}`);
  if (document.activeElement === target) announce(`${place}: ${value}`);
}

function activationChip(layer) {
  if (!layer?.activation || layer.kind === "Activation") return null;
  return make("span", { class: "chip", text: activationName(layer.activation) });
}

function statusChip(layer) {
  if (!layer || layer.status === "live") return null;
  const words = { rounded: "status.rounded", stored: "status.stored", unsupported: "status.unsupported" };
  return make("span", { class: "chip warn", text: word(words[layer.status]), title: reasonOf(layer) });
}

function moreButton(i, count, more) {
  const text = more ? word("network.all", { count }) : word("network.fewer");
  return button(
    text,
    () => {
      const expanded = new Set(state.expanded);
      if (!expanded.delete(i)) expanded.add(i);
      change({ expanded });
    },
    { class: "link" },
  );
}
