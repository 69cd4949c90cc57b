// Health and figures at a glance, read again every few seconds while they are looked at.

import { call } from "../api.js";
import { h, panel } from "../dom.js";
import { bytes, count, duration, milliseconds } from "../format.js";
import { figuresOf } from "../metrics.js";
import { state } from "../state.js";

const EVERY_MS = 3000;

/** Build the panel in `place`; `read` is called with the service's stats whenever they were read. */
export function startGlance(place, read) {
  const tiles = h("dl", { class: "numbers tiles", id: "glance" });
  place.append(panel("glance", "At a glance", tiles));
  let timer;
  let before = null; // searches until the last reading, and when that was

  /** Searches a second since the last reading. */
  function rate(searches) {
    const now = performance.now();
    const since = before && now > before.now ? (1000 * (searches - before.searches)) / (now - before.now) : 0;
    before = { searches, now };
    return since < 10 ? since.toFixed(1) : count(Math.round(since));
  }

  async function show() {
    clearTimeout(timer);
    if (state.view === "gallery" && !document.hidden) tiles.replaceChildren(...(await facts(rate, read)).map(tile));
    clearTimeout(timer);
    timer = setTimeout(show, EVERY_MS);
  }
  show();
  return { show, stop: () => clearTimeout(timer) };
}

const tile = ([name, value, about]) => h("div", {}, h("dt", {}, name), h("dd", {}, h("b", {}, value), h("span", {}, about)));

/** "< 5 ms": a histogram knows bounds only. */
function within(did, share) {
  const bound_s = did.within(share);
  if (bound_s === Infinity) return "> 10 s";
  return bound_s ? `< ${milliseconds(1000 * bound_s)}` : "–";
}

async function facts(rate, read) {
  try {
    const stats = await call("/v1/admin/stats");
    read(stats);
    await call("/readyz");
    const did = figuresOf(await call("/metrics", { type: "text" }));
    const onDisk = Object.values(stats.bytes).reduce((sum, part) => sum + part, 0);
    return [
      ["health", "ready", `for ${duration(stats.uptime_s)}`],
      ["images", count(stats.searchable), "can be found"],
      ["added", count(stats.pending), "since the last build"],
      ["removed", count(stats.removed), "since the last build"],
      ["rebuild", stats.rebuild_advice ? "would pay" : "not needed", stats.rebuild_advice?.reason ?? "indexes are up to date enough"],
      ["generation", String(stats.generation), `of ${stats.generations.join(", ")}`],
      ["disk", bytes(onDisk), `${bytes(stats.free_bytes)} are free`],
      ["memory", stats.resident_bytes ? bytes(stats.resident_bytes) : "–", "of the service"],
      ["jobs", count(stats.jobs.length), "are running"],
      ["searches", count(did.searches), `${rate(did.searches)} a second now`],
      ["search time", within(did, 0.5), `half of them; ${within(did, 0.95)} for 95 %`],
      ["batches", did.batch.toFixed(1), "searches together, on average"],
      ["waiting", count(did.waiting), "searches in progress"],
      ["refused", count(did.refused), "requests: key, rights or load"],
      ["failures", count(did.failures), "answers with a fault of the service"],
    ];
  } catch (reason) {
    return [["health", "not ready", reason.message]];
  }
}
