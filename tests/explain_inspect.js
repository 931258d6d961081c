// What the explain page's engine computes of one sample, as plain lists.

/** Each number as JSON can hold it. */
const plain = (a) => a && { shape: a.shape, data: Array.from(a.data, finite) };
const finite = (value) => (Number.isFinite(value) ? value : String(value));

function* someOf(shape, count) {
  const size = shape.reduce((a, b) => a * b, 1);
  for (let k = 0; k < Math.min(count, size); k++) {
    let offset = Math.floor((k * 7919 + 3) % size);
    const at = [];
    for (const length of [...shape].reverse()) {
      at.unshift(offset % length);
      offset = Math.floor(offset / length);
    }
    yield at;
  }
}

const sum = (values) => Array.from(values).reduce((a, b) => a + b, 0);
const numberAt = (a, at) => a.data[at.reduce((total, index, axis) => total * a.shape[axis] + index, 0)];

/** Pairs [name, put together from its terms, as the run has it]. */
function checks(net, run, back) {
  const pairs = [];
  for (const layer of net.layers) {
    const i = layer.index;
    if (!run.outputs[i]) continue;
    for (const out of someOf(layer.outShape, 4)) {
      const terms = net.terms(run, layer, out);
      if (!terms) continue;
      const put = together(net, run, layer, terms);
      if (put !== null) pairs.push([`${layer.name} ${terms.kind} ${out}`, put, numberAt(run.pre[i], out)]);
    }
    for (const at of someOf(layer.inShape, 4)) {
      const sources = net.sources(run, back, layer, at);
      if (!sources) continue;
      pairs.push([`${layer.name} dx ${at}`, sum(sources.contributions.map((c) => c.product)), sources.total]);
    }
    for (const param of back.dParams[i]) {
      for (const at of someOf(param.shape, 3)) {
        const terms = net.weightTerms(run, back, layer, param.name, at);
        if (terms) pairs.push([`${layer.name} d${param.name} ${at}`, sum(terms.products.data), terms.total]);
      }
    }
    pairs.push(...matrixChecks(net, run, layer));
  }
  return pairs;
}

/** A layer's number before its activation, from its terms; null for a kind that has none. */
function together(net, run, layer, terms) {
  switch (terms.kind) {
    case "conv":
    case "dense":
      return terms.products && sum(terms.products.data) + (terms.bias ?? 0);
    case "transpose":
    case "blend":
      return terms.contributions && sum(terms.contributions.map((c) => c.product)) + (terms.bias ?? 0);
    case "pool": {
      const within = Array.from(terms.patch.data).filter((value) => !Number.isNaN(value));
      return terms.mode === "max" ? terms.patch.data[terms.chosen] : sum(within) / terms.divisor;
    }
    case "norm":
      return (terms.gamma ?? 1) * terms.normalized + (terms.beta ?? 0);
    case "dropout":
      return terms.x * terms.scale;
    case "activation":
      return terms.x;
    case "softmax":
      return terms.logits[terms.index];
    case "scale":
      return terms.x * terms.factor + terms.offset;
    case "move":
      return terms.from ? numberAt(run.inputs[layer.index], terms.from) : 0;
    case "add":
      return sum(terms.parts.map(({ value }) => value));
    case "concat":
      return numberAt(terms.layer < 0 ? run.x : run.outputs[terms.layer], terms.from[1]);
  }
  throw new Error(`no such kind: ${terms.kind}`);
}

/** A row of the weight times a column of im2col. */
function matrixChecks(net, run, layer) {
  if (layer.kind !== "Conv2D" || !layer.p.weight) return [];
  const [F, OH, OW] = layer.outShape, pairs = [];
  for (const [f, oh, ow] of someOf(layer.outShape, 3)) {
    const group = Math.floor((f * layer.config.groups) / F), columns = net.columns(run, layer, group);
    const row = columns.row(f);
    let total = layer.p.bias ? layer.p.bias.data[f] : 0;
    for (let k = 0; k < columns.rows; k++) total += row[k] * columns.at(k, oh * OW + ow);
    pairs.push([`${layer.name} matrix ${[f, oh, ow]}`, total, numberAt(run.pre[layer.index], [f, oh, ow])]);
  }
  return pairs;
}

const losses = ({ before, after }) => ({ before, after });

/** The losses once the step has been taken, and once it has been taken back. */
function taken(net, x, step, options, target) {
  const loss = () => net.backward(net.forward(x, options), target).loss;
  const before = loss();
  net.apply(step);
  const applied = loss();
  net.reset();
  return { applied, undone: loss() === before };
}

/** The page's numbers for a sample, or for x where sample is null. */
export function inspect(net, x, sample) {
  const given = x ? { shape: net.input.shape, data: Float32Array.from(x) } : net.samples[sample].x;
  const target = sample === null ? 0 : net.samples[sample].target;
  const one = (train) => {
    const run = net.forward(given, { train, sample: x ? null : sample });
    const back = target === null ? null : net.backward(run, target);
    const step = back?.loss == null ? null : net.stepped(back, 0.01);
    return {
      outputs: run.outputs.map(plain),
      answer: plain(run.answer),
      probabilities: run.probabilities && Array.from(run.probabilities),
      stopped: run.stopped,
      exact: run.exact,
      loss: back?.loss ?? null,
      dPicture: back && plain(back.dPicture),
      dInputs: back && back.dInputs.map(plain),
      dParams: back && back.dParams.map((params) => params.map((p) => ({ name: p.name, ...plain(p) }))),
      checks: back ? checks(net, run, back) : [],
      step: step && { ...losses(step), ...taken(net, given, step, { train, sample }, target) },
    };
  };
  const layers = net.layers.map(({ name, key, status, reason }) => ({ name, key, status, reason }));
  return { infer: one(false), train: one(true), layers };
}
