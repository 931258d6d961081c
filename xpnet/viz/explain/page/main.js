// The page: reads the network, listens, and draws what has changed.

import { loadNet } from "../engine/net.js";
import { drawAnswer } from "./answer.js";
import { isDark } from "./colors.js";
import { closeSheet, drawDetail, forgetDetail, openSheet } from "./detail.js";
import { byId } from "./dom.js";
import { listenToKeys, openHelp } from "./keys.js";
import { buildNetwork, drawNetwork, revealLayer } from "./network.js";
import { compute, isTraining, now, placeIn } from "./now.js";
import { buildSource, drawSource } from "./source.js";
import { PICTURE, change, onChange, readHash, state, writeHash } from "./state.js";
import { drawTour, startTour } from "./tour.js";
import { languageNow, loadWords, useLanguage, word } from "./words.js";

const COMPUTED = ["x", "sample", "target", "mode", "training", "steps"];

start();

async function start() {
  loadWords();
  const theme = readHash().get("theme");
  if (["light", "dark"].includes(theme)) document.documentElement.dataset.theme = theme;
  try {
    now.net = await loadNet(document);
  } catch (error) {
    return refuse(error);
  }
  firstState();
  listen();
  labels();
  buildSource();
  compute();
  buildNetwork();
  onChange(draw);
  change({ layer: firstLayer(), x: state.x });
  requestAnimationFrame(() => revealLayer("auto"));
}

/** The least certain sample, or an empty input; what the address says. */
function firstState() {
  const { samples, input, classes, first } = now.net;
  const hash = readHash();
  const size = input.shape.reduce((a, b) => a * b, 1);
  state.x = { shape: input.shape, data: new Float32Array(size).fill(input.low) };
  state.target = classes ? 0 : null;
  const wished = Number(hash.get("sample") ?? first);
  if (samples.length) Object.assign(state, sampleState(samples[wished] ? wished : first));
  if (hash.get("mode") === "backward") state.mode = "backward";
}

function sampleState(i) {
  const { x, target } = now.net.samples[i];
  return { x, sample: i, target: target ?? state.target };
}

/** What is looked at first: the layer of the address, or the first that has weights. */
function firstLayer() {
  const wished = Number.parseInt(readHash().get("layer"), 10);
  if (wished >= PICTURE && wished <= now.net.layers.length) return wished;
  const layer = now.net.layers.find(
    ({ kind, status }) => ["Conv2D", "Dense"].includes(kind) && status !== "unsupported",
  );
  return layer?.index ?? PICTURE;
}

/** Draw after a change: compute what depends on it first. */
function draw(changed) {
  if (changed.has("layer")) Object.assign(state, { channel: null, weight: null });
  if (changed.has("layer") && !changed.has("at"))
    state.at = placeIn(Math.min(state.layer, now.net.layers.length - 1));
  if (COMPUTED.some((name) => changed.has(name))) compute();
  if (changed.has("at") || changed.has("layer")) now.places.set(state.layer, state.at);
  const rebuilt = ["mode", "training", "expanded", "language", "theme", "width"].some((name) =>
    changed.has(name),
  );
  if (rebuilt) rebuild(changed);
  if (["x", "sample", "language", "theme"].some((name) => changed.has(name))) drawSource(changed);
  drawSwitches();
  drawNetwork();
  drawAnswer();
  drawDetail();
  drawTour(changed.has("tour"));
  if (changed.has("layer") && changed.has("at") && changed.size <= 3) openSheet();
  if (changed.has("layer") || changed.has("mode")) revealLayer();
  if (["layer", "mode", "sample"].some((name) => changed.has(name))) remember();
}

function rebuild(changed) {
  if (changed.has("language")) {
    labels();
    buildSource();
  }
  const held = document.activeElement?.closest("#network canvas, #network .pill") ? state.layer : null;
  buildNetwork();
  if (["language", "theme", "width"].some((name) => changed.has(name))) forgetDetail();
  if (held !== null)
    byId("strip").querySelector(`[data-layer="${held}"] canvas, [data-layer="${held}"] .pill`)?.focus();
}

function remember() {
  writeHash({
    layer: state.layer,
    mode: state.mode === "backward" ? "backward" : null,
    sample: state.sample === null ? null : state.sample,
  });
}

function drawSwitches() {
  byId("mode-forward").setAttribute("aria-pressed", String(state.mode === "forward"));
  byId("mode-backward").setAttribute("aria-pressed", String(state.mode === "backward"));
  byId("training").checked = state.mode === "backward" || state.training;
  byId("training").disabled = state.mode === "backward";
  const notice = byId("notice");
  const { trainable } = now.net;
  const text = isTraining() && !trainable.ok ? trainable.reason[languageNow()] : "";
  notice.hidden = !text && !state.steps;
  notice.textContent = [text, state.steps ? word("step.count", { count: state.steps }) : ""]
    .filter(Boolean)
    .join(" ");
}

function labels() {
  const dark = isDark();
  byId("title").textContent = now.net.title;
  byId("language").textContent = languageNow() === "ja" ? "English" : "日本語";
  byId("language").lang = languageNow() === "ja" ? "en" : "ja";
  byId("theme").textContent = word(dark ? "theme.light" : "theme.dark");
}

function listen() {
  const acts = { language: nextLanguage, theme: nextTheme, layer: nextLayer };
  byId("mode-forward").addEventListener("click", () => change({ mode: "forward" }));
  byId("mode-backward").addEventListener("click", () => change({ mode: "backward" }));
  byId("training").addEventListener("change", (event) => change({ training: event.target.checked }));
  byId("training-row").hidden = !now.net.layers.some(({ kind }) => /Dropout|BatchNormalization/.test(kind));
  byId("language").addEventListener("click", nextLanguage);
  byId("theme").addEventListener("click", nextTheme);
  byId("tour-start").addEventListener("click", startTour);
  byId("help-open").addEventListener("click", openHelp);
  document.querySelector(".skip").addEventListener("click", openSheet);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    labels();
    change({ theme: null });
  });
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    closeSheet();
    change({ width });
  });
  listenToKeys(acts);
}

function nextLanguage() {
  useLanguage(languageNow() === "ja" ? "en" : "ja");
  change({ language: languageNow() });
}

function nextTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  writeHash({ theme });
  labels();
  change({ theme });
}

function nextLayer(by) {
  const layer = Math.max(PICTURE, Math.min(now.net.layers.length, state.layer + by));
  change({ layer });
}

function refuse(error) {
  byId("notice").hidden = false;
  byId("notice").textContent = word("page.broken", { error: error.message });
  throw error;
}
