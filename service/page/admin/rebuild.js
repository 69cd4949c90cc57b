// A rebuild: begun, watched stage by stage, cancelled.

import { call } from "../api.js";
import { h, panel, plain } from "../dom.js";
import { count } from "../format.js";
import { state } from "../state.js";

const EVERY_MS = 400;
const STAGES = { open: "Opening the gallery", "take in": "Taking images in", encode: "Encoding images", assemble: "Collecting codes", index: "Building and measuring indexes", measure: "Measuring plans" };

/** Build the panel in `place`; `changed` is called when a rebuild is done. */
export function startRebuild(place, changed) {
  const lengths = h("input", { id: "rebuild-lengths", autocomplete: "off", pattern: "[0-9, ]*" });
  const begin = h("button", { type: "submit" }, "Rebuild");
  const cancel = plain("Cancel", async () => {
    try {
      tell(await call(`/v1/admin/jobs/${watched}/cancel`, { method: "POST" }));
    } catch (reason) {
      status.textContent = reason.message;
    }
  }, { hidden: true });
  const bar = h("progress", { max: 1, hidden: true, ariaLabel: "Progress of this stage" });
  const status = h("p", { id: "rebuild-status", role: "status" });
  const form = h("form", { class: "inline" }, h("label", { htmlFor: "rebuild-lengths" }, "Lengths:"), lengths, begin, cancel);
  place.append(panel("rebuild", "Rebuild",
    h("p", { class: "quiet" }, "Takes what was added and removed since into new indexes. Searches go on meanwhile."), form, bar, status));
  let watched = null;
  let timer;

  function show() {
    if (document.activeElement !== lengths) lengths.value = state.gallery?.lengths.map((entry) => entry.length).join(", ") ?? "";
  }

  function tell(job) {
    const over = job.finished !== null && job.finished !== undefined;
    bar.hidden = cancel.hidden = over;
    begin.disabled = !over;
    cancel.disabled = job.state === "cancelling";
    bar.max = job.total || 1;
    if (job.total) bar.value = job.done;
    else bar.removeAttribute("value");
    if (!over) status.textContent = job.state === "cancelling" ? "Cancelling …" : `${STAGES[job.stage] ?? "Waiting"}${job.total ? `: ${count(job.done)} of ${count(job.total)}` : " …"}`;
    else if (job.state === "done") status.textContent = `Done: generation ${job.generation} is served.`;
    else status.textContent = job.state === "cancelled" ? "Cancelled. The gallery is as it was." : `Failed: ${job.error ?? "the service's log has the reason"}`;
    return over;
  }

  /** Show the progress of a job that was just started. */
  function follow(job) {
    tell(job);
    watch(job.id);
  }

  async function watch(id) {
    watched = id;
    try {
      if (tell(await call(`/v1/admin/jobs/${id}`))) {
        watched = null;
        changed();
        return;
      }
    } catch (reason) {
      status.textContent = reason.message;
    }
    timer = setTimeout(watch, EVERY_MS, id);
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const wanted = lengths.value.split(",").map((part) => part.trim()).filter(Boolean).map(Number);
    try {
      begin.disabled = true;
      follow(await call("/v1/admin/rebuild", { method: "POST", json: wanted.length ? { lengths: wanted } : {} }));
    } catch (reason) {
      begin.disabled = false;
      status.textContent = reason.message;
    }
  });
  show();
  call("/v1/admin/jobs").then((jobs) => {
    const running = jobs.find((job) => !job.finished);
    if (running) watch(running.id);
  }, () => {});
  return { show, follow, stop: () => clearTimeout(timer) };
}
