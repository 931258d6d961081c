// Elements, made in one line.  Text goes in as text, never as markup.

/** An element; props: class, text, on {event: f}, style {name: value}, data {name: value}, or attributes. */
export function make(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") node.className = value;
    else if (name === "text") node.textContent = value;
    else if (name === "on") for (const [event, f] of Object.entries(value)) node.addEventListener(event, f);
    else if (name === "style") for (const [key, v] of Object.entries(value)) node.style.setProperty(key, v);
    else if (name === "data") Object.assign(node.dataset, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** The element of an id in the page. */
export function byId(id) {
  return document.getElementById(id);
}

/** A button of text that calls f. */
export function button(text, f, props = {}) {
  return make("button", { type: "button", text, on: { click: f }, ...props });
}

/** One choice of several: {node, show(value)}; options [[value, text]]. */
export function choice(label, options, f) {
  const buttons = new Map(
    options.map(([value, text]) => [value, button(text, () => f(value), { data: { choice: value } })]),
  );
  const node = make("div", { class: "switch", role: "group", "aria-label": label }, [...buttons.values()]);
  const show = (value) => {
    for (const [key, one] of buttons) one.setAttribute("aria-pressed", String(key === value));
  };
  return { node, show };
}

/** Whether the reader asked for less motion. */
export function calm() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/** Whether the page is as narrow as a phone, where it flows downwards. */
export function narrow() {
  return matchMedia("(max-width: 759px)").matches;
}
