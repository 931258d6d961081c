// What of the network lies out of sight, left and right of its strip, and the way there.

import { button, calm, make } from "./dom.js";
import { word } from "./words.js";

/** {nodes: [left, right], show()}: two buttons that count the layers out of sight and bring them in. */
export function waysOut(strip, columns) {
  const scroll = (direction) => {
    const left = direction * 0.8 * strip.clientWidth;
    strip.scrollBy({ left, behavior: calm() ? "auto" : "smooth" });
  };
  const ways = [-1, 1].map((direction) => {
    const way = button("", () => scroll(direction), { class: "way" });
    const node = make("div", { class: direction < 0 ? "beyond left" : "beyond right" }, way);
    return { node, way, key: direction < 0 ? "network.left" : "network.right" };
  });
  const show = () => {
    const [start, end] = [strip.scrollLeft, strip.scrollLeft + strip.clientWidth];
    const middles = columns.map(({ node }) => node.offsetLeft + node.offsetWidth / 2);
    const counts = [middles.filter((x) => x < start).length, middles.filter((x) => x > end).length];
    ways.forEach(({ node, way, key }, i) => {
      node.hidden = counts[i] === 0;
      way.textContent = word(key, { count: counts[i] });
    });
  };
  strip.addEventListener("scroll", show, { passive: true });
  return { nodes: ways.map((one) => one.node), show };
}
