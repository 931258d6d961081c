// Where the input comes from: the board, a sample, a file, or sliders for a vector.

import { drawingBoard } from "./board.js";
import { scaleOf } from "./colors.js";
import { button, byId, make } from "./dom.js";
import { inputOfFile } from "./ink.js";
import { now } from "./now.js";
import { shown } from "./numbers.js";
import { PICTURE, change, state } from "./state.js";
import { Tiles, asMaps } from "./tiles.js";
import { word } from "./words.js";

const SLIDERS = 64; // elements of a vector that get a slider
const SLOW = 80; // ms of a pass, beyond which strokes are not followed at every move

let board = null;
let shownPicture = null;
let thumbs = [];
let sliders = [];
let waiting = null;

/** Build the panel of the input; takes the words of the language now. */
export function buildSource() {
  const { input, samples } = now.net;
  const own = make("div", { class: "own" });
  const side = make("div", { class: "side" });
  const colour = input.shape.length === 3 && input.shape[0] === 3;
  shownPicture = null;
  if (input.drawable) {
    if (board) board.relabel();
    else board = drawingBoard(input, (x) => ownInput(x));
    own.append(board.node, make("p", { class: "soft", text: word("input.draw") }));
  } else if (input.shape.length === 3) {
    shownPicture = new Tiles({ role: "img", "aria-label": word("network.picture") });
    const [, H, W] = input.shape;
    shownPicture.arrange(1, H, W, 1, (200 * W) / Math.max(H, W), 0);
    own.append(shownPicture.node);
  } else own.append(vectorSliders(input));
  if (samples.length) side.append(make("h3", { text: word("input.samples") }), thumbnails(samples, colour));
  if (input.shape.length === 3 && [1, 3].includes(input.shape[0])) side.append(filePicker());
  byId("input").replaceChildren(make("h2", { text: word("input.title") }), own, side);
}

/** Show the input as it is now. */
export function drawSource(changed) {
  const { input } = now.net;
  if (board && (state.sample !== null || changed.has("theme"))) {
    if (state.sample !== null) board.take(state.x);
    else board.show();
  }
  if (shownPicture) {
    shownPicture.draw(
      state.x.data,
      { kind: "grey", low: input.low, high: input.high },
      0,
      input.shape[0] === 3,
    );
    shownPicture.show();
  }
  thumbs.forEach((one, i) => one.setAttribute("aria-pressed", String(i === state.sample)));
  sliders.forEach(({ range, output }, i) => {
    range.value = state.x.data[i];
    output.textContent = shown(state.x.data[i], 3);
  });
}

/** Take a sample: its numbers, and its label as what the loss compares with. */
function takeSample(i) {
  const { x, target } = now.net.samples[i];
  clearTimeout(waiting);
  change({ x, sample: i, target: target ?? state.target });
}

/** Take an input of the reader's own; where the network is slow, once the hand rests. */
function ownInput(x) {
  clearTimeout(waiting);
  if (now.time < SLOW) change({ x, sample: null });
  else waiting = setTimeout(() => change({ x, sample: null }), 150);
}

function thumbnails(samples, colour) {
  thumbs = samples.map(({ x, name, label }, i) => {
    const called = [name || i + 1, now.net.classes?.[label]].filter((part) => part !== undefined).join(", ");
    const one = button("", () => takeSample(i), {
      class: "thumb",
      title: called,
      "aria-label": word("input.sample", { name: called }),
    });
    if (x.shape.length !== 3) one.textContent = name || i + 1;
    else {
      const tiles = new Tiles({ "aria-hidden": "true" });
      const [, H, W] = asMaps(x.shape);
      const { low, high } = now.net.input;
      tiles.arrange(1, H, W, 1, (36 * W) / Math.max(H, W), 0, 0);
      tiles.draw(x.data, { kind: "grey", low, high }, 0, colour);
      tiles.show();
      one.append(tiles.node);
    }
    return one;
  });
  return make("div", { class: "thumbs", role: "group", "aria-label": word("input.samples") }, thumbs);
}

function vectorSliders({ shape: [D], low, high }) {
  const scale = scaleOf(now.net.samples.flatMap(({ x }) => [...x.data]).concat(low, high));
  sliders = Array.from({ length: Math.min(D, SLIDERS) }, (_, i) => {
    const range = make("input", {
      type: "range",
      min: Math.min(low, scale.low),
      max: Math.max(high, scale.high),
      step: "any",
      "aria-label": `x[${i}]`,
      on: { input: (event) => slid(i, Number(event.target.value)) },
    });
    return { range, output: make("output") };
  });
  const rows = sliders.map(({ range, output }, i) =>
    make("label", {}, make("span", { text: `x[${i}]` }), range, output),
  );
  return make("div", { class: "sliders scroll" }, rows);
}

function slid(i, value) {
  const data = Float32Array.from(state.x.data);
  data[i] = value;
  change({ layer: PICTURE, at: [i] });
  ownInput({ shape: state.x.shape, data });
}

function filePicker() {
  const message = make("p", { class: "soft", role: "status" });
  const file = make("input", {
    type: "file",
    accept: "image/*",
    id: "file",
    class: "unseen",
    on: {
      change: async (event) => {
        const [chosen] = event.target.files;
        if (!chosen) return;
        try {
          const { x, inverted } = await inputOfFile(chosen, now.net.input);
          message.textContent = inverted ? word("input.inverted") : "";
          if (board) board.take(x);
          ownInput(x);
        } catch {
          message.textContent = word("input.unreadable", { name: chosen.name });
        }
        event.target.value = "";
      },
    },
  });
  return make("div", {}, make("label", { for: "file", class: "button" }, word("input.file")), file, message);
}
