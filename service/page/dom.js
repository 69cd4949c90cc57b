// Elements, made of text and never of markup: what comes from a gallery cannot become HTML.

const SVG = "http://www.w3.org/2000/svg";

export const find = (id) => document.getElementById(id);

/** An element. Properties that the element has are set as such, all others as attributes; on: {event: listener}. */
export function h(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children, true);
}

/** A button that does `work`; `plain` is for what is not the first thing to do. */
export const button = (text, work, properties = {}) => h("button", { type: "button", ...properties, on: { click: work } }, text);
export const plain = (text, work, properties = {}) => button(text, work, { class: "plain", ...properties });

/** A part of the page with a title of its own. */
export const panel = (name, title, ...children) => h("section", { class: "panel", "aria-labelledby": `${name}-title` }, h("h2", { id: `${name}-title` }, title), ...children);

/** A region that scrolls where it is too narrow for its table. */
export const scrolling = (label, table) => h("div", { class: "scroll", tabIndex: 0, role: "region", ariaLabel: label }, table);

/** Fill a table: titles of its columns, "" for none, and rows of texts or elements. */
export function fillTable(table, titles, rows) {
  const head = titles.map((title) => (title ? h("th", { scope: "col" }, title) : h("td", {})));
  table.replaceChildren(h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell))))));
}

/** An SVG element with attributes. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children, false);
}

function filled(element, properties, children, asProperties) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "class") element.setAttribute("class", value);
    else if (asProperties && name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined));
  return element;
}

/** Call `work` once, a moment after the last of several calls. */
export function settled(work, ms) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), ms);
  };
}

export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
