// What every word means that is not everyday English: shown when a pointer or the focus is on it.

import { h } from "./dom.js";

const MEANINGS = {
  code: "The list of numbers that describes a picture. Pictures that look alike have nearly the same numbers; the first numbers tell the most.",
  auto: "The service takes the quickest way that still finds nearly all of the best.",
  eigenfunction: "One number of the code. It was learned to be nearly the same for pictures that look alike.",
  rescore: "The few best candidates are compared again with more numbers, so that their order is better.",
  "best ten": "The ten pictures that a comparison of all numbers puts first. Measured on this gallery when it was built.",
  memory: "What the numbers of every picture take, with what makes the search quick.",
  time: "The search alone, at the median, without reading your picture.",
  same: "How many of the results have the label of your picture, or the commonest label where yours has none.",
};

/** A word that can be asked about; `rest` is told below it. */
export function term(word, said = word, rest = "") {
  return h("button", { type: "button", class: "term", "data-tip": MEANINGS[word], "aria-label": `${said}${rest && `, ${rest}`}: ${MEANINGS[word]}` }, said, rest && h("span", {}, rest));
}

/** Make every <b data-term> of a part of the page one. */
export function startTerms(part) {
  for (const place of part.querySelectorAll("[data-term]")) place.replaceWith(term(place.dataset.term, place.textContent));
}
