// All that the gallery knows of one image, and the image itself in full, in a dialog.

import { nameOf } from "./cards.js";
import { h } from "./dom.js";
import { count, signed } from "./format.js";
import { show } from "./pictures.js";

/** A small button on a card that opens the details of its image. */
export function detailsButton(image) {
  const button = h("button", { type: "button", class: "about-card", "aria-label": `About ${image.id}`, title: "About this image" }, "⋯");
  button.addEventListener("click", () => open(image));
  return button;
}

function open(image) {
  const picture = h("img", { alt: nameOf(image), class: "whole" });
  show(picture, image.content);
  const close = h("button", { type: "button", autofocus: true }, "Close");
  const known = [["name", image.id], ["size", `${count(image.width)} × ${count(image.height)} pixels`], ["type", image.media_type], ...(image.score === undefined ? [] : [["score", signed(image.score, 4)]]), ...Object.entries(image.metadata ?? {})];
  const dialog = h("dialog", { "aria-label": `About ${image.id}` }, picture,
    h("dl", { class: "known" }, known.map(([name, value]) => [h("dt", {}, name), h("dd", {}, typeof value === "object" ? JSON.stringify(value) : String(value))])), close);
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
