// A trained network in a page: what it answers, why, and how one step of training would change it.

import { activate, activateBackward, softmaxOf } from "./activations.js";
import { columnsOf } from "./columns.js";
import { LAYERS } from "./layers.js";
import { lossOf } from "./losses.js";
import { normSourceOf, sourcesOf, weightTermsOf } from "./sources.js";
import { add, map, readTensors, tensor } from "./tensors.js";
import { softmaxTerms, termsOf } from "./terms.js";

/** The network of a page: its manifest and tensors stand in two script elements. */
export async function loadNet(document) {
  const text = (id) => document.getElementById(id).textContent;
  const manifest = JSON.parse(text("manifest"));
  return new Net(manifest, await readTensors(text("tensors"), manifest.tensors));
}

/**
 * A network as a list of layers, each of which reads outputs of earlier ones (`inputs`; -1 is the picture).
 *
 * title, classes, input, loss, trainable, samples, first, layers: see payload.py, which wrote them.
 */
export class Net {
  constructor(manifest, tensors) {
    const { title, language, classes, input, loss, trainable, first } = manifest;
    Object.assign(this, { title, language, classes, input, loss, trainable, first });
    const get = (index) => (index === null ? null : tensors[index]);
    this.samples = manifest.samples.map((sample) => sampleOf(sample, get));
    this.layers = manifest.layers.map((layer) => layerOf(layer, get));
    this.last = this.layers.at(-1);
    this.original = this.layers.map(({ p }) => ({ ...p }));
    this.changed = false; // whether a step has been taken, so that what was stored is of other weights
  }

  /** The entry of net.layers: given itself or its index. */
  layer(which) {
    return typeof which === "number" ? this.layers[which] : which;
  }

  /**
   * All that the layers make of x, (C, H, W) or (D,).
   *
   * train: with dropout masks and the statistics of this sample.  sample: the index of the sample that x is,
   * for which the exact numbers of layers that are not whole in the page were stored.
   * inputs, pre (before the activation), outputs: a tensor a layer, null where it is unknown.
   * recalled: whether a layer's numbers were stored.  exact: whether none came of rounded weights.
   */
  forward(x, { train = false, sample = null } = {}) {
    const none = () => this.layers.map(() => null);
    const run = { x, train, sample, inputs: none(), pre: none(), outputs: none(), kept: none() };
    Object.assign(run, { masks: none(), recalled: none(), stopped: null, exact: true });
    for (const layer of this.layers) this.#forwardLayer(layer, run);
    run.answer = run.outputs[this.last.index];
    run.probabilities = this.#probabilities(run.answer);
    return run;
  }

