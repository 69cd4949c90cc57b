// The page: which view is shown, what the gallery is, and the service's coming and going.

import { call, events, hasKey, useKey } from "./api.js";
import { find } from "./dom.js";
import { plural } from "./format.js";
import { lock } from "./pictures.js";
import { startShortcuts } from "./shortcuts.js";
import { startTerms } from "./terms.js";
import { startTheme } from "./theme.js";
import { loadSamples, searchFrom, startQuery, tellHint } from "./query.js";
import { change, listen, recall, state } from "./state.js";
import { startCompare } from "./views/compare.js";
import { startDuplicates } from "./views/duplicates.js";
import { startEigenfunctions } from "./views/eigenfunctions.js";
import { startGallery } from "./views/gallery.js";
import { startMap } from "./views/map.js";
import { startSearch } from "./views/search.js";

const TITLES = { search: "Search", compare: "Compare lengths", map: "Map", eigenfunctions: "Eigenfunctions", gallery: "Gallery", duplicates: "Duplicates" };

function trouble(message) {
  const error = find("error");
  if (error.textContent !== message) error.textContent = message;
  error.hidden = message === "";
  tellHint();
}

const views = { search: startSearch(trouble), compare: startCompare(trouble), map: startMap(trouble), eigenfunctions: startEigenfunctions(trouble), gallery: startGallery(trouble), duplicates: startDuplicates(trouble) };

listen((changed) => {
  if (changed.has("view") || changed.has("query")) trouble("");
  if (changed.has("view")) {
    document.title = `${TITLES[state.view]} – Eigenlens`;
    find("title").textContent = TITLES[state.view];
    for (const section of document.querySelectorAll("main > [data-view]")) section.hidden = section.dataset.view !== state.view;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.view === state.view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    for (const part of document.querySelectorAll("[data-for]")) part.hidden = !part.dataset.for.split(" ").includes(state.view);
    const wide = ["gallery", "map", "duplicates"].includes(state.view);
    find("ask").hidden = wide;
    find("frame").classList.toggle("wide", wide);
  }
  if (changed.has("gallery") && state.gallery) {
    const { count: images, code_length, generation, pending } = state.gallery;
    find("facts").textContent = plural(images, "image");
    find("about-gallery").textContent = `${plural(images, "image")} with codes of ${plural(code_length, "number")}; build ${generation} of the gallery${pending ? ` and ${pending} added since` : ""}.`;
  }
});

for (const link of document.querySelectorAll("a[data-view], .brand")) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    change({ view: link.dataset.view ?? "search" }, { step: true });
    scrollTo({ top: 0 });
  });
}
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  find("main").focus();
});
addEventListener("popstate", recall);
addEventListener("hashchange", recall);

events.addEventListener("lost", () => { find("lost").hidden = false; });
events.addEventListener("back", async () => {
  find("lost").hidden = true;
  trouble("");
  if (await load()) views[state.view].again();
});
events.addEventListener("busy", (event) => { find("status").textContent = `The service is busy. Trying again in ${event.detail} s …`; });
events.addEventListener("locked", (event) => {
  if (/^\/v1\/(admin|session)/.test(event.detail.path)) return;
  lock();
  if (state.view === "gallery") return; // it asks for a key itself
  find("locked").hidden = false;
  find("unlock-error").textContent = find("unlock-key").value ? "This key is not accepted." : "";
});
events.addEventListener("key", () => { if (hasKey() && state.gallery === null) load(); });
find("unlock").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    useKey(find("unlock-key").value);
  } catch (reason) {
    find("unlock-error").textContent = reason.message;
    return;
  }
  if (!(await load())) return;
  views[state.view].again();
  find("unlock-key").value = "";
  find("locked").hidden = true;
  trouble("");
});

/** Where the address is the administrator's link, use it: a key for its token. Returns whether it was one. */
async function enterByLink() {
  const token = new URLSearchParams(location.hash.slice(1)).get("admin");
  if (!token) return false;
  history.replaceState(null, "", "#gallery");
  recall();
  try {
    useKey((await call("/v1/session", { method: "POST", json: { token } })).key);
    lock(); // pictures may need the key too
  } catch (reason) {
    find("key-error").textContent = reason.message;
    return true;
  }
  await views.gallery.signIn();
  return true;
}

/** Read what the gallery is; begin with a sample where nothing is searched for. Returns whether that worked. */
async function load() {
  try {
    const first = state.gallery === null;
    state.gallery = await call("/v1/lengths");
    if (first) recall();
    change({ gallery: state.gallery });
    const samples = await loadSamples();
    if (!state.query && samples.length) searchFrom(samples[0], { step: false });
    return true;
  } catch (reason) {
    if (reason.status !== 0) trouble(reason.message);
    return false;
  }
}

startTheme();
startTerms(document);
startShortcuts((view) => change({ view }, { step: true }));
startQuery(() => state.view === "gallery" || state.view === "duplicates");
if (!(await enterByLink())) recall();
load();
