// Single letters as short ways, where no field wants them; the help lists them.

import { byId, button, make } from "./dom.js";
import { change, state } from "./state.js";
import { closeSheet, slide, viewNow, viewsNow } from "./detail.js";
import { focusLayer } from "./network.js";
import { endTour, startTour, stepTour } from "./tour.js";
import { word } from "./words.js";

const KEYS = [
  ["Tab", "keys.tab"],
  ["← ↑ → ↓", "keys.arrows"],
  ["[  ]", "keys.maps"],
  ["<  >", "keys.layers"],
  ["f  b", "keys.modes"],
  ["v", "keys.view"],
  ["s", "keys.slide"],
  ["t  n  p", "keys.tour"],
  ["l", "keys.language"],
  ["d", "keys.theme"],
  ["?", "keys.help"],
  ["Esc", "keys.escape"],
];
const BOARD_KEYS = [
  ["← ↑ → ↓", "keys.board.move"],
  ["Space", "keys.board.pen"],
  ["e", "keys.board.eraser"],
  ["Del", "keys.board.clear"],
];

/** Listen; acts: {layer(by), language, theme}. */
export function listenToKeys(acts) {
  const meanings = {
    f: () => change({ mode: "forward" }),
    b: () => change({ mode: "backward" }),
    v: nextView,
    s: slide,
    t: startTour,
    n: () => stepTour(1),
    p: () => stepTour(-1),
    l: acts.language,
    d: acts.theme,
    "<": () => acts.layer(-1),
    ">": () => acts.layer(1),
    ",": () => acts.layer(-1),
    ".": () => acts.layer(1),
    "?": openHelp,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.key === "Escape") return escape();
    if (
      !state.letters ||
      event.target.matches("input:not([type=range]):not([type=checkbox]), select, textarea")
    )
      return;
    const act = meanings[event.key];
    if (!act || byId("help").open) return;
    event.preventDefault();
    act();
    if ("<>,.".includes(event.key)) requestAnimationFrame(focusLayer);
  });
}

/** Open the help. */
export function openHelp() {
  const dialog = byId("help");
  const list = (keys) =>
    make(
      "dl",
      { class: "keys" },
      keys.flatMap(([key, meaning]) => [
        make("dt", {}, make("kbd", { text: key })),
        make("dd", { text: word(meaning) }),
      ]),
    );
  const letters = make("input", {
    type: "checkbox",
    checked: state.letters,
    on: { change: (event) => change({ letters: event.target.checked }) },
  });
  dialog.replaceChildren(
    make("h2", { id: "help-title", text: word("help.title") }),
    make("p", { text: word("help.what") }),
    make("p", { text: word("help.colors") }),
    make("h3", { text: word("help.keys") }),
    list(KEYS),
    make("label", { class: "check" }, letters, make("span", { text: word("help.letters") })),
    make("h3", { text: word("help.board") }),
    list(BOARD_KEYS),
    button(word("help.close"), () => dialog.close(), { class: "strong" }),
  );
  dialog.showModal();
}

function escape() {
  if (byId("help").open) return;
  if (state.tour !== null) endTour();
  else closeSheet();
}

function nextView() {
  const views = viewsNow();
  change({ view: views[(views.indexOf(viewNow()) + 1) % views.length] });
}