  #forwardLayer(layer, run) {
    const { index } = layer, xs = layer.inputs.map((from) => (from < 0 ? run.x : run.outputs[from]));
    run.inputs[index] = xs[0];
    const stored = this.#stored(run, index);
    const known = layer.status === "live" || layer.status === "rounded";
    run.recalled[index] = Boolean(stored?.pre);
    if (run.recalled[index]) {
      run.pre[index] = stored.pre;
    } else if (known && xs.every(Boolean)) {
      if (layer.status === "rounded") run.exact = false;
      const { z, kept } = LAYERS[layer.kind].forward(layer, xs, run.train);
      run.pre[index] = z;
      run.kept[index] = kept ?? null;
      if (run.train) run.masks[index] = layer.p.mask ?? null;
    } else {
      run.stopped ??= index;
      return;
    }
    run.outputs[index] = activate(layer.f, run.pre[index]);
  }

  /** What was stored of a layer for this run's sample: {pre, dInput}; null once the weights have changed. */
  #stored(run, index) {
    if (run.sample === null || this.changed) return null;
    return this.samples[run.sample].stored[run.train ? "train" : "infer"][index] ?? null;
  }

  #probabilities(answer) {
    if (!answer || !this.loss.probabilities || answer.shape.length > 1) return null;
    let p = answer.data;
    if (this.loss.probabilities === "softmax") p = softmaxOf(answer).y.data;
    if (this.loss.probabilities === "sigmoid") p = activate({ name: "sigmoid" }, answer).data;
    return p.length === 1 ? Float32Array.of(1 - p[0], p[0]) : p;
  }

  /**
   * The loss of a run and its derivative by everything.  target: a class, or a tensor.
   *
   * dOutputs, dPre (before the activation), dInputs: a tensor a layer; dParams: [{name, shape, data}] a
   * layer; dPicture: the derivative by x.  null where the run or the weights are not known.  about: a layer
   * whose rounded weights went into dOutputs, or null where none did; aboutPicture: into dPicture.  recalled:
   * whether a layer's dInputs was stored.
   */
  backward(run, target) {
    const none = () => this.layers.map(() => null);
    const back = { run, target, loss: null, dOutputs: none(), dPre: none(), dInputs: none() };
    Object.assign(back, { dParams: this.layers.map(() => []), dPicture: null, exact: run.exact });
    Object.assign(back, { recalled: none(), about: none(), aboutPicture: null });
    if (!run.answer) return back;
    back.about[this.last.index] = run.exact ? null : this.#roundedIn(run);
    this.#backwardLoss(run, target, back);
    for (const layer of [...this.layers].reverse()) this.#backwardLayer(layer, run, back);
    return back;
  }

  /** The loss.  The last activation and the loss are one function where they belong together: dz = q - t. */
  #backwardLoss(run, target, back) {
    const { index } = this.last, { folded } = this.loss;
    const { loss, dp } = lossOf(this.loss, folded ? run.pre[index] : run.answer, target);
    back.loss = loss;
    back.dOutputs[index] = folded ? lossOf({ ...this.loss, fromLogits: false }, run.answer, target).dp : dp;
    back.dPre[index] = folded ? dp : null;
  }

  #backwardLayer(layer, run, back) {
    const { index } = layer, dy = back.dOutputs[index];
    if (!dy || !run.pre[index]) return;
    const dz = (back.dPre[index] ??= activateBackward(layer.f, dy, run.pre[index], run.outputs[index]));
    const xs = layer.inputs.map((from) => (from < 0 ? run.x : run.outputs[from]));
    const stored = this.#storedGradient(run, back, index);
    let dxs = xs.map(() => null), about = back.about[index];
    if (layer.known && xs.every(Boolean) && (run.kept[index] || !LAYERS[layer.kind].remembers)) {
      const made = LAYERS[layer.kind].backward(layer, dz, xs, run.kept[index]);
      dxs = made.dxs;
      back.dParams[index] = layer.params
        .filter(({ learned, name }) => learned && made.grads[name])
        .map(({ name, shape }) => ({ name, shape, data: made.grads[name].data }));
      if (layer.status === "rounded" && !stored) {
        back.exact = false;
        about ??= layer;
      }
    }
    back.recalled[index] = Boolean(stored);
    if (stored) [dxs, about] = [[stored], null];
    back.dInputs[index] = dxs[0];
    layer.inputs.forEach((from, k) => {
      if (from < 0) {
        back.dPicture = add(back.dPicture, dxs[k]);
        back.aboutPicture ??= about;
      } else {
        back.dOutputs[from] = add(back.dOutputs[from], dxs[k]);
        back.about[from] ??= about;
      }
    });
  }

  /** The first layer of a run whose rounded weights were used. */
  #roundedIn(run) {
    return this.layers.find(({ status, index }) => status === "rounded" && !run.recalled[index]) ?? null;
  }

  /** The stored dL/dx of a layer: it belongs to the sample's own target. */
  #storedGradient(run, back, index) {
    const stored = this.#stored(run, index)?.dInput;
    return stored && this.samples[run.sample].target === back.target ? stored : null;
  }

  /** Whether weights of a layer are kept in fewer bits. */
  hasRounded() {
    return this.layers.some(({ status }) => status === "rounded");
  }

  /** How output `out`, an index list, of a layer was made: patch, kernel, products, sum; see terms.js. */
  terms(run, layer, out) {
    return termsOf(this, run, this.layer(layer), out);
  }

  /** A layer's input as the matrix that its weights are multiplied with; see columns.js. */
  columns(run, layer, group = 0) {
    return columnsOf(run, this.layer(layer), group);
  }

  /** Where dL/dx at `at`, an index list of a layer's input, came from. */
  sources(run, back, layer, at) {
    return sourcesOf(run, back, this.layer(layer), at);
  }

  /** How a normalization made dL/dx at `at` of dL/dy; null for other layers. */
  normSource(run, back, layer, at) {
    return normSourceOf(run, back, this.layer(layer), at);
  }

  /** What dL/dW at `at`, an index list of a parameter, is the sum of. */
  weightTerms(run, back, layer, name, at) {
    return weightTermsOf(run, back, this.layer(layer), name, at);
  }

  /** Softmax of logits (K,), number by number. */
  softmax(logits) {
    return softmaxTerms(logits, [0]);
  }

  /**
   * What a step of gradient descent, w - rate dL/dw, would do to this very sample; null where a layer's
   * weights are not in the page.
   *
   * before, after: its losses, computed alike; runAfter; deltas: [{name, shape, data}] a layer.
   */
  stepped(back, rate) {
    const { run, target } = back, held = this.layers.map(({ p }) => p), changed = this.changed;
    const deltas = back.dParams.map((grads, i) => (this.layers[i].trainable ? scaledBy(grads, -rate) : []));
    const options = { train: run.train, sample: run.sample };
    try {
      this.changed = true; // computed from the weights in the page, before as after
      const before = this.backward(this.forward(run.x, options), target).loss;
      if (before === null) return null;
      this.layers.forEach((layer, i) => (layer.p = moved(layer.p, deltas[i])));
      const runAfter = this.forward(run.x, options), after = this.backward(runAfter, target).loss;
      return { rate, before, after, runAfter, deltas, p: this.layers.map(({ p }) => p) };
    } finally {
      this.layers.forEach((layer, i) => (layer.p = held[i]));
      this.changed = changed;
    }
  }

  /** Take the step that `stepped` described. */
  apply(step) {
    this.layers.forEach((layer, i) => (layer.p = step.p[i]));
    this.changed = true;
  }

  /** Back to the weights of the model file. */
  reset() {
    this.layers.forEach((layer, i) => (layer.p = { ...this.original[i] }));
    this.changed = false;
  }
}

