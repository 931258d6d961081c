// The colours of numbers: viridis from 0 up, red above and blue below 0, grey for pictures, as in xpnet.viz.

const SEQUENTIAL = [
  "#440154",
  "#472c7a",
  "#3b518b",
  "#2c718e",
  "#21908d",
  "#27ad81",
  "#5cc863",
  "#aadc32",
  "#fde725",
];
const DIVERGING = [
  "#053061",
  "#2166ac",
  "#4393c3",
  "#92c5de",
  "#d1e5f0",
  "#f7f7f7",
  "#fddbc7",
  "#f4a582",
  "#d6604d",
  "#b2182b",
  "#67001f",
];
const DIVERGING_DARK = [
  "#c9e3ff",
  "#8cc3fb",
  "#5a9fe2",
  "#3d74ab",
  "#2c4868",
  "#262b33",
  "#5f3833",
  "#9c4a40",
  "#d8695a",
  "#f79a88",
  "#ffd5ca",
];
const GREYS = ["#000000", "#ffffff"];

const palettes = new Map();

/** Whether the page is dark now. */
export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** The scale of some numbers: {kind, low, high}; "sequential" where nothing is below 0, else "diverging". */
export function scaleOf(data, always = null) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of data) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) low = high = 0;
  const limit = Math.max(Math.abs(low), Math.abs(high)) || 1;
  if (always === "diverging" || low < 0) return { kind: "diverging", low: -limit, high: limit };
  return { kind: "sequential", low: 0, high: limit };
}

/** A scale either side of 0. */
export function aroundZero(...arrays) {
  let limit = 0;
  for (const data of arrays) for (const value of data) if (Math.abs(value) > limit) limit = Math.abs(value);
  return { kind: "diverging", low: -(limit || 1), high: limit || 1 };
}

/** 256 colours (256 * 3 bytes) of a scale's kind. */
export function paletteOf(kind) {
  const name = kind + (isDark() ? " dark" : "");
  if (!palettes.has(name)) palettes.set(name, spreadColors(anchorsOf(kind)));
  return palettes.get(name);
}

/** Where value lies in its scale's palette, 0 to 255. */
export function step256(scale, value) {
  const share = (value - scale.low) / (scale.high - scale.low || 1);
  return Math.max(0, Math.min(255, Math.round(share * 255)));
}

/** {paper, ink}: the colour of a number, and black or white to write on it. */
export function cellColors(scale, value) {
  if (Number.isNaN(value)) return { paper: "transparent", ink: "inherit" };
  const palette = paletteOf(scale.kind);
  const at = 3 * step256(scale, value);
  const [r, g, b] = palette.subarray(at, at + 3);
  return { paper: `rgb(${r} ${g} ${b})`, ink: luminance(r, g, b) > 0.18 ? "#000" : "#fff" };
}

/** A CSS gradient of a scale's colours, for legends. */
export function gradientOf(kind) {
  return `linear-gradient(90deg, ${anchorsOf(kind).join(", ")})`;
}

/** A value of the style sheet. */
export function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function anchorsOf(kind) {
  if (kind === "grey") return GREYS;
  if (kind === "sequential") return SEQUENTIAL;
  return isDark() ? DIVERGING_DARK : DIVERGING;
}

function spreadColors(anchors) {
  const colors = anchors.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const out = new Uint8Array(256 * 3);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (colors.length - 1);
    const left = Math.min(Math.floor(place), colors.length - 2);
    for (let k = 0; k < 3; k++) {
      out[3 * i + k] = colors[left][k] + (place - left) * (colors[left + 1][k] - colors[left][k]);
    }
  }
  return out;
}

function luminance(...rgb) {
  const [r, g, b] = rgb.map((v) =>
    v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4,
  );
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
