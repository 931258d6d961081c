// The board that one draws on, by mouse, finger, pen or keys.

import { make, button, choice } from "./dom.js";
import { token } from "./colors.js";
import { blankInk, fineness, inkOf, inputOf, stroke } from "./ink.js";
import { announce, word } from "./words.js";

const SIDE = 208; // CSS pixels of the longer side

/** A board for net.input; drawn(x) is called with each new input.  {node, take(x), relabel()}. */
export function drawingBoard(input, drawn) {
  const [, H, W] = input.shape;
  const fine = fineness(input);
  const width = SIDE * Math.min(1, W / H);
  const height = SIDE * Math.min(1, H / W);
  const canvas = make("canvas", {
    id: "board",
    class: "board",
    tabindex: 0,
    role: "application",
    style: { width: `${width}px`, height: `${height}px` },
  });
  const radius = (fine * Math.max(H, W)) / (input.style === "digits8" ? 18 : 21);
  let ink = blankInk(H * fine, W * fine);
  let fit = true; // false while the ink is a sample's
  let tool = "brush";
  let last = null;
  const cursor = { y: Math.floor(H / 2), x: Math.floor(W / 2), down: false, visible: false };

  function paint(x, y) {
    const from = last ?? { x, y };
    stroke(ink, from.x, from.y, x, y, radius, tool === "brush" ? 1 : 0);
    last = { x, y };
  }

  function changed() {
    show();
    drawn(inputOf(ink, input, fit));
  }

  function show() {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(inkPicture(ink), 0, 0, canvas.width, canvas.height);
    context.scale(ratio, ratio);
    if (Math.max(H, W) <= 32) gridLines(context, H, W, width, height);
    if (cursor.visible) cursorFrame(context, cursor, width / W, height / H);
  }

  const at = (event) => {
    const bounds = canvas.getBoundingClientRect();
    return [
      ((event.clientX - bounds.left) / bounds.width) * ink.W,
      ((event.clientY - bounds.top) / bounds.height) * ink.H,
    ];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    cursor.visible = false;
    last = null;
    paint(...at(event));
    changed();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    for (const one of event.getCoalescedEvents?.() ?? [event]) paint(...at(one));
    changed();
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !byKey(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
  });
  canvas.addEventListener("blur", () => {
    Object.assign(cursor, { visible: false, down: false });
    show();
  });

  /** Move the cursor, put the pen down or lift it; whether the key meant anything. */
  function byKey(key) {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key];
    if (move) {
      cursor.y = Math.max(0, Math.min(H - 1, cursor.y + move[0]));
      cursor.x = Math.max(0, Math.min(W - 1, cursor.x + move[1]));
    } else if (key === " ") {
      cursor.down = !cursor.down;
      last = null;
    } else if (key === "e") use(tool === "brush" ? "eraser" : "brush");
    else if (key === "Delete" || key === "Backspace") clear();
    else return false;
    cursor.visible = true;
    if (cursor.down) {
      paint((cursor.x + 0.5) * fine, (cursor.y + 0.5) * fine);
      changed();
    } else show();
    const pen = word(cursor.down ? "board.down" : "board.up");
    announce(word("board.cursor", { row: cursor.y, column: cursor.x, pen }));
    return true;
  }

  function clear() {
    ink = blankInk(H * fine, W * fine);
    fit = true;
    cursor.down = false;
    changed();
  }

  const tools = make("div", { class: "row" });
  let tooling = null;
  function use(name) {
    tool = name;
    tooling.show(tool);
  }

  function relabel() {
    canvas.setAttribute("aria-label", word("board.label"));
    tooling = choice(
      word("board.tools"),
      [
        ["brush", word("board.brush")],
        ["eraser", word("board.eraser")],
      ],
      use,
    );
    tools.replaceChildren(tooling.node, button(word("board.clear"), clear, { id: "clear" }));
    tooling.show(tool);
  }

  function take(x) {
    ink = inkOf(x, input);
    fit = false;
    show();
  }

  relabel();
  show();
  return { node: make("div", { class: "drawing" }, canvas, tools), take, relabel, show };
}

function inkPicture({ H, W, data }) {
  const picture = document.createElement("canvas");
  [picture.width, picture.height] = [W, H];
  const image = new ImageData(W, H);
  for (let i = 0; i < data.length; i++) {
    const grey = Math.round(255 * Math.max(0, Math.min(1, data[i])));
    image.data.set([grey, grey, grey, 255], 4 * i);
  }
  picture.getContext("2d").putImageData(image, 0, 0);
  return picture;
}

function gridLines(context, H, W, width, height) {
  context.strokeStyle = "rgb(128 140 160 / 28%)";
  context.lineWidth = 1;
  context.beginPath();
  for (let x = 1; x < W; x++) {
    context.moveTo((x * width) / W, 0);
    context.lineTo((x * width) / W, height);
  }
  for (let y = 1; y < H; y++) {
    context.moveTo(0, (y * height) / H);
    context.lineTo(width, (y * height) / H);
  }
  context.stroke();
}

function cursorFrame(context, cursor, dx, dy) {
  context.strokeStyle = token("--mark");
  context.lineWidth = cursor.down ? 3 : 1.5;
  context.strokeRect(cursor.x * dx, cursor.y * dy, dx, dy);
}
