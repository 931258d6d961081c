// Tensors: {shape, data}.  Maps are (C, H, W), vectors (D,); data are in the order of NumPy's ravel().

/** How many elements a shape has. */
export function sizeOf(shape) {
  return shape.reduce((product, length) => product * length, 1);
}

/** A tensor of this shape, of zeros unless data are given. */
export function tensor(shape, data = new Float32Array(sizeOf(shape))) {
  return { shape, data };
}

/** Where the element at an index list lies in data: [c, y, x] of (C, H, W) is (c H + y) W + x. */
export function offsetOf(shape, at) {
  return at.reduce((sum, index, axis) => sum * shape[axis] + index, 0);
}

/** The index list of the element at a place in data: the inverse of offsetOf. */
export function indexOf(shape, offset) {
  const at = new Array(shape.length);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    at[axis] = offset % shape[axis];
    offset = Math.floor(offset / shape[axis]);
  }
  return at;
}

/** f of each element, as a new tensor. */
export function map(a, f) {
  const out = tensor(a.shape);
  for (let i = 0; i < a.data.length; i++) out.data[i] = f(a.data[i], i);
  return out;
}

/** a + b, or the one of them that is not null. */
export function add(a, b) {
  if (!a || !b) return a ?? b;
  return map(a, (value, i) => value + b.data[i]);
}

/** Sizes of the channel axis and of all behind it: (C, H, W) -> [C, H W], (D,) -> [D, 1]. */
export function channelsOf(shape) {
  return [shape[0], sizeOf(shape.slice(1))];
}

/** The tensors of a page: text is base64 of gzip, entries say where in the bytes each lies and how. */
export async function readTensors(text, entries) {
  const bytes = await unzip(fromBase64(text.trim()));
  return entries.map(({ format, shape, start }) => FORMATS[format](bytes, start, shape));
}

function fromBase64(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

async function unzip(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// How tensors.py writes numbers.  Bytes of one significance lie together, which gzip packs better.
const FORMATS = {
  float32: (bytes, start, shape) => tensor(shape, floats(bytes, start, sizeOf(shape), 4)),
  float24: (bytes, start, shape) => tensor(shape, floats(bytes, start, sizeOf(shape), 3)),
  int16: (bytes, start, shape) => scaled(bytes, start, shape, 16),
  int12: (bytes, start, shape) => scaled(bytes, start, shape, 12),
  int8: (bytes, start, shape) => scaled(bytes, start, shape, 8),
  bits: (bytes, start, shape) => tensor(shape, bitsOf(bytes, start, sizeOf(shape))),
};

/** Zeros and ones, eight a byte. */
function bitsOf(bytes, start, count) {
  return Float32Array.from({ length: count }, (_, i) => (bytes[start + (i >> 3)] >> (i & 7)) & 1);
}

/** Floats of which the first 3 or all 4 bytes are there, the most significant first. */
function floats(bytes, start, count, planes) {
  const words = new Uint32Array(count);
  for (let plane = 0; plane < planes; plane++) {
    for (let i = 0; i < count; i++) words[i] |= bytes[start++] << (24 - 8 * plane);
  }
  return new Float32Array(words.buffer);
}

/** Whole numbers of some bits, the 8 highest first, times a float a row (a vector is one row). */
function scaled(bytes, start, shape, bits) {
  const count = sizeOf(shape), rows = shape.length > 1 ? shape[0] : 1;
  const scale = floats(bytes, start, rows, 4), values = new Float32Array(count);
  const high = start + 4 * rows, low = high + count;
  const middle = 2 ** (bits - 1), perRow = count / rows;
  for (let i = 0; i < count; i++) {
    let whole = bytes[high + i];
    if (bits === 16) whole = whole * 256 + bytes[low + i];
    if (bits === 12) whole = whole * 16 + ((bytes[low + (i >> 1)] >> (4 * (i & 1))) & 15);
    values[i] = (whole - middle) * scale[Math.floor(i / perRow)];
  }
  return tensor(shape, values);
}
