// What is searched for: dropped, pasted, chosen, taken from samples or from the results.

import { call, imagePath } from "./api.js";
import { labelOf } from "./cards.js";
import { openCropper } from "./crop.js";
import { find, h } from "./dom.js";
import { DRAGGED, photographs, showExamples } from "./examples.js";
import { nameOf } from "./format.js";
import { show, thumbnail } from "./pictures.js";
import { change, listen, state } from "./state.js";

const SAMPLES = 12;
let seed = 0;

/** Search from an image of the gallery. */
export function searchFrom(image, { step = true } = {}) {
  change({ query: { id: image.id, name: nameOf(image), label: labelOf(image), picture: image.thumbnail } }, { step });
  scrollTo({ top: 0 });
}

function take(given) {
  const files = [...(given ?? [])];
  if (files.length) change({ query: photographs(files) }, { step: true });
  return files.length > 0;
}

/** Take what is dropped or pasted: photographs, a card of this page, or a link, of which it is said why it is not followed. */
function receive(transfer) {
  const card = transfer?.getData(DRAGGED);
  if (card) searchFrom(JSON.parse(card));
  else if (!take(transfer?.files)) takeLink(transfer?.getData("text/uri-list") || transfer?.getData("text/plain") || "");
}

function takeLink(text) {
  const link = text.trim().split(/\s/)[0] ?? "";
  if (!/^https?:/i.test(link)) return false;
  const [, own] = link.startsWith(new URL(".", document.baseURI).href) ? link.match(/\/v1\/images\/([^?#]+)\/(?:thumbnail|content)/) ?? [] : [];
  if (own) change({ query: { id: decodeURIComponent(own) } }, { step: true });
  else find("hint").textContent = "That is a link. The service fetches nothing from other addresses, so that nobody can send it into networks that only it can reach. Save the picture and drop the file, or copy the picture itself and paste it.";
  return true;
}

/** Fetch some images to begin with. Returns them. */
export async function loadSamples() {
  const { images } = await call(`/v1/images?limit=${SAMPLES}&sample=${seed}`);
  find("samples").replaceChildren(...images.map((image) => {
    const button = h("button", { type: "button", title: `Search for images like ${image.id}` }, thumbnail(image.thumbnail, nameOf(image)));
    button.addEventListener("click", () => searchFrom(image));
    return h("li", {}, button);
  }));
  return images;
}

/** Tell what can be done next; of a file that was searched for but that no browser shows, that. */
export function tellHint() {
  const hidden = state.query?.unshown && find("error").hidden; // an error says more
  find("hint").textContent = hidden ? "The browser cannot show this file" : state.query ? "Drop or paste another photograph" : "Drop or paste a photograph here";
}

async function tell() {
  const query = state.query;
  const [picture, asked] = [find("query"), find("asked")];
  tellHint();
  picture.hidden = !query?.picture;
  find("asked-label").textContent = query?.label ?? "";
  find("crop").hidden = !query?.picture || query.positive !== undefined || state.gallery?.input === "features";
  showExamples();
  if (!query) return;
  if (query.positive) await Promise.all([...query.positive, ...query.negative].filter((one) => one.id && !one.picture).map(describe)).then(() => { if (query === state.query) showExamples(); });
  if (query.id && !query.picture) await describe(query);
  if (query !== state.query) return;
  find("asked-label").textContent = query.label ?? "";
  asked.textContent = query.name ?? "A photograph, known by its code from a link";
  picture.hidden = !query.picture;
  if (!query.picture) return;
  picture.alt = `You search for: ${query.name}`;
  show(picture, query.picture);
}

/** Look up the picture and the name of an image that only its id is known of. */
async function describe(query) {
  try {
    const image = await call(imagePath(query.id));
    Object.assign(query, { name: nameOf(image), label: labelOf(image), picture: image.thumbnail });
  } catch {
    query.name = query.id; // the search itself says what is wrong
  }
}

/** Take photographs from everywhere on the page, unless `elsewhere(event)` says that they are meant for another part. */
export function startQuery(elsewhere) {
  const [drop, file] = [find("drop"), find("file")];
  file.addEventListener("change", () => {
    take(file.files);
    file.value = "";
  });
  find("others").addEventListener("click", () => {
    seed += 1;
    loadSamples().catch(() => {});
  });
  find("query").addEventListener("error", () => {
    find("query").hidden = find("crop").hidden = true;
    if (state.query) state.query.unshown = true;
    tellHint();
  });
  find("camera").addEventListener("change", () => {
    take(find("camera").files);
    find("camera").value = "";
  });
  const crop = () => { if (!find("crop").hidden) openCropper(state.query, (part) => change({ query: part }, { step: true })); };
  find("crop").addEventListener("click", crop);
  find("query").addEventListener("click", crop);
  document.addEventListener("paste", (event) => {
    if (elsewhere() || event.target.closest?.("input:not([type=range], [type=checkbox]), textarea")) return;
    receive(event.clipboardData);
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.toggle("over", !elsewhere());
  });
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (!elsewhere()) receive(event.dataTransfer);
  });
  listen((changed) => { if (changed.has("query") || changed.has("gallery")) tell(); });
}
