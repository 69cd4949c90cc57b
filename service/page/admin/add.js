// Adding images by drop: one after the other, with progress, and what became of each.

import { call } from "../api.js";
import { h } from "../dom.js";
import { plural } from "../format.js";

/** Build the panel in `place`; `changed` is called when images were added. */
export function startAdding(place, changed) {
  const file = h("input", { id: "add-files", class: "unseen", type: "file", accept: "image/*,.heic,.heif,.hif,.avif,.jp2", multiple: true });
  const folder = h("input", { id: "add-folder", autocomplete: "off", placeholder: "none" });
  const label = h("input", { id: "add-label", autocomplete: "off", placeholder: "none" });
  const zone = h("div", { class: "drop low", id: "add-drop" }, h("p", { class: "quiet" }, "Drop images here, or"), h("label", { class: "button", htmlFor: "add-files" }, "choose some"), file);
  const bar = h("progress", { max: 1, value: 0, hidden: true, ariaLabel: "Images sent" });
  const status = h("p", { role: "status", id: "add-status" });
  const list = h("ul", { class: "outcomes", id: "add-outcomes", "aria-label": "What became of each image" });
  place.append(h("section", { class: "panel", "aria-labelledby": "add-title" }, h("h2", { id: "add-title" }, "Add images"), zone,
    h("div", { class: "fields" }, h("label", { class: "choice" }, "Folder: ", folder), h("label", { class: "choice" }, "Label: ", label)), bar, status, list));

  const waiting = [];
  let [sent, all, busy] = [0, 0, false];
  const counted = {};
  const skipped = {}; // by kind: videos, raw files and the like, as the commands count them

  function take(files) {
    waiting.push(...files);
    all += files.length;
    if (!busy) work();
  }

  async function work() {
    busy = true;
    bar.hidden = false;
    while (waiting.length) {
      tell();
      const given = waiting.shift();
      const [outcome, reason, kind] = await send(given);
      const counts = outcome === "skipped" ? skipped : counted;
      counts[kind ?? outcome] = (counts[kind ?? outcome] ?? 0) + 1;
      sent += 1;
      list.prepend(h("li", { class: outcome }, h("b", {}, outcome), h("span", {}, given.name), reason ? h("span", { class: "bad" }, reason) : null));
    }
    tell();
    [busy, bar.hidden, sent, all] = [false, true, 0, 0];
    changed();
  }

  function tell() {
    [bar.max, bar.value] = [all, sent];
    const listed = (counts) => Object.entries(counts).map(([name, n]) => `${n} ${name}`).join(", ");
    const outcomes = [listed(counted), Object.keys(skipped).length ? `skipped: ${listed(skipped)}` : ""].filter(Boolean).join(", ");
    status.textContent = waiting.length ? `Sending ${sent + 1} of ${plural(all, "image")} …` : `Finished: ${outcomes}.`;
  }

  async function send(given) {
    const form = new FormData();
    form.set("image", given);
    if (label.value) form.set("metadata", JSON.stringify({ label: label.value }));
    form.set("id", [...folder.value.split("/").filter(Boolean), given.name].join("/"));
    try {
      const { images: [image], failed: [failed] } = await call("/v1/images", { method: "POST", body: form });
      if (failed) return [failed.kind ? "skipped" : "failed", failed.reason, failed.kind];
      return [image.status, image.note ?? ""];
    } catch (reason) {
      return ["failed", reason.message];
    }
  }

  file.addEventListener("change", () => {
    take([...file.files]);
    file.value = "";
  });
  const over = () => zone.classList.add("over");
  const out = () => zone.classList.remove("over");
  const drop = (event) => {
    event.preventDefault();
    out();
    take([...event.dataTransfer.files]);
  };
  zone.addEventListener("dragover", over);
  zone.addEventListener("dragleave", out);
  zone.addEventListener("drop", drop);
  return { stop() {} };
}
