// A slider over `auto` and the lengths that were built.

import { h } from "./dom.js";
import { plural } from "./format.js";

let made = 0;

/** An element with .set(length) and .fill(gallery); `moved` is called with the length at every move. */
export function lengthControl({ label, id = `length-${(made += 1)}`, moved }) {
  let choices = ["auto"];
  let entries = new Map();
  const ticks = h("div", { class: "ticks", "aria-hidden": "true" });
  const value = h("output", { htmlFor: id, id: `${id}-value` }, "…");
  const slider = h("input", { type: "range", id, min: "0", max: "0", step: "1", value: "0", disabled: true });
  slider.addEventListener("input", () => {
    tell();
    moved(choices[Number(slider.value)]);
  });
  const row = h("div", { class: "length-label" }, h("label", { htmlFor: id }, label), value);
  const element = h("div", { class: "length" }, row, slider, ticks);

  function tell() {
    const length = choices[Number(slider.value)];
    const entry = entries.get(length);
    value.textContent = entry ? plural(length, "number") : "auto";
    slider.setAttribute("aria-valuetext", entry ? plural(length, "number") : "auto: the quickest way that finds nearly all");
    for (const [place, tick] of [...ticks.children].entries()) tick.classList.toggle("now", place === Number(slider.value));
  }

  return {
    element,
    set(length) {
      const place = String(Math.max(0, choices.indexOf(length)));
      if (slider.value !== place) slider.value = place;
      tell();
    },
    fill(gallery) {
      entries = new Map(gallery.lengths.map((entry) => [entry.length, entry]));
      choices = ["auto", ...entries.keys()];
      slider.max = String(choices.length - 1);
      slider.disabled = false;
      ticks.replaceChildren(...choices.map((choice) => h("span", {}, String(choice))));
    },
  };
}
