// A unit's weights as pictures, where its inputs are maps laid flat: what it looks for, where it finds it.

import { offsetOf } from "../engine/tensors.js";
import { aroundZero } from "./colors.js";
import { make } from "./dom.js";
import { shapeOf } from "./now.js";
import { behindFlatten, lookAtElement } from "./places.js";
import { Tiles, picks } from "./tiles.js";
import { word } from "./words.js";

const PICTURE_ROOM = 190; // CSS pixels of a picture's longer side
const MOST_PICTURES = 100; // maps

/** {node, update(terms)}: weights and products of a dense unit in the shape of the maps, if there are any. */
export function weightMaps(layer) {
  const source = behindFlatten(layer.inputs[0]);
  const shape = shapeOf(source);
  const node = make("div", { class: "weight-maps" });
  if (shape.length !== 3 || shape[0] > MOST_PICTURES) {
    node.hidden = true;
    return { node, update() {} };
  }
  const [C, H, W] = shape;
  const columns = Math.ceil(Math.sqrt(C));
  const gap = C === 1 ? 0 : 3;
  const pictures = [
    ["dense.weights", "kernel"],
    ["dense.products", "products"],
  ].map(([title, of]) => {
    const tiles = new Tiles({ role: "img", "aria-label": word(title) });
    tiles.arrange(C, H, W, columns, Math.max(3, Math.min(96, PICTURE_ROOM / columns - gap)), gap);
    picks(tiles, ({ tile, y, x }) => lookAtElement(source, offsetOf(shape, [tile, y, x])));
    node.append(make("figure", { class: "map" }, make("figcaption", { text: word(title) }), tiles.node));
    return { tiles, of };
  });

  function update(terms) {
    for (const { tiles, of } of pictures) {
      tiles.draw(terms[of].data, aroundZero(terms[of].data));
      tiles.show();
    }
  }

  return { node, update };
}
