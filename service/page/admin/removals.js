// Images that are to be removed: at once, or when the view is left; until then they can be brought back.

import { call, imagePath } from "../api.js";
import { button, h, plain } from "../dom.js";
import { plural } from "../format.js";
import { change, state } from "../state.js";

/**
 * Removals that are told in `place`. Each has an owner, such as the element of a group; `removed(owner)` is called when
 * its images are gone, `finished(words, reason)` at the end, with what went wrong or null.
 */
export class Removals {
  constructor(place, { removed, finished }) {
    Object.assign(this, { place, removed, finished, pending: new Map() });
    addEventListener("beforeunload", (event) => { if (this.pending.size) event.preventDefault(); });
  }

  get ids() {
    return [...this.pending.values()].flatMap(({ ids }) => ids);
  }

  /** Remove these later; `undone` brings them back where they are shown. */
  add(owner, ids, undone) {
    this.pending.set(owner, { ids, undone });
    this.tell();
  }

  undo(owner) {
    const { undone } = this.pending.get(owner);
    this.pending.delete(owner);
    this.tell();
    undone();
  }

  undoAll() {
    for (const owner of [...this.pending.keys()]) this.undo(owner);
  }

  tell() {
    const { ids } = this;
    this.place.hidden = ids.length === 0;
    this.place.replaceChildren(...(ids.length ? [h("p", { role: "status" }, `${plural(ids.length, "image")} will be removed when you leave this view. If you close the page before, nothing is removed.`),
      h("div", { class: "inline" }, button("Remove now", () => this.remove()), plain("Undo all", () => this.undoAll(), { class: "plain undo-all" }))] : []));
  }

  /** Remove them all from the gallery. */
  async remove() {
    const leaving = [...this.pending];
    this.pending.clear();
    this.tell();
    let gone = 0;
    try {
      for (const [owner, { ids }] of leaving) {
        for (const id of ids) {
          await call(imagePath(id), { method: "DELETE" }).catch((reason) => { if (reason.status !== 404) throw reason; });
          gone += 1;
        }
        this.removed(owner);
      }
      this.finished(`${plural(gone, "image")} removed.`, null);
    } catch (reason) {
      this.finished(`${plural(gone, "image")} removed; the rest is still there: ${reason.message}`, reason);
    }
    if (gone) change({ gallery: await call("/v1/lengths").catch(() => state.gallery) });
  }
}
