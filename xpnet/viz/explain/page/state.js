// What the page shows now, in one object; a change of it is drawn at the next frame.

/** Layers are numbered as in net.layers; PICTURE stands for the input, net.layers.length for the answer. */
export const PICTURE = -1;

export const state = {
  mode: "forward", // or "backward"
  training: false, // whether the forward view shows the training pass
  sample: null, // index in net.samples, or null for a picture of the reader's own
  x: null, // the input, a Tensor
  target: null, // the class (or value) that the loss compares with
  layer: PICTURE,
  at: [0], // the element of the layer's output that is looked at: [c, y, x] or [d]
  view: "sum", // tab of the detail: "sum", "matrix"; backward: "gradient", "weights", "step"
  channel: null, // of the layer's input, whose patch is written out; null: the strongest at first
  weight: null, // index of the weight whose gradient is written out
  rate: 0.01,
  steps: 0, // steps taken with the weights
  tour: null, // number of the stop, or null
  letters: true, // whether single letters are shortcuts
  expanded: new Set(), // layers shown whole
};

const listeners = [];
let pending = null;

/** Call f(changed: Set of names) after changes, once a frame. */
export function onChange(f) {
  listeners.push(f);
}

/** Change the state; drawn at the next frame. */
export function change(patch) {
  if (!pending) {
    pending = new Set();
    requestAnimationFrame(() => {
      const changed = pending;
      pending = null;
      for (const f of listeners) f(changed);
    });
  }
  for (const [name, value] of Object.entries(patch)) {
    state[name] = value;
    pending.add(name);
  }
}

/** The page's address holds language, theme and place, so that nothing needs storage. */
export function readHash() {
  return new URLSearchParams(location.hash.slice(1));
}

/** Write entries to the address; null removes one. */
export function writeHash(entries) {
  const hash = readHash();
  for (const [name, value] of Object.entries(entries)) {
    if (value === null) hash.delete(name);
    else hash.set(name, value);
  }
  const text = hash.toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}
