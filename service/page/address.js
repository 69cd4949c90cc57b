// The address holds what is looked at, so that it can be shared, kept and gone back to. A photograph itself is not in
// it, only its code; nothing of it is sent to the server, since it stands behind the #.

const VIEWS = ["search", "compare", "map", "eigenfunctions", "gallery", "duplicates"];
// What belongs to each view; the rest of the state is left out of its address.
const PARTS = { search: ["length", "target", "rerank"], compare: ["a", "b", "c", "d"], map: ["axes", "colour", "box"], eigenfunctions: ["length", "coordinate"], gallery: [], duplicates: [] };

let known = location.hash; // as it was last read or written

/** {view, id, code, encoder, length, rerank, target, filter, a, b, c, d, coordinate} of the present address. */
export function read() {
  known = location.hash;
  const [path, query = ""] = location.hash.slice(1).split("?", 2);
  const given = new URLSearchParams(query);
  const state = { view: VIEWS.includes(path) ? path : "search" };
  for (const name of ["id", "encoder", "target", "axes", "colour", "box", "like", "unlike"]) if (given.has(name)) state[name] = given.get(name);
  for (const name of ["length", "a", "b", "c", "d"]) if (given.has(name)) state[name] = given.get(name) === "auto" ? "auto" : Number(given.get(name));
  if (given.has("coordinate")) state.coordinate = Number(given.get("coordinate"));
  if (PARTS[state.view].includes("rerank")) state.rerank = given.get("rerank") === "full";
  try {
    if (given.has("filter")) state.filter = JSON.parse(given.get("filter"));
    if (given.has("code")) state.code = unpack(given.get("code"));
  } catch {
    // a link that was cut short: what can be read of it counts
  }
  return state;
}

/** Note what is looked at; as a step that "back" undoes if `step`. */
export function write(state, { step = false } = {}) {
  const query = new URLSearchParams();
  const given = { ...state, code: state.code ? pack(state.code) : undefined };
  given.rerank = state.rerank ? "full" : undefined;
  if (state.length !== "auto") given.target = undefined;
  for (const name of ["id", "like", "unlike", ...PARTS[state.view]]) if (given[name] !== undefined && given[name] !== null && given[name] !== "") query.set(name, given[name]);
  if (state.filter && Object.keys(state.filter).length) query.set("filter", JSON.stringify(state.filter));
  if (given.code || given.like) query.set("encoder", state.encoder);
  if (given.code) {
    query.set("code", given.code);
  }
  const address = `#${state.view}?${query}`;
  if (address === location.hash || location.hash !== known) return; // the person has gone elsewhere: that is read next
  try {
    history[step ? "pushState" : "replaceState"](null, "", address);
    known = location.hash;
  } catch {
    // some browsers take so many changes a minute and no more; the next one is noted
  }
}

/** Numbers as text that an address can hold: float32, base64url. */
export function pack(code) {
  const raw = new Uint8Array(new Float32Array(code).buffer);
  return btoa(Array.from(raw, (byte) => String.fromCharCode(byte)).join("")).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

export function unpack(text) {
  const raw = Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (letter) => letter.charCodeAt(0));
  const code = Array.from(new Float32Array(raw.buffer));
  if (!code.length || !code.every(Number.isFinite)) throw new Error("no code");
  return code;
}
