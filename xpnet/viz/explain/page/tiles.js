// Maps as tiles on one canvas: a feature map (C, H, W) is C tiles, a vector (D,) is D tiles of one element.

import { make } from "./dom.js";
import { paletteOf, step256, token } from "./colors.js";

/** (C, H, W) of a shape: (C, H, W) itself, or (D, 1, 1). */
export function asMaps(shape) {
  return shape.length === 3 ? shape : [shape.reduce((a, b) => a * b, 1), 1, 1];
}

/** [c, y, x] of an index in a shape. */
export function asPlace(index) {
  return index.length === 3 ? index : [index[0], 0, 0];
}

/** The index in a shape of [c, y, x]. */
export function asIndex(shape, [c, y, x]) {
  return shape.length === 3 ? [c, y, x] : [c];
}

/** A canvas of tiles: arrange(), draw() numbers, show() them with marks; under() finds the pointer. */
export class Tiles {
  constructor(props = {}) {
    this.node = make("canvas", { class: "tiles", ...props });
    this.pixels = document.createElement("canvas");
    this.count = 0;
  }

  /** Lay out `count` tiles of H x W in so many columns, each `width` CSS pixels wide; margin: for frames. */
  arrange(count, H, W, columns, width, gap, margin = 3) {
    const height = Math.max(1, (width * H) / W);
    const rows = Math.ceil(count / columns);
    Object.assign(this, { count, H, W, columns, rows, gap, margin, tileWidth: width, tileHeight: height });
    this.width = columns * (width + gap) - gap + 2 * margin;
    this.height = rows * (height + gap) - gap + 2 * margin;
    const ratio = window.devicePixelRatio || 1;
    this.node.width = Math.round(this.width * ratio);
    this.node.height = Math.round(this.height * ratio);
    this.node.style.width = `${this.width}px`;
    this.node.style.height = `${this.height}px`;
    this.pixels.width = columns * W;
    this.pixels.height = rows * H;
  }

  /** Paint data, `count` maps of H x W from `first` on; colour: whether three maps are one picture. */
  draw(data, scale, first = 0, colour = false) {
    const { count, H, W, columns } = this;
    const image = new ImageData(this.pixels.width, this.pixels.height);
    const palette = paletteOf(scale.kind);
    for (let tile = 0; tile < count; tile++) {
      const left = (tile % columns) * W;
      const top = Math.floor(tile / columns) * H;
      for (let y = 0; y < H; y++) {
        for (let x = 0; x < W; x++) {
          const from = ((first + tile) * H + y) * W + x;
          const to = 4 * ((top + y) * image.width + left + x);
          if (colour) {
            for (let k = 0; k < 3; k++) image.data[to + k] = step256(scale, data[k * H * W + from]);
          } else {
            if (Number.isNaN(data[from])) continue;
            const at = 3 * step256(scale, data[from]);
            for (let k = 0; k < 3; k++) image.data[to + k] = palette[at + k];
          }
          image.data[to + 3] = 255;
        }
      }
    }
    this.pixels.getContext("2d").putImageData(image, 0, 0);
    this.filled = true;
  }

  /** Show nothing: there are no numbers. */
  blank() {
    this.filled = false;
  }

  /** Bring what was drawn to the screen, with marks: [{tile, top, left, height, width, strong}]. */
  show(marks = []) {
    const context = this.node.getContext("2d");
    const ratio = this.node.width / this.width;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    const shrunk = this.tileWidth * ratio < this.W;
    context.imageSmoothingEnabled = shrunk;
    for (let tile = 0; tile < this.count; tile++) {
      const { left, top } = this.box(tile);
      if (!this.filled) {
        context.fillStyle = token("--empty");
        context.fillRect(left, top, this.tileWidth, this.tileHeight);
        continue;
      }
      const column = tile % this.columns;
      const row = Math.floor(tile / this.columns);
      context.drawImage(
        this.pixels,
        column * this.W,
        row * this.H,
        this.W,
        this.H,
        left,
        top,
        this.tileWidth,
        this.tileHeight,
      );
    }
    for (const mark of marks) this.frame(context, mark);
  }

