// Elements, made of text and never of markup: what comes from a gallery cannot become HTML.

const SVG = "http://www.w3.org/2000/svg";

export const find = (id) => document.getElementById(id);

/** An element. Properties that the element has are set as such, all others as attributes; on: {event: listener}. */
export function h(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children, true);
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
