// The pieces of every detail: a grid of numbers, a sum written as a ledger, a list of products, a map.

import { aroundZero, cellColors } from "./colors.js";
import { button, make } from "./dom.js";
import { legendBar } from "./legend.js";
import { brief, commonExponent, raised, shown, signed, sizes } from "./numbers.js";
import { Tiles, picks, steers } from "./tiles.js";
import { word } from "./words.js";

const LARGEST_GRID = 121; // cells with numbers in them
const LISTED_PRODUCTS = 12; // products listed before one asks for all

/** A table of numbers with a title: {node, show(values, H, W, scale, {lit, outside, pick, decimals})}. */
export function numberGrid(title, name) {
  const caption = make("figcaption");
  const table = make("table", { data: { name } });
  const node = make("figure", { class: "grid" }, caption, table);
  let cells = [];

  function build(H, W) {
    cells = Array.from({ length: H * W }, () => make("td"));
    const rows = Array.from({ length: H }, (_, y) => make("tr", {}, cells.slice(y * W, (y + 1) * W)));
    table.replaceChildren(...rows);
  }

  function show(values, H, W, scale, { lit = -1, outside = null, pick = null, decimals = 2 } = {}) {
    const fits = H * W <= LARGEST_GRID;
    node.hidden = !fits;
    if (!fits) return;
    if (cells.length !== H * W || table.rows.length !== H) build(H, W);
    const exponent = commonExponent(Math.max(-scale.low, scale.high));
    caption.textContent = title + (exponent ? `  (× 10${raised(exponent)})` : "");
    table.dataset.size = decimals > 2 ? "wide" : W > 7 ? "small" : W > 4 ? "medium" : "large";
    cells.forEach((cell, i) => {
      const { paper, ink } = cellColors(scale, values[i]);
      cell.style.background = paper;
      cell.style.color = ink;
      cell.classList.toggle("outside", Boolean(outside?.[i]));
      cell.classList.toggle("lit", i === lit);
      cell.dataset.value = values[i];
      const text = brief(values[i] / 10 ** exponent, decimals);
      if (pick) cell.replaceChildren(button(text, () => pick(i), { "aria-pressed": String(i === lit) }));
      else cell.textContent = text;
    });
  }

  return { node, show };
}

/** A sum as one writes it down: rows {label, value, name, text, total}; total: under a line. */
export function ledger() {
  const node = make("dl", { class: "ledger" });
  const show = (rows) =>
    node.replaceChildren(
      ...rows.filter(Boolean).map((row) => {
        const text = row.text ?? (row.plain ? shown(row.value, 5) : signed(row.value, 5));
        return make(
          "div",
          { class: row.total ? "total" : "" },
          make("dt", { text: row.label }),
          make("dd", {
            text: row.total && !row.text ? shown(row.value, 5) : text,
            data: { name: row.name, value: row.value },
          }),
        );
      }),
    );
  return { node, show };
}

/** Products, the largest first: show(items [{label, a, b, product, pick}], heads [label, a, b]). */
export function productList(name) {
  const node = make("div", { class: "products" });
  let all = false;
  let last = null;

  function show(items, heads) {
    last = [items, heads];
    const sorted = [...items].sort((p, q) => Math.abs(q.product) - Math.abs(p.product));
    const listed = all ? sorted : sorted.slice(0, LISTED_PRODUCTS);
    const most = Math.abs(sorted[0]?.product) || 1;
    const rest = sorted.slice(listed.length);
    const head = make(
      "tr",
      {},
      ...[heads[0], heads[1], "", heads[2], "", word("products.product")].map((text) =>
        make("th", { text, scope: "col" }),
      ),
    );
    const table = make(
      "table",
      { data: { name } },
      make("thead", {}, head),
      make("tbody", {}, ...listed.map((item) => productRow(item, most))),
    );
    node.replaceChildren(make("div", { class: "scroll", tabindex: all ? 0 : null }, table));
    if (rest.length) {
      const sum = rest.reduce((total, { product }) => total + product, 0);
      node.append(
        make("p", {
          class: "soft",
          text: word("products.rest", { count: rest.length, sum: signed(sum, 4) }),
        }),
      );
    }
    if (sorted.length > LISTED_PRODUCTS) {
      const text = all ? word("products.fewer") : word("products.all", { count: sorted.length });
      node.append(
        button(
          text,
          () => {
            all = !all;
            show(...last);
          },
          { class: "link" },
        ),
      );
    }
  }

  return { node, show };
}

