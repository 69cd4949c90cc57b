// Health and figures at a glance, read again every few seconds while they are looked at.

import { call } from "./api.js";
import { h } from "./dom.js";
import { bytes, count, duration } from "./format.js";
import { state } from "./state.js";

const EVERY_MS = 3000;

/** Build the panel in `place`. */
export function startGlance(place) {
  const tiles = h("dl", { class: "numbers tiles", id: "glance" });
  place.append(h("section", { class: "panel", "aria-labelledby": "glance-title" }, h("h2", { id: "glance-title" }, "At a glance"), tiles));
  let timer;

  async function show() {
    clearTimeout(timer);
    if (state.view === "gallery" && !document.hidden) tiles.replaceChildren(...(await facts()).map(tile));
    clearTimeout(timer);
    timer = setTimeout(show, EVERY_MS);
  }
  show();
  return { show, stop: () => clearTimeout(timer) };
}

const tile = ([name, value, about]) => h("div", {}, h("dt", {}, name), h("dd", {}, h("b", {}, value), h("span", {}, about)));

async function facts() {
  try {
    const stats = await call("/v1/admin/stats");
    await call("/readyz");
    const onDisk = Object.values(stats.bytes).reduce((sum, part) => sum + part, 0);
    return [
      ["health", "ready", `for ${duration(stats.uptime_s)}`],
      ["images", count(stats.searchable), "can be found"],
      ["added", count(stats.pending), "since the last build"],
      ["removed", count(stats.removed), "since the last build"],
      ["generation", String(stats.generation), `of ${stats.generations.join(", ")}`],
      ["disk", bytes(onDisk), `${bytes(stats.free_bytes)} are free`],
      ["memory", stats.resident_bytes ? bytes(stats.resident_bytes) : "–", "of the service"],
      ["jobs", count(stats.jobs.length), "are running"],
    ];
  } catch (reason) {
    return [["health", "not ready", reason.message]];
  }
}
