// Keys that work everywhere but in fields, and the list of them under "?".

import { button, find, h } from "./dom.js";

const VIEWS = ["search", "compare", "map", "eigenfunctions", "gallery", "duplicates"];
const LIST = [["o", "choose a photograph"], ["[ and ]", "fewer and more numbers"], ["c", "search for a part of the picture"], ["+ and −", "on a result: more like it, less like it"], ["1 to 6", "the views, from Search to Duplicates"], ["t", "light, dark, or as the system has it"], ["arrows, + and −, 0", "on the map: move, come closer and go back, everything"], ["?", "this list"]];

/** Listen; `go(view)` shows a view. */
export function startShortcuts(go) {
  const keys = { o: () => find("file").click(), c: () => find("crop").click(), t: () => find("theme").click(), "?": open, "[": () => step(-1), "]": () => step(1) };
  for (const [place, view] of VIEWS.entries()) keys[place + 1] = () => go(view);
  document.addEventListener("keydown", (event) => {
    const inField = event.target.closest?.("input:not([type=range]), select, textarea, dialog");
    const work = inField || event.ctrlKey || event.metaKey || event.altKey ? null : keys[event.key];
    if (!work) return;
    event.preventDefault();
    work();
  });
  find("help").addEventListener("click", open);
}

function step(by) {
  const slider = find("length");
  slider.value = String(Number(slider.value) + by);
  slider.dispatchEvent(new Event("input"));
}

function open() {
  const dialog = h("dialog", { "aria-label": "Keyboard shortcuts" }, h("h2", {}, "Keyboard shortcuts"),
    h("dl", { class: "known keys" }, LIST.map(([key, does]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, does)])), button("Close", () => dialog.close(), { autofocus: true }));
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