const scaledBy = (params, factor) =>
  params.map(({ name, shape, data }) => ({ name, shape, data: data.map((value) => value * factor) }));

/** Parameters with the deltas added. */
function moved(p, deltas) {
  const sums = deltas.map((d) => [d.name, map(p[d.name], (value, i) => value + d.data[i])]);
  return { ...p, ...Object.fromEntries(sums) };
}

function sampleOf(sample, get) {
  const results = ([index, { pre, dInput }]) => [index, { pre: get(pre), dInput: get(dInput) }];
  const unpack = (layers) => Object.fromEntries(Object.entries(layers).map(results));
  const stored = { train: unpack(sample.stored.train), infer: unpack(sample.stored.infer) };
  const target = sample.target?.tensor === undefined ? sample.target : get(sample.target.tensor);
  return { ...sample, x: get(sample.x), target, stored };
}

function layerOf(layer, get) {
  const params = layer.params.map((param) => ({ ...param, data: get(param.tensor)?.data ?? null }));
  const here = params.filter(({ data }) => data);
  const p = Object.fromEntries(here.map(({ name, shape, data }) => [name, tensor(shape, data)]));
  if (layer.mask !== null) p.mask = get(layer.mask);
  const shapes = Object.fromEntries(params.map(({ name, shape }) => [name, shape]));
  return { ...layer, params, p, shapes, f: layer.activationOptions };
}
