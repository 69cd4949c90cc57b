// What the gallery's metadata say, with counts: a click narrows the search down to it, another click takes that back.

import { call } from "./api.js";
import { find, h } from "./dom.js";
import { count } from "./format.js";
import { change, listen, state } from "./state.js";

/** Start the facets of the search; `loaded()` is called when they are known. */
export function startFacets(loaded) {
  const place = find("facets");
  let known = null; // of a gallery's state
  let facets = [];

  async function load() {
    const now = `${state.gallery.generation} ${state.gallery.count} ${state.gallery.pending}`;
    if (now === known) return;
    known = now;
    try {
      facets = (await call("/v1/facets")).facets;
    } catch {
      facets = [];
      known = null;
    }
    show();
    loaded();
  }

  function show() {
    place.hidden = facets.length === 0;
    find("facet-values").replaceChildren(...facets.map(({ field, values, others }) => h("div", { class: "facet", role: "group", "aria-label": field }, h("span", { class: "facet-name" }, field),
      values.map(({ value, count: images }) => {
        const chosen = state.filter[field] === value;
        const button = h("button", { type: "button", class: "plain facet-value", "aria-pressed": String(chosen) }, String(value), h("span", { class: "facet-count" }, ` ${count(images)}`));
        button.addEventListener("click", () => {
          const { [field]: _, ...rest } = state.filter;
          change({ filter: chosen ? rest : { ...rest, [field]: value } }, { step: true });
          [...find("facet-values").querySelectorAll("button")].find((one) => one.firstChild.textContent === String(value) && one.closest("[role=group]").ariaLabel === field)?.focus();
        });
        return button;
      }), others ? h("span", { class: "quiet" }, `and ${count(others)} more values`) : null)));
  }

  listen((changed) => {
    if (changed.has("filter")) show();
    if (state.view === "search" && state.gallery && (changed.has("gallery") || changed.has("view"))) load();
  });
  return { tellApart: (field) => facets.some((facet) => facet.field === field && facet.values.length > 1) };
}
