// What is computed at the moment: the passes through the network for the state's input.

import { indexOf } from "../engine/tensors.js";
import { PICTURE, state } from "./state.js";
import { asMaps, asPlace } from "./tiles.js";

export const now = { net: null, run: null, back: null, step: null, time: 0, places: new Map() };

/** Whether the pass is the training pass. */
export function isTraining() {
  return state.mode === "backward" || state.training;
}

/** Run the network forward, and backward where that is shown. */
export function compute() {
  const { net } = now;
  const began = performance.now();
  now.run = net.forward(state.x, { train: isTraining(), sample: state.sample });
  const starts = state.mode === "backward" && state.target !== null && now.run.answer;
  now.back = starts ? net.backward(now.run, state.target) : null;
  now.time = performance.now() - began;
}

/** What a step of the state's learning rate would do; null where none can be taken. */
export function stepNow() {
  if (!now.back) return null;
  if (now.step?.back !== now.back || now.step.rate !== state.rate) {
    now.step = { back: now.back, rate: state.rate, taken: now.net.stepped(now.back, state.rate) };
  }
  return now.step.taken;
}

/** The entry of the layer that is looked at; null for the picture and the answer. */
export function layerNow() {
  return now.net.layers[state.layer] ?? null;
}

/** The shape of what layer number i puts out; the picture's for PICTURE. */
export function shapeOf(i) {
  if (i === PICTURE) return now.net.input.shape;
  return now.net.layers[Math.min(i, now.net.layers.length - 1)].outShape;
}

/** What layer i shows, a Tensor: activations, or (backward) gradients; null where nothing is known. */
export function tensorOf(i) {
  if (state.mode === "forward") return activationOf(i);
  if (!now.back) return null;
  return i === PICTURE ? now.back.dPicture : now.back.dOutputs[i];
}

/** The layer whose rounded weights make the gradients at layer i approximate; null where none does. */
export function aboutIn(i) {
  if (state.mode === "forward" || !now.back) return null;
  return (i === PICTURE ? now.back.aboutPicture : now.back.about[i]) ?? null;
}

/** The activations of layer number i, or the picture. */
export function activationOf(i) {
  return i === PICTURE ? state.x : now.run.outputs[i];
}

/** The numbers of the layers that read layer i. */
export function readersOf(i) {
  return now.net.layers.filter((layer) => layer.inputs.includes(i)).map((layer) => layer.index);
}

/** The element of layer i that was looked at last, or the one with the largest number. */
export function placeIn(i) {
  const shape = shapeOf(i);
  const known = now.places.get(i);
  if (known) return known;
  const tensor = activationOf(i);
  return tensor ? indexOf(shape, largest(tensor.data)) : shape.map(() => 0);
}

/** Where the largest number lies in data. */
export function largest(data) {
  let best = 0;
  for (let i = 1; i < data.length; i++) if (data[i] > data[best]) best = i;
  return best;
}

/** {C, H, W, c, y, x} of an element in layer i. */
export function mapPlace(i, index) {
  const [C, H, W] = asMaps(shapeOf(i));
  const [c, y, x] = asPlace(index);
  return { C, H, W, c, y, x };
}
