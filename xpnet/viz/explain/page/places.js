// What layers and their elements are called, and how one gets to look at them.

import { indexOf } from "../engine/tensors.js";
import { now, shapeOf } from "./now.js";
import { PICTURE, change } from "./state.js";
import { languageNow, word } from "./words.js";

/** What a layer is called: its class, or the picture, or the answer. */
export function titleOf(i) {
  if (i === PICTURE) return word(now.net.input.shape.length === 3 ? "network.picture" : "network.vector");
  return now.net.layers[i]?.kind ?? word("answer.title");
}

/** The usual spelling of an activation: ReLU, not relu. */
export function activationName(name) {
  const spelled = { relu: "ReLU", leaky_relu: "Leaky ReLU", elu: "ELU", gelu: "GELU", silu: "SiLU" };
  return spelled[name] ?? name;
}

/** The name by which Python knows a layer; "" for the picture and the answer. */
export function layerName(i) {
  return now.net.layers[i]?.name ?? "";
}

/** Why a layer is not computed whole in the page; "" where it is. */
export function reasonOf(layer) {
  return layer?.reason ? `${layer.name}: ${layer.reason[languageNow()]}` : "";
}

/** What an element is called: map · row, column, or its number. */
export function placeName(index) {
  return index.length === 3 ? `${index[0]} · ${index[1]}, ${index[2]}` : String(index[0]);
}

/** The head of a column of places: what they are of, and how placeName writes those in maps. */
export function placeHead(title, shape) {
  return shape?.length === 3 ? `${title}: ${word("place.order")}` : title;
}

/** What an element of a layer, given by its offset, is called: in the maps, if these were flattened. */
export function elementName(i, offset) {
  return placeName(indexOf(shapeOf(behindFlatten(i)), offset));
}

/** Look at an element of a layer, or of the maps that it flattened. */
export function lookAtElement(i, offset) {
  const layer = behindFlatten(i);
  change({ layer, at: indexOf(shapeOf(layer), offset) });
}

/** The layer whose maps layer i hands on as a vector, or i itself. */
export function behindFlatten(i) {
  const layer = now.net.layers[i];
  return layer?.known && ["Flatten", "Reshape"].includes(layer.kind) ? behindFlatten(layer.inputs[0]) : i;
}
