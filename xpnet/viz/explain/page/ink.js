// From strokes and picture files to what the network takes.

/** How finely the board is drawn for an input of H x W: `fine` board pixels for each of its pixels. */
export function fineness({ shape, style }) {
  const [, H, W] = shape;
  return style === "digits8" ? 4 : Math.max(1, Math.min(4, Math.round(112 / Math.max(H, W))));
}

/** Ink on a board: `data` (H, W) from 0 to 1. */
export function blankInk(H, W) {
  return { H, W, data: new Float32Array(H * W) };
}

/** A line of round dabs from (x0, y0) to (x1, y1), in board pixels; value 1 paints, 0 erases. */
export function stroke(ink, x0, y0, x1, y1, radius, value) {
  const steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / 0.5));
  for (let i = 0; i <= steps; i++)
    dab(ink, x0 + ((x1 - x0) * i) / steps, y0 + ((y1 - y0) * i) / steps, radius, value);
}

/** The input (1, H, W) that ink makes, from low to high.
 *
 * digits8: 32 x 32 bitmaps counted in blocks of 4 x 4, from 0 to 16, as in the UCI set.  mnist: the ink's
 * box is brought to 20 x 20 and its centre of mass to the middle, as in MNIST.  Else, or where the ink is a
 * sample that was painted over (fit: false), the mean of each block.
 */
export function inputOf(ink, input, fit) {
  const [, H, W] = input.shape;
  let values;
  if (input.style === "mnist" && fit) values = centred(ink, H, W);
  else values = resample(ink, { top: 0, left: 0, height: ink.H, width: ink.W }, H, W);
  if (input.style === "digits8") values = values.map((v) => Math.round(v * 16) / 16);
  return { shape: [1, H, W], data: values.map((v) => input.low + v * (input.high - input.low)) };
}

/** The ink that an input (1, H, W) is made of. */
export function inkOf(x, input) {
  const fine = fineness(input);
  const [, H, W] = input.shape;
  const ink = blankInk(H * fine, W * fine);
  for (let y = 0; y < ink.H; y++) {
    for (let col = 0; col < ink.W; col++) {
      const value = x.data[Math.floor(y / fine) * W + Math.floor(col / fine)];
      ink.data[y * ink.W + col] = (value - input.low) / (input.high - input.low);
    }
  }
  return ink;
}

/** A picture file as an input (C, H, W) of one or three channels, cut to its proportions. */
export async function inputOfFile(file, input) {
  const [C, H, W] = input.shape;
  const picture = await createImageBitmap(file);
  const share = Math.min(picture.width / W, picture.height / H);
  const [w, h] = [W * share, H * share];
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [W, H];
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // what is transparent is paper
  context.fillRect(0, 0, W, H);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, (picture.width - w) / 2, (picture.height - h) / 2, w, h, 0, 0, W, H);
  const rgba = context.getImageData(0, 0, W, H).data;
  const data = new Float32Array(C * H * W);
  for (let i = 0; i < H * W; i++) {
    const [r, g, b] = rgba.subarray(4 * i, 4 * i + 3);
    const values = C === 3 ? [r, g, b] : [0.299 * r + 0.587 * g + 0.114 * b];
    for (let c = 0; c < C; c++) data[c * H * W + i] = values[c] / 255;
  }
  const inverted = input.style !== null && border(data, H, W) > 0.5; // digits are light on black
  return {
    x: {
      shape: [C, H, W],
      data: data.map((v) => input.low + (inverted ? 1 - v : v) * (input.high - input.low)),
    },
    inverted,
  };
}

function dab(ink, cx, cy, radius, value) {
  for (let y = Math.max(0, Math.floor(cy - radius)); y <= Math.min(ink.H - 1, cy + radius); y++) {
    for (let x = Math.max(0, Math.floor(cx - radius)); x <= Math.min(ink.W - 1, cx + radius); x++) {
      if (Math.hypot(x + 0.5 - cx, y + 0.5 - cy) <= radius) ink.data[y * ink.W + x] = value;
    }
  }
}

function centred(ink, H, W) {
  const box = inkBox(ink);
  if (!box) return new Float32Array(H * W);
  const room = (20 / 28) * Math.min(H, W);
  const natural = H / ink.H; // a stroke is magnified at most twice, so that a dot stays a dot
  const scale = Math.min(room / Math.max(box.height, box.width), 2 * natural);
  const h = Math.max(1, Math.round(box.height * scale));
  const w = Math.max(1, Math.round(box.width * scale));
  const small = resample(ink, box, h, w);
  const [my, mx] = centreOfMass(small, h, w);
  const top = Math.round(H / 2 - my);
  const left = Math.round(W / 2 - mx);
  const out = new Float32Array(H * W);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const ty = y + top;
      const tx = x + left;
      if (ty >= 0 && ty < H && tx >= 0 && tx < W) out[ty * W + tx] = small[y * w + x];
    }
  }
  return out;
}

function inkBox({ H, W, data }) {
  let top = H;
  let left = W;
  let bottom = -1;
  let right = -1;
  for (let i = 0; i < data.length; i++) {
    if (data[i] <= 0) continue;
    const y = Math.floor(i / W);
    const x = i % W;
    [top, bottom, left, right] = [
      Math.min(top, y),
      Math.max(bottom, y),
      Math.min(left, x),
      Math.max(right, x),
    ];
  }
  return bottom < 0 ? null : { top, left, height: bottom - top + 1, width: right - left + 1 };
}

function centreOfMass(data, h, w) {
  let mass = 0;
  let my = 0;
  let mx = 0;
  for (let i = 0; i < data.length; i++) {
    mass += data[i];
    my += data[i] * (Math.floor(i / w) + 0.5);
    mx += data[i] * ((i % w) + 0.5);
  }
  return mass ? [my / mass, mx / mass] : [h / 2, w / 2];
}

/** A box of ink as h x w means over areas. */
function resample(ink, box, h, w) {
  const rows = shares(box.top, box.height, h);
  const columns = shares(box.left, box.width, w);
  const out = new Float32Array(h * w);
  rows.forEach((row, y) =>
    columns.forEach((column, x) => {
      let sum = 0;
      for (const [i, a] of row) for (const [j, b] of column) sum += a * b * ink.data[i * ink.W + j];
      out[y * w + x] = sum;
    }),
  );
  return out;
}

/** For each of n equal parts of [start, start + size): the pixels in it and their shares, which sum to 1. */
function shares(start, size, n) {
  const each = size / n;
  return Array.from({ length: n }, (_, k) => {
    const low = start + k * each;
    const high = low + each;
    const part = [];
    for (let i = Math.floor(low); i < high - 1e-9; i++) {
      part.push([i, (Math.min(i + 1, high) - Math.max(i, low)) / each]);
    }
    return part;
  });
}

function border(data, H, W) {
  let sum = 0;
  let n = 0;
  for (let i = 0; i < H * W; i++) {
    const y = Math.floor(i / W);
    const x = i % W;
    if (y > 0 && y < H - 1 && x > 0 && x < W - 1) continue;
    sum += data[i];
    n++;
  }
  return sum / n;
}
