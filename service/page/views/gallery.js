// The gallery: its images; and with a key that is kept for this visit only, adding, deleting, rebuilding, looking after it.

import { startAdding } from "../admin/add.js";
import { startGenerations } from "../admin/generations.js";
import { startGlance } from "../admin/glance.js";
import { startRebuild } from "../admin/rebuild.js";
import { startRecall } from "../admin/recall.js";
import { startSelection } from "../admin/selection.js";
import { call, events, hasKey, imagePath, useKey } from "../api.js";
import { Cards } from "../cards.js";
import { find, h, plain, settled } from "../dom.js";
import { searchFrom } from "../query.js";
import { change, listen, state } from "../state.js";

const PAGE = 48;

/** Start; `trouble(message)` shows what went wrong, "" that it is over. */
export function startGallery(trouble) {
  let next = null;
  let listing = 0;
  let parts = [];
  const [prefix, contains, order] = [find("browse-prefix"), find("browse-contains"), find("browse-order")];
  const cards = new Cards(find("browse"), {
    chosen: (image) => {
      change({ view: "search" }, { step: true });
      searchFrom(image, { step: false });
    },
    more: async () => { if (next) await load(next); },
    actions: (image) => (hasKey() ? [h("div", { class: "card-actions" }, selection.box(image), deleter(image))] : []),
  });
  const selection = startSelection(find("browse"), {
    cards,
    reload: () => load(),
    finished(words, reason) {
      find("browse-status").textContent = words;
      if (reason) trouble(reason.message);
    },
  });

  async function load(after = null) {
    const query = new URLSearchParams({ limit: PAGE, prefix: prefix.value, contains: contains.value, order: order.value, ...(after ? { after } : {}) });
    const mine = after === null ? (listing += 1) : listing;
    try {
      const answer = await call(`/v1/images?${query}`);
      if (mine !== listing) return; // of what was asked for before
      next = answer.next ?? null;
      const images = answer.images.filter(({ id }) => !selection.hides(id));
      if (after) cards.append(images);
      else cards.show(images, { moving: false });
      find("browse-more").hidden = next === null;
      find("browse-status").textContent = cards.count ? "" : "There is no such image.";
      trouble("");
    } catch (reason) {
      trouble(reason.message);
    }
  }

  /** A button that deletes at the second click. */
  function deleter(image) {
    const button = h("button", { type: "button", class: "danger", "aria-label": `Delete ${image.id}` }, "Delete");
    const calm = () => {
      button.textContent = "Delete";
      delete button.dataset.sure;
    };
    button.addEventListener("blur", calm);
    button.addEventListener("click", async () => {
      if (!button.dataset.sure) {
        button.dataset.sure = "yes";
        button.textContent = "Really delete?";
        return;
      }
      button.disabled = true;
      try {
        await call(imagePath(image.id), { method: "DELETE" });
        cards.drop(image.id);
        find("browse-status").textContent = `${image.id} was deleted.`;
        prefix.focus();
        refresh();
      } catch (reason) {
        button.disabled = false;
        calm();
        find("browse-status").textContent = reason.message;
      }
    });
    return button;
  }

  /** Read again what the gallery is. */
  async function refresh() {
    try {
      change({ gallery: await call("/v1/lengths") });
    } catch {
      // the banner says that the service is gone
    }
  }

  let isAdmin = false; // by a key that was given elsewhere
  events.addEventListener("key", () => {
    cards.forget();
    isAdmin = false;
  });
  events.addEventListener("admin", () => { isAdmin = true; });
  const anew = () => {
    selection.clear(); // what is selected is what is seen
    load();
  };
  for (const field of [prefix, contains]) field.addEventListener("input", settled(anew, 200));
  order.addEventListener("change", anew);
  find("browse-more").addEventListener("click", () => load(next));
  new IntersectionObserver((entries) => { if (next && entries.some((entry) => entry.isIntersecting)) load(next); }, { rootMargin: "400px" }).observe(find("browse-more"));

  function signedOut(message = "") {
    const field = h("input", { id: "key", type: "password", autocomplete: "off", required: true });
    const form = h("form", { class: "inline" }, h("label", { htmlFor: "key" }, "Key:"), field, h("button", { type: "submit" }, "Use this key"), h("p", { class: "bad", id: "key-error", role: "alert" }, message));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      await signIn(field.value);
    });
    find("key-panel").replaceChildren(h("h2", {}, "Change the gallery"), h("p", { class: "quiet" }, "Adding, deleting and rebuilding need a key. The admin key is in the file admin.key of the gallery. The page keeps it until it is closed or loaded again, and nowhere else."), form);
    find("admin").replaceChildren();
    selection.forget();
    for (const part of parts) part.stop?.();
    parts = [];
  }

  /** Try a key, or the one that is in use already. */
  async function signIn(key = null) {
    try {
      if (key !== null) useKey(key);
      await call("/v1/admin/generations");
      signedIn(true);
    } catch (reason) {
      if (reason.status === 403) signedIn(false); // a key, but not for everything
      else {
        useKey("");
        signedOut(reason.status === 401 ? "This key is not accepted." : reason.message);
        find("key").focus();
        load(); // what was shown while the key was tried may have buttons that need one
      }
    }
  }

  function signedIn(whole) {
    const forget = plain("Forget the key", () => {
      useKey("");
      signedOut();
      load();
    });
    find("key-panel").replaceChildren(h("p", { class: "signed", role: "status" }, whole ? "The key is in use." : "The key is in use; it is not for administration.", forget));
    const place = find("admin");
    place.replaceChildren();
    const changed = () => {
      load();
      refresh();
    };
    if (whole) parts = administration(place, changed);
    else startAdding(place, changed);
    load();
  }

  function administration(place, changed) {
    const glance = startGlance(place, (stats) => recall.tell(stats));
    startAdding(place, changed);
    const rebuild = startRebuild(place, changed);
    const recall = startRecall(place, rebuild.follow);
    return [glance, rebuild, startGenerations(place, changed)];
  }

  signedOut();
  listen((changed) => {
    if (changed.has("view") && state.view === "gallery" && state.gallery) {
      if (isAdmin && parts.length === 0) signedIn(true);
      else load();
    }
    if (changed.has("view") && state.view !== "gallery") {
      selection.clear();
      selection.leave();
    }
    if (changed.has("gallery")) for (const part of parts) part.show?.();
  });
  return { again: () => load(), signIn };
}