function productRow({ label, a, b, product, pick }, most) {
  const bar = make("i", {
    class: product < 0 ? "minus" : "plus",
    style: { width: `${(48 * Math.abs(product)) / most}px` },
  });
  const first = pick ? button(label, pick, { class: "link" }) : label;
  return make(
    "tr",
    {},
    make("th", { scope: "row" }, first),
    make("td", { text: shown(a, 3), data: { value: a } }),
    make("td", { class: "sign", text: "×" }),
    make("td", { text: shown(b, 3), data: { value: b } }),
    make("td", { class: "sign", text: "=" }),
    make(
      "td",
      { class: "amount", data: { value: product } },
      make("span", { text: signed(product, 3) }),
      bar,
    ),
  );
}

/** One map, large: {node, show(title, data, H, W, scale, marks, options)}; moved(y, x) by hand. */
export function mapView(side, moved, hover = true) {
  const tiles = new Tiles({ tabindex: moved ? 0 : null, role: moved ? "application" : "img" });
  const legend = legendBar();
  const caption = make("figcaption");
  const node = make("figure", { class: "map" }, caption, tiles.node, legend.node);
  let place = [0, 0, 0];
  let arranged = "";
  if (moved) {
    picks(tiles, ({ y, x }) => moved(y, x, false), hover);
    steers(
      tiles.node,
      () => [1, tiles.H, tiles.W],
      () => place,
      ([, y, x]) => moved(y, x, true),
    );
  }

  function show(
    title,
    data,
    H,
    W,
    scale,
    marks = [],
    { first = 0, at = [0, 0], colour = false, beyond = 0 } = {},
  ) {
    caption.textContent = title;
    place = [0, ...at];
    const width = Math.max(3, (side * W) / Math.max(H, W));
    const layout = `${H} ${W} ${width} ${beyond}`;
    if (arranged !== layout) tiles.arrange(1, H, W, 1, width, 0, 3 + Math.min(24, beyond * (width / W)));
    arranged = layout;
    tiles.node.setAttribute("aria-label", `${title}, ${sizes([H, W])}`);
    if (data) {
      tiles.draw(data, scale, first, colour);
      legend.show(scale);
    } else tiles.blank();
    legend.node.hidden = !data;
    tiles.show(marks);
  }

  return { node, show, tiles };
}

/** Parts of maps or weights, one of which is shown: {node, show(values, current, text, pick)}. */
export function chipRow(label) {
  const node = make("div", { class: "chips", role: "group", "aria-label": label });
  let buttons = [];

  function show(values, current, textOf, pick) {
    if (buttons.length !== values.length) {
      buttons = values.map((_, i) => button("", () => pick(i)));
      node.replaceChildren(make("span", { class: "soft", text: label }), ...buttons);
    }
    const scale = aroundZero(values);
    buttons.forEach((one, i) => {
      const { paper, ink } = cellColors(scale, values[i]);
      one.replaceChildren(
        make("small", { text: textOf(i) }),
        make("b", {
          text: signed(values[i], 3),
          style: { background: paper, color: ink },
          data: { value: values[i] },
        }),
      );
      one.setAttribute("aria-pressed", String(i === current));
    });
  }

  return { node, show };
}

/** A sign between pieces: ×, =, →. */
export function sign(text) {
  return make("span", { class: "operator", "aria-hidden": "true", text });
}

/** A piece of arithmetic that stays together. */
export function together(...children) {
  return make("div", { class: "together" }, ...children);
}

/** A sentence. */
export function sentence(text, props = {}) {
  return make("p", { class: "say", text, ...props });
}
