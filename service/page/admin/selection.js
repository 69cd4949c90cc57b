// Several images of the gallery at once: selected one by one or in a row, and removed together.

import { button, h, plain } from "../dom.js";
import { plural } from "../format.js";
import { Removals } from "./removals.js";

/** Select among `cards`; `reload` lists the gallery again, `finished(words, reason)` is called after a removal. */
export function startSelection(place, { cards, reload, finished }) {
  const selected = new Set();
  const boxes = new Map(); // checkboxes by id
  let last = null; // selected or not, from which a row begins
  const bar = h("div", { class: "pending panel", hidden: true, id: "selection" });
  const leaving = h("div", { class: "pending panel", hidden: true, id: "leaving" });
  place.before(bar, leaving);
  const removals = new Removals(leaving, { removed: () => {}, finished });

  /** The checkbox of an image. */
  function box(image) {
    const check = h("input", { type: "checkbox", checked: selected.has(image.id), "aria-label": `Select ${image.id}` });
    boxes.set(image.id, check);
    check.addEventListener("click", (event) => {
      const ids = [...cards.cards.keys()];
      const [from, to] = event.shiftKey && last !== null ? [ids.indexOf(last), ids.indexOf(image.id)].sort((a, b) => a - b) : [-1, -1];
      for (const id of from < 0 ? [image.id] : ids.slice(from, to + 1)) set(id, check.checked);
      last = image.id;
      tell();
    });
    return h("label", { class: "select", title: "Select; with Shift all up to here" }, check);
  }

  function set(id, on) {
    if (on) selected.add(id);
    else selected.delete(id);
    if (boxes.has(id)) boxes.get(id).checked = on;
  }

  function clear() {
    for (const id of [...selected]) set(id, false);
    last = null;
    tell();
  }

  function tell() {
    bar.hidden = selected.size === 0;
    if (bar.hidden) {
      bar.replaceChildren();
      return;
    }
    const said = `${plural(selected.size, "image")} selected.`;
    if (bar.firstChild) {
      bar.firstChild.textContent = said;
      return;
    }
    bar.append(h("p", { role: "status" }, said), h("div", { class: "inline" }, button("Remove them", remove),
      plain("Select all shown", () => {
        for (const id of cards.cards.keys()) set(id, true);
        tell();
      }), plain("Select none", clear)));
  }

  function remove() {
    const ids = [...selected];
    clear();
    for (const id of ids) cards.drop(id);
    removals.add({}, ids, reload);
    leaving.querySelector(".undo-all").focus();
  }

  return {
    box,
    clear,
    /** Whether an image is to be removed and no longer shown. */
    hides: (id) => removals.ids.includes(id),
    /** The view is left: what is to be removed is removed now. */
    leave: () => (removals.pending.size ? removals.remove() : null),
    /** The key is gone: nothing is removed. */
    forget() {
      clear();
      removals.undoAll();
    },
  };
}
