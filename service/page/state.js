// What is looked at, in one place; whoever shows a part of it listens for changes.

import { pack, read, unpack, write } from "./address.js";
import { ofAddress, told } from "./examples.js";

/** query: null, or {id}, {file}, {code} or {positive, negative} of such with what is known: name, picture, code; gallery: GET /v1/lengths. */
export const state = {
  view: "search", query: null, length: "auto", rerank: false, target: "0.99", filter: {}, coordinate: 1, gallery: null,
  a: null, b: null, c: null, d: null, // the lengths that are compared, two at least
  axes: "1,2", colour: null, box: null, // of the map
};

const REMEMBERED = 20;
const photographs = []; // the last that were searched for: an address holds no picture, and "back" should show it
const listeners = [];
export const listen = (listener) => listeners.push(listener);

/** Change some of it; `step` makes "back" return to what was before. */
export function change(changes, { step = false } = {}) {
  Object.assign(state, changes);
  if ((changes.query?.file || changes.query?.positive) && !photographs.includes(changes.query)) photographs.unshift(changes.query);
  const gone = photographs.splice(REMEMBERED);
  const kept = new Set([state.query, ...photographs].flatMap(pictures));
  for (const picture of gone.flatMap(pictures)) if (!kept.has(picture) && picture.startsWith("blob:")) URL.revokeObjectURL(picture);
  remember(step);
  for (const listener of listeners) listener(new Set(Object.keys(changes)));
}

/** Note the present state in the address. */
export function remember(step = false) {
  const { query, gallery, used, ...rest } = state;
  if (!gallery) return; // what the address says is understood only then
  const asked = query?.positive ? { like: told(query.positive, pack), unlike: told(query.negative, pack), encoder: gallery.encoder } : query?.id ? { id: query.id } : query?.code ? { code: query.code, encoder: gallery?.encoder } : {};
  write({ ...rest, ...asked }, { step });
}

/** Take over what the address says; of what it does not say, the present state stays. */
export function recall() {
  const { id, code, encoder, like, unlike, ...given } = read();
  if (!state.gallery) {
    change({ view: given.view }); // what the rest means is known only with the gallery's lengths
    return;
  }
  const lengths = state.gallery.lengths.map((entry) => entry.length);
  const built = (length, otherwise) => (lengths.includes(length) || length === "auto" ? length : otherwise);
  const full = state.gallery.code_length;
  const present = state.query;
  let query = present;
  if (like !== undefined) query = [present, ...photographs].find((one) => one?.positive && told(one.positive, pack) === like && told(one.negative, pack) === unlike) ?? readExamples(like, unlike, encoder) ?? present;
  else if (id !== undefined) query = present?.id === id ? present : { id };
  else if (code !== undefined) query = [present, ...photographs].find((one) => sameCode(one?.code, code)) ?? { code, encoder };
  change({
    view: given.view,
    query,
    length: built(given.length, state.length),
    rerank: given.rerank ?? state.rerank,
    target: given.target ?? state.target,
    filter: given.filter && typeof given.filter === "object" ? given.filter : {},
    a: built(given.a ?? state.a, lengths[Math.min(1, lengths.length - 1)] ?? "auto"),
    b: built(given.b ?? state.b, full),
    ...moreLengths(given, built),
    ...mapOf(given, Math.min(8, full)),
    coordinate: Math.min(full, Math.max(1, Math.round(given.coordinate || state.coordinate))),
  });
}

/** The addresses of a query's pictures. */
const pictures = (query) => [query, ...(query?.positive ?? []), ...(query?.negative ?? [])].map((one) => one?.picture).filter(Boolean);

function readExamples(like, unlike, encoder) {
  try {
    return ofAddress(like, unlike, encoder, unpack);
  } catch {
    return null; // a link that was cut short
  }
}

const sameCode = (one, other) => Array.isArray(one) && one.length === other.length && one.every((value, place) => Math.fround(value) === other[place]);

/** The third and the fourth length of a comparison: those of the address where it is one, and none where it has none. */
function moreLengths(given, built) {
  if (given.view !== "compare") return {};
  const [c = null, d = null] = [given.c, given.d].map((length) => built(length, null)).filter((length) => length !== null);
  return { c, d };
}

/** The map's axes, colour and box, as far as an address says them in a way that can be. */
function mapOf({ axes, colour, box }, available) {
  const numbers = (axes ?? "").split(",").map(Number);
  const arePossible = numbers.length === 2 && numbers[0] !== numbers[1] && numbers.every((axis) => Number.isInteger(axis) && axis >= 1 && axis <= available);
  const edges = (box ?? "").split(",").map(Number);
  return {
    axes: arePossible ? axes : state.axes,
    colour: colour === "none" || colour in state.gallery.filters ? colour : state.colour,
    box: edges.every(Number.isFinite) && (edges.length === 4 ? edges[0] < edges[1] && edges[2] < edges[3] : edges.length >= 6 && edges.length % 2 === 0) ? box : null, // edges, or corners of a shape
  };
}
