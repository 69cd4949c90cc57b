// More like these, less like those: a query of several images, as chips that can be taken away again.

import { button, find, h } from "./dom.js";
import { nameOf, plural } from "./format.js";
import { thumbnail } from "./pictures.js";
import { change, state } from "./state.js";

const MOST = 20;
/** Type of what is dragged from a card. */
export const DRAGGED = "application/x-eigenlens-image";

const exampleOf = ({ id, file, code, encoder, name, picture }) => ({ id, file, code, encoder, name, picture });

/** The query of these examples: that of one image where one is left, and none of none. */
function queryOf(positive, negative) {
  if (positive.length === 0) return null;
  if (positive.length === 1 && negative.length === 0) return exampleOf(positive[0]);
  return { positive, negative, name: inWords(positive, negative), encoder: [...positive, ...negative].find((one) => one.encoder)?.encoder };
}

function inWords(positive, negative) {
  return `More like ${plural(positive.length, "image")}${negative.length ? `, less like ${plural(negative.length, "image")}` : ""}`;
}

/** The query of several photographs. */
export const photographs = (files) => queryOf(files.slice(0, MOST).map((file) => ({ file, name: file.name, picture: URL.createObjectURL(file) })), []);

/** Add an image to what results are to be like, or unlike where `sign` is "-". */
export function addExample(image, sign) {
  const present = state.query;
  const example = { id: image.id, name: nameOf(image), picture: image.thumbnail };
  const without = (list) => list.filter((one) => one.id === undefined || one.id !== image.id);
  let [positive, negative] = present?.positive ? [present.positive, present.negative] : [present ? [exampleOf(present)] : [], []];
  [positive, negative] = [without(positive), without(negative)];
  if (sign === "-" && positive.length === 0) return;
  if (sign === "-") negative = [...negative, example].slice(-MOST);
  else positive = [...positive, example].slice(-MOST);
  change({ query: queryOf(positive, negative) }, { step: true });
}

/** Two buttons on a card. By keyboard they are the keys + and − of the card itself, so that Tab has fewer stops. */
export function exampleButtons(image) {
  return [["+", "+", "More like"], ["-", "−", "Less like"]].map(([sign, text, said]) => button(text, () => addExample(image, sign), { class: "like", tabIndex: -1, ariaLabel: `${said} ${image.id}`, title: `${said} this` }));
}

/** Show the examples of the present query as chips. */
export function showExamples() {
  const query = state.query;
  const list = find("examples");
  list.hidden = !query?.positive;
  list.replaceChildren(...(query?.positive ? ["positive", "negative"].flatMap((sort) => query[sort].map((example, place) => {
    const said = `${sort === "positive" ? "More like" : "Less like"} ${example.name ?? example.id ?? "a photograph"}`;
    const remove = button("×", () => {
      const lists = { positive: query.positive, negative: query.negative };
      lists[sort] = lists[sort].filter((_, other) => other !== place);
      if (lists.positive.length === 0) return; // there is nothing to start from: the last one stays
      change({ query: queryOf(lists.positive, lists.negative) }, { step: true });
    }, { ariaLabel: `Remove: ${said}`, title: "Remove" });
    return h("li", { class: sort, title: said }, h("span", { "aria-hidden": "true", class: "sign" }, sort === "positive" ? "+" : "−"), example.picture ? thumbnail(example.picture, said) : h("span", {}, said), remove);
  })) : []));
}

/** What an address says of the examples. */
export const told = (list, pack) => (list.length ? JSON.stringify(list.map((one) => (one.id ? { id: one.id } : { code: pack(one.code ?? []) }))) : undefined);

/** The query of what an address says. Throws where it cannot be read. */
export function ofAddress(like, unlike, encoder, unpack) {
  const read = (text) => JSON.parse(text ?? "[]").slice(0, MOST).map((one) => (typeof one.id === "string" ? { id: one.id } : { code: unpack(one.code), encoder, name: "a photograph" }));
  const [positive, negative] = [read(like), read(unlike)];
  return { positive, negative, name: inWords(positive, negative), encoder: [...positive, ...negative].some((one) => one.code) ? encoder : undefined };
}
