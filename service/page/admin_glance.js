// Health and metrics at a glance.

import { h } from "./dom.js";
import { count } from "./format.js";
import { headers } from "./api.js";
import { state } from "./state.js";

const EVERY_MS = 3000;

/** Build the panel in `place`. */
export function startGlance(place) {
  const tiles = h("dl", { class: "numbers tiles", id: "glance" });
  place.append(h("section", { class: "panel", "aria-labelledby": "glance-title" }, h("h2", { id: "glance-title" }, "At a glance"), tiles));
  let timer;

  async function show() {
    clearTimeout(timer);
    const ready = await fetch("/readyz", { headers: headers(), cache: "no-store" }).then((response) => response.ok, () => false);
    const facts = [["health", ready ? "ready" : "not ready", ready ? "searches are answered" : "searches are not answered now"]];
    if (state.gallery) {
      const { count: images, pending, removed, generation } = state.gallery;
      facts.push(["images", count(images), "can be found"], ["added", count(pending), "since the last build"], ["removed", count(removed), "since the last build"], ["generation", String(generation), "is served"]);
    }
    tiles.replaceChildren(...facts.map(([name, value, about]) => h("div", {}, h("dt", {}, name), h("dd", {}, h("b", {}, value), h("span", {}, about)))));
    timer = setTimeout(show, EVERY_MS);
  }
  show();
  return { show, stop: () => clearTimeout(timer) };
}
