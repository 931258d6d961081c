// Which colours stand for which numbers, and the bar that says so.

import { aroundZero, gradientOf, scaleOf } from "./colors.js";
import { make } from "./dom.js";
import { now } from "./now.js";
import { shown } from "./numbers.js";
import { PICTURE, state } from "./state.js";

/** The colours of what layer i put out: a picture in grey, numbers from 0 up, what has a sign around 0. */
export function scaleOfLayer(i, tensor) {
  const { low, high } = now.net.input;
  return i === PICTURE && tensor.shape.length === 3 ? { kind: "grey", low, high } : scaleOf(tensor.data);
}

/** The colours of what layer i shows: activations or gradients. */
export function scaleShown(i, tensor) {
  return state.mode === "backward" ? aroundZero(tensor.data) : scaleOfLayer(i, tensor);
}

/** A bar of a scale's colours between its ends. */
export function legendBar() {
  const low = make("span");
  const high = make("span");
  const bar = make("i");
  const node = make("span", { class: "legend" }, low, bar, high);
  const show = (scale) => {
    low.textContent = shown(Math.abs(scale.low) < 1e-3 * scale.high ? 0 : scale.low, 2);
    high.textContent = shown(scale.high, 2);
    bar.style.background = gradientOf(scale.kind);
  };
  return { node, show };
}