  /** {left, top, width, height} of a tile on the canvas, in CSS pixels. */
  box(tile) {
    const column = tile % this.columns;
    const row = Math.floor(tile / this.columns);
    return {
      left: this.margin + column * (this.tileWidth + this.gap),
      top: this.margin + row * (this.tileHeight + this.gap),
      width: this.tileWidth,
      height: this.tileHeight,
    };
  }

  /** {tile, y, x} under the pointer, or null between tiles. */
  under(event) {
    const bounds = this.node.getBoundingClientRect();
    const px = ((event.clientX - bounds.left) * this.width) / bounds.width - this.margin;
    const py = ((event.clientY - bounds.top) * this.height) / bounds.height - this.margin;
    const column = Math.floor((px + this.gap / 2) / (this.tileWidth + this.gap));
    const row = Math.floor((py + this.gap / 2) / (this.tileHeight + this.gap));
    const tile = row * this.columns + column;
    if (column < 0 || column >= this.columns || row < 0 || tile >= this.count) return null;
    const inside = (share, size) => Math.max(0, Math.min(size - 1, Math.floor(share * size)));
    return {
      tile,
      y: inside((py - row * (this.tileHeight + this.gap)) / this.tileHeight, this.H),
      x: inside((px - column * (this.tileWidth + this.gap)) / this.tileWidth, this.W),
    };
  }

  frame(context, { tile, top = 0, left = 0, height = this.H, width = this.W, strong = true }) {
    const box = this.box(tile);
    const dx = box.width / this.W;
    const dy = box.height / this.H;
    let x = box.left + left * dx;
    let y = box.top + top * dy;
    let w = width * dx;
    let h = height * dy;
    const least = 5; // a pixel of a small tile is still to be seen
    if (w < least) [x, w] = [x - (least - w) / 2, least];
    if (h < least) [y, h] = [y - (least - h) / 2, least];
    const line = strong ? 2 : 1.25;
    context.lineWidth = line + 2;
    context.strokeStyle = token("--halo");
    context.strokeRect(x - line / 2, y - line / 2, w + line, h + line);
    context.lineWidth = line;
    context.strokeStyle = token("--mark");
    context.strokeRect(x - line / 2, y - line / 2, w + line, h + line);
  }
}

/** Let the pointer choose elements of tiles: f({tile, y, x}); hover: also without a button pressed. */
export function picks(tiles, f, hover = false) {
  const choose = (event) => {
    const place = tiles.under(event);
    if (place) f(place);
  };
  tiles.node.addEventListener("pointerdown", choose);
  tiles.node.addEventListener("pointermove", (event) => {
    if (event.buttons === 1 || (hover && event.pointerType === "mouse")) choose(event);
  });
}

/** Let the arrow keys move [c, y, x] within (C, H, W): f([c, y, x]); PageUp and PageDown change the map. */
export function steers(node, bounds, place, f) {
  node.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const moved = moveBy(event, bounds(), place());
    if (!moved) return;
    event.preventDefault();
    event.stopPropagation();
    f(moved);
  });
}

function moveBy(event, [C, H, W, columns = 1], [c, y, x]) {
  const flat = H * W === 1; // a vector moves from element to element
  const wrap = (value, size) => (value + size) % size;
  const jump = { PageDown: 1, "]": 1, PageUp: -1, "[": -1 }[event.key];
  if (jump) return [wrap(c + jump * (flat ? columns : 1), C), y, x];
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (event.key === "Home") return flat ? [0, 0, 0] : [c, y, 0];
  if (event.key === "End") return flat ? [C - 1, 0, 0] : [c, y, W - 1];
  if (!steps) return null;
  if (flat) return [Math.max(0, Math.min(C - 1, c + steps[0] * columns + steps[1])), 0, 0];
  return [c, Math.max(0, Math.min(H - 1, y + steps[0])), Math.max(0, Math.min(W - 1, x + steps[1]))];
}
