// Adding images and folders by drop: one after the other, with progress by byte, and what became of each.

import { call } from "../api.js";
import { h, panel } from "../dom.js";
import { bytes, plural } from "../format.js";
import { chosenFiles, droppedFiles, idOf } from "./dropped.js";

const choice = (text, input) => h("span", { class: "choose" }, h("label", { class: "button", htmlFor: input.id }, text), input);

/** Build the panel in `place`; `changed` is called when images were added. */
export function startAdding(place, changed) {
  const file = h("input", { id: "add-files", class: "unseen", type: "file", accept: "image/*,.heic,.heif,.hif,.avif,.jp2", multiple: true });
  const files = h("input", { id: "add-directory", class: "unseen", type: "file", webkitdirectory: true });
  const folder = h("input", { id: "add-folder", autocomplete: "off", placeholder: "none" });
  const label = h("input", { id: "add-label", autocomplete: "off", placeholder: "none" });
  const zone = h("div", { class: "drop low", id: "add-drop" }, h("p", { class: "quiet" }, "Drop images or folders here, or"), choice("choose some", file), choice("choose a folder", files));
  const bar = h("progress", { max: 1, value: 0, hidden: true, ariaLabel: "Images sent" });
  const status = h("p", { role: "status", id: "add-status" });
  const list = h("ul", { class: "outcomes", id: "add-outcomes", "aria-label": "What became of each image" });
  place.append(panel("add", "Add images", zone,
    h("div", { class: "fields" }, h("label", { class: "choice" }, "Folder: ", folder), h("label", { class: "choice" }, "Label: ", label)), bar, status, list));

  const waiting = [];
  let [sent, all, busy] = [0, 0, false];
  let [sentBytes, allBytes] = [0, 0];
  const counted = {};
  const skipped = {}; // by kind: videos, raw files and the like, as the commands count them

  function take(files) {
    waiting.push(...files);
    all += files.length;
    for (const { file } of files) allBytes += file?.size ?? 0;
    if (files.length && !busy) work();
  }

  async function work() {
    busy = true;
    bar.hidden = false;
    while (waiting.length) {
      tell();
      const given = waiting.shift();
      const [outcome, reason, kind] = await send(given);
      sentBytes += given.file?.size ?? 0;
      const counts = outcome === "skipped" ? skipped : counted;
      counts[kind ?? outcome] = (counts[kind ?? outcome] ?? 0) + 1;
      sent += 1;
      list.prepend(h("li", { class: outcome }, h("b", {}, outcome), h("span", {}, given.path), reason ? h("span", { class: "bad" }, reason) : null));
    }
    busy = false;
    tell();
    [bar.hidden, sent, all, sentBytes, allBytes] = [true, 0, 0, 0, 0];
    changed();
  }

  function tell(loaded = 0) {
    [bar.max, bar.value] = [allBytes, sentBytes + loaded];
    const listed = (counts) => Object.entries(counts).map(([name, n]) => `${n} ${name}`).join(", ");
    const outcomes = [listed(counted), Object.keys(skipped).length ? `skipped: ${listed(skipped)}` : ""].filter(Boolean).join(", ");
    status.textContent = busy ? `Sending ${sent + 1} of ${plural(all, "file")}: ${bytes(bar.value)} of ${bytes(allBytes)} …` : `Finished: ${outcomes}.`;
  }

  async function send({ file, path }) {
    if (!file) return ["failed", "The file cannot be read."];
    const form = new FormData();
    form.set("image", file);
    const top = path.includes("/") ? path.slice(0, path.indexOf("/")) : "";
    if (label.value || top) form.set("metadata", JSON.stringify({ label: label.value || top }));
    form.set("id", [...folder.value.split("/").filter(Boolean), idOf(path)].join("/"));
    const onSent = (loaded) => tell(Math.min(loaded, file.size));
    try {
      const { images: [image], failed: [failed] } = await call("/v1/images", { method: "POST", body: form, onSent });
      if (failed) return [failed.kind ? "skipped" : "failed", failed.reason, failed.kind];
      return [image.status, image.note ?? ""];
    } catch (reason) {
      return ["failed", reason.message];
    }
  }

  for (const input of [file, files])
    input.addEventListener("change", () => {
      take(chosenFiles(input.files));
      input.value = "";
    });
  zone.addEventListener("dragover", () => zone.classList.add("over"));
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", async (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    take(await droppedFiles(event.dataTransfer));
  });
}
