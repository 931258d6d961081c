// Every visible word, in two languages.

import { byId } from "./dom.js";
import { readHash, writeHash } from "./state.js";

const LANGUAGES = ["en", "ja"];
const words = {};

/** The language now: "en" or "ja". */
export function languageNow() {
  return document.documentElement.lang === "ja" ? "ja" : "en";
}

/** Read the words, and choose: the address, what the page was written for, or the browser's language. */
export function loadWords() {
  Object.assign(words, JSON.parse(byId("words").textContent));
  const written = document.documentElement.lang;
  const wished = readHash().get("lang") ?? (written || navigator.language).slice(0, 2);
  useLanguage(LANGUAGES.includes(wished) ? wished : "en", false);
}

/** Switch to a language; remember: in the address. */
export function useLanguage(language, remember = true) {
  document.documentElement.lang = language;
  if (remember) writeHash({ lang: language });
  for (const node of document.querySelectorAll("[data-word]")) node.textContent = word(node.dataset.word);
  for (const node of document.querySelectorAll("[data-label]")) {
    node.setAttribute("aria-label", word(node.dataset.label));
    if (node.tagName === "BUTTON") node.title = word(node.dataset.label);
  }
}

/** The text of a key, with {name} replaced by values[name]. */
export function word(key, values = {}) {
  const text = words[key]?.[languageNow()];
  if (text === undefined) throw new Error(`words.json has no "${key}"`);
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

/** Say something to those who listen instead of looking. */
export function announce(text) {
  byId("live").textContent = text;
}
