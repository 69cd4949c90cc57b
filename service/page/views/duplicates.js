// Duplicates: groups side by side, the best of each first; keep one and remove the others, or take that back.

import { Removals } from "../admin/removals.js";
import { call, events, hasKey, useKey } from "../api.js";
import { button, find, h, plain } from "../dom.js";
import { count, moment, nameOf, percent, plural } from "../format.js";
import { thumbnail } from "../pictures.js";
import { change, listen, state } from "../state.js";
import { openViewer } from "../viewer.js";

const PAGE = 12;
const EVERY_MS = 500;
const KINDS = [["all groups", ""], ["copies: the same file", "true"], ["nearly the same", "false"]];
const LIKENESS = [["nearly the same", "0.98"], ["only copies", "1"], ["looser: resized, mirrored, recoloured", "0.95"], ["much looser", "0.9"]];

/** Start; `trouble(message)` shows what went wrong, "" that it is over. */
export function startDuplicates(trouble) {
  const place = find("duplicates");
  const status = h("p", { id: "duplicates-status", role: "status", class: "words" });
  const kind = h("select", { id: "duplicates-kind" }, KINDS.map(([said, value]) => h("option", { value }, said)));
  const likeness = h("select", { id: "duplicates-cosine" }, LIKENESS.map(([said, value]) => h("option", { value }, said)));
  const key = h("input", { id: "duplicates-key", type: "password", autocomplete: "off", required: true });
  const keyForm = h("form", { class: "inline" }, h("label", { htmlFor: "duplicates-key" }, "Key, to look for duplicates and to remove them:"), key, h("button", { type: "submit" }, "Use this key"), h("span", { class: "bad", role: "alert", id: "duplicates-key-error" }));
  const look = button("Look for duplicates", () => search());
  const bar = h("progress", { max: 1, hidden: true, ariaLabel: "Images compared" });
  const lookRow = h("div", { class: "inline" }, h("label", { class: "choice" }, "What counts: ", likeness), look);
  const kindRow = h("label", { class: "choice", hidden: true }, "Show ", kind);
  const marked = h("div", { class: "marked panel", hidden: true });
  const list = h("ol", { id: "duplicate-groups", class: "groups" });
  const more = button("Show more", () => load(next), { hidden: true });
  place.append(h("div", { class: "panel" }, keyForm, lookRow, bar, status, kindRow), marked, list, h("p", { class: "more" }, more));

  let next = null;
  let timer = null;
  let run = 0;
  const removals = new Removals(marked, {
    removed: (item) => item.remove(),
    finished(words, reason) {
      status.textContent = words;
      if (reason) trouble(reason.message);
    },
  });

  kind.addEventListener("change", () => load());
  keyForm.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      useKey(key.value);
      await call("/v1/admin/generations").then(() => events.dispatchEvent(new Event("admin")), (reason) => { if (reason.status !== 403) throw reason; });
      key.value = "";
      find("duplicates-key-error").textContent = "";
      const focused = document.activeElement; // who moved on meanwhile is left there
      if (focused === document.body || keyForm.contains(focused)) likeness.focus();
    } catch (reason) {
      useKey("");
      find("duplicates-key-error").textContent = reason.status === 401 ? "This key is not accepted." : reason.message;
      key.focus();
    }
  });
  events.addEventListener("key", fit);

  function fit() {
    keyForm.hidden = hasKey();
    lookRow.hidden = !hasKey();
    for (const remover of list.querySelectorAll(".remove-others")) remover.hidden = !hasKey();
  }

  async function load(after = null) {
    const mine = (run += after === null ? 1 : 0);
    const query = new URLSearchParams({ limit: PAGE, ...(after === null ? {} : { after }), ...(kind.value ? { exact: kind.value } : {}) });
    try {
      const answer = await call(`/v1/duplicates?${query}`);
      if (mine !== run) return;
      if (after === null) list.replaceChildren();
      list.append(...answer.groups.map(group));
      next = answer.next;
      kindRow.hidden = answer.total === 0;
      more.hidden = next === null;
      // A page of many groups that are gone, or of another kind, can be empty: the next one is looked at.
      if (next !== null && answer.groups.length === 0) await load(next);
      else if (answer.found === null) status.textContent = "Nobody has looked for duplicates in this gallery yet.";
      else status.textContent = list.children.length ? `${plural(answer.total, "group")} found ${moment(answer.found)}: files that are the same${answer.cosine < 1 ? `, or pictures that are ${percent(answer.cosine)} alike or more` : ""}. The best of each group comes first.` : answer.total ? "No such group is left." : `No duplicates were found ${moment(answer.found)}.`;
      trouble("");
    } catch (reason) {
      trouble(reason.message);
    }
    fit();
  }

  /** One group: its images side by side, one of them chosen to be kept. */
  function group({ exact, images }) {
    const name = `keep-${images[0].id}`;
    const choices = images.map((image, place) => {
      const radio = h("input", { type: "radio", name, value: image.id, checked: place === 0 });
      const opener = button(thumbnail(image.thumbnail, ""), () => openViewer(images, place, { chosen: searchLike }), { class: "open-picture", ariaLabel: `Look at ${image.id}` });
      return h("li", {}, opener, h("label", {}, radio, h("span", { class: "keep" }, "Keep this one"), place === 0 ? h("b", { class: "best" }, "best") : null),
        h("span", { class: "name", title: image.id }, nameOf(image)), h("span", { class: "quiet" }, `${count(image.width)} × ${count(image.height)}${place ? ` · ${percent(Math.round(1000 * image.cosine) / 1000)} alike` : ""}`));
    });
    const remover = plain(`Remove the other ${images.length === 2 ? "one" : images.length - 1}`, remove, { class: "remove-others plain", hidden: !hasKey() });
    const both = h("ol", { class: "alike" }, choices);
    const title = h("h2", {}, `${plural(images.length, "image")}, ${exact ? "the same file" : `${percent(Math.min(...images.map((image) => image.cosine)))} alike at least`}`);
    const head = h("div", { class: "bar" }, title, remover);
    const item = h("li", { class: "panel" }, head, both);
    function remove() {
      const kept = item.querySelector("input:checked").value;
      const ids = images.map((image) => image.id).filter((id) => id !== kept);
      const undo = plain("Undo", () => removals.undo(item));
      const note = h("p", { class: "inline" }, `${plural(ids.length, "image")} beside ${kept} will be removed.`, undo);
      both.hidden = head.hidden = true;
      item.append(note);
      removals.add(item, ids, () => {
        note.remove();
        both.hidden = head.hidden = false;
        remover.focus();
      });
      undo.focus();
    }
    return item;
  }

  const searchLike = (image) => {
    change({ view: "search", query: { id: image.id, name: nameOf(image), picture: image.thumbnail } }, { step: true });
    scrollTo({ top: 0 });
  };

  async function search() {
    look.disabled = true;
    try {
      watch(await call("/v1/admin/duplicates", { method: "POST", json: { cosine: Number(likeness.value) } }));
    } catch (reason) {
      look.disabled = false;
      status.textContent = reason.status === 403 ? "This key may not look for duplicates; that takes the admin key." : reason.message;
    }
  }

  async function watch(job) {
    const over = job.finished !== null && job.finished !== undefined;
    bar.hidden = over;
    look.disabled = !over;
    bar.max = job.total || 1;
    if (job.total) bar.value = job.done;
    else bar.removeAttribute("value");
    if (!over) {
      status.textContent = job.total ? `Comparing: ${count(job.done)} of ${count(job.total)}` : "Comparing …";
      timer = setTimeout(async () => watch(await call(`/v1/admin/jobs/${job.id}`).catch(() => job)), EVERY_MS);
    } else if (job.state === "done") load();
    else status.textContent = `It did not end well: ${job.error ?? job.state}`;
  }

  listen((changed) => {
    if (!changed.has("view") && !changed.has("gallery")) return;
    if (state.view === "duplicates") {
      if (state.gallery && list.children.length === 0 && !timer) load();
    } else if (removals.pending.size) removals.remove();
    if (state.view !== "duplicates") {
      clearTimeout(timer);
      timer = null;
      if (changed.has("view")) list.replaceChildren();
      look.disabled = false;
      bar.hidden = true;
    }
  });
  fit();
  return { again: () => load() };
}
