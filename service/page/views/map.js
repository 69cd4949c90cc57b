// The map: all images of the gallery at the place that two numbers of their codes give them.

import { call } from "../api.js";
import { Cards } from "../cards.js";
import { button, find, h, plain, settled, still } from "../dom.js";
import { count, nameOf, plural } from "../format.js";
import { startBox } from "../map/box.js";
import { listenTo } from "../map/gestures.js";
import { COLOURS, Painter } from "../map/painter.js";
import { Tiles } from "../map/tiles.js";
import { searchFrom } from "../query.js";
import { latest, search, unitCode } from "../searching.js";
import { change, listen, remember, state } from "../state.js";

const NEAR = 24;
const RESULTS = 24;
const ZOOMED_MS = 90; // after the last step closer or back, tiles are loaded: not those of every level on the way
const CORNERS = 40; // of a shape
const CHASE = 0.3; // share of the way to where the view goes, each frame

/** Start; `trouble(message)` shows what went wrong, "" that it is over. */
export function startMap(trouble) {
  const canvas = find("map-canvas");
  const painter = new Painter(canvas, () => redraw());
  const box = startBox(() => change({ box: null }));
  const [selects, colour] = controls();
  let tiles = null;
  let view = null; // {left, right, bottom, top} of what is seen, in values of codes
  let goal = null; // where the view goes
  let drawn = []; // what the last frame shows as pictures
  let lit = []; // results of the query, with their places
  let names = null; // values of the legend
  let focus = null;
  let draws = ""; // what a drag draws: "box", "shape", or nothing
  let traced = [];
  let version = 0;
  let drawing = false;
  let zoomed = 0; // when the last step closer or back was
  let painted = false; // whether anything was, for measurements

  const axes = () => Object.fromEntries(["x", "y"].map((name, place) => [name, Number(state.axes.split(",")[place])]));
  const marked = () => (traced.length ? { points: traced } : state.box ? shapeOf(state.box.split(",").map(Number)) : null);
  const near = new Cards(find("map-near"), { chosen: (image) => searchFrom(image) });
  find("map-near").addEventListener("focusin", (event) => { focusOn(event.target.closest("li")?.dataset.rank); });
  find("map-near").addEventListener("focusout", () => { focusOn(null); });

  /** Colour by the label where nobody chose: it shows at a glance what lies where. */
  const colourField = () => state.colour ?? ("label" in state.gallery.filters ? "label" : "none");

  /** Begin with the whole map, by the axes and the colour that are chosen. */
  const reset = latest(async () => {
    if (state.view !== "map" || !state.gallery) return;
    const [width, height] = painter.fit();
    const parameters = { ...axes(), ...(colourField() === "none" ? {} : { colour: colourField() }) };
    try {
      const answer = await call(`/v1/map?${new URLSearchParams({ ...axes(), columns: 1, rows: 1, parts: 1 })}`);
      const { left, right, bottom, top } = answer;
      if (tiles) tiles.close();
      tiles = new Tiles({ whole: { left, right, bottom, top }, parameters, width, height, arrived });
      view = goal = { left, right, bottom, top };
      offer(answer.axes);
      legend(null); // the first tile tells it
      box.show(axes(), marked());
      version += 1;
      trouble("");
    } catch (reason) {
      trouble(reason.message);
      return;
    }
    redraw();
    tellSoon();
    ask();
  });

  function arrived(reason, answer) {
    if (reason) trouble(reason.message);
    else if (answer.legend && names === null) legend(answer.legend);
    version += 1;
    redraw();
    tellSoon();
  }

  function redraw() {
    if (drawing || !tiles || state.view !== "map") return;
    drawing = true;
    requestAnimationFrame(frame);
  }

  function frame() {
    drawing = false;
    if (!tiles || state.view !== "map") return;
    if (view !== goal) {
      const mix = (edge) => view[edge] + CHASE * (goal[edge] - view[edge]);
      const next = { left: mix("left"), right: mix("right"), bottom: mix("bottom"), top: mix("top") };
      view = still() || Math.abs(next.left - goal.left) + Math.abs(next.top - goal.top) < 0.002 * (goal.right - goal.left) ? goal : next;
    }
    painter.fit();
    const places = tiles.placesIn(view);
    if (performance.now() - zoomed >= ZOOMED_MS) tiles.want(tiles.placesIn(goal));
    else redrawSoon();
    const shown = tiles.shown(places);
    const seen = `${version} ${places.length ? JSON.stringify([places[0], places.at(-1), places.length]) : ""}`;
    drawn = painter.draw({ view, tiles, shown, version: seen, names, field: colourField(), query: pinned(), lit, focus, box: marked(), axes: axes() });
    if (shown.length && !painted) performance.mark("map-painted");
    painted ||= shown.length > 0;
    if (view !== goal) redraw();
  }

  function pinned() {
    const code = unitCode();
    const { x, y } = axes();
    return code && code.length >= Math.max(x, y) ? { x: code[x - 1], y: code[y - 1], picture: (state.query.positive?.[0] ?? state.query).picture } : null;
  }

  /** Search for the query, and light up its results. */
  const ask = latest(async () => {
    const { query } = state;
    if (state.view !== "map" || !query || !tiles) return;
    try {
      const answer = await search({ length: state.length, rerank: state.rerank, target: state.target, filter: state.filter, k: RESULTS }, query);
      const parameters = new URLSearchParams({ ...axes(), columns: 1, rows: 1, parts: 1 });
      for (const { id } of answer.results) parameters.append("ids", id);
      const places = answer.results.length ? (await call(`/v1/map?${parameters}`)).named : [];
      if (query !== state.query) return;
      const rank = new Map(answer.results.map(({ id }, place) => [id, place]));
      lit = places.sort((one, other) => rank.get(one.id) - rank.get(other.id));
      remember();
      trouble("");
    } catch (reason) {
      if (query === state.query) trouble(reason.message);
    }
    redraw();
    tellSoon();
  });

  /** Say what is seen, and list the images near its middle: the way through the map without seeing it. */
  const tell = latest(async (outdated) => {
    if (state.view !== "map" || !tiles || !goal) return;
    const seen = goal;
    const answer = await call(`/v1/map?${new URLSearchParams({ ...axes(), ...seen, columns: 1, rows: 1, parts: 1 })}`).catch(() => null);
    if (!answer || outdated() || seen !== goal) return;
    const place = pinned();
    const inside = place && place.x >= seen.left && place.x <= seen.right && place.y >= seen.bottom && place.y <= seen.top;
    const query = !place ? " Drop a photograph anywhere to see where it falls." : inside ? " The pin is where your picture falls; its best matches are framed." : " Your picture falls outside of what is shown.";
    const said = `${plural(answer.count, "image")} around here; ${plural(drawn.length, "picture")} and the shading stand for them.${query}`;
    if (find("map-status").textContent !== said) find("map-status").textContent = said;
    if (find("map-near").contains(document.activeElement)) return; // someone walks through the list
    const [x, y] = [painter.width / 2, painter.height / 2];
    const nearest = [...drawn].sort((one, other) => Math.hypot(one.x - x, one.y - y) - Math.hypot(other.x - x, other.y - y));
    near.show(nearest.slice(0, NEAR).map(({ image }) => image), { moving: false });
  });
  const tellSoon = settled(tell, 150);

  /** Frame the picture of the list's item of this rank on the map; none for null. */
  function focusOn(rank) {
    const card = [...near.cards.values()][Number(rank) - 1];
    focus = rank && card ? card.image.id : null;
    redraw();
  }

  const redrawSoon = settled(() => redraw(), ZOOMED_MS + 10);

  function show(next, atOnce) {
    const width = goal.right - goal.left;
    if (Math.abs(next.right - next.left - width) > 1e-6 * width) zoomed = performance.now();
    goal = next;
    if (atOnce || still()) view = next;
    redraw();
    tellSoon();
  }

  const from = () => goal ?? view;
  const does = {
    /** Move by a share of the view. */
    move(across, up, { at_once: atOnce = false } = {}) {
      const start = from();
      if (!start) return;
      const [dx, dy] = [across * (start.right - start.left), up * (start.top - start.bottom)];
      show({ left: start.left + dx, right: start.right + dx, bottom: start.bottom + dy, top: start.top + dy }, atOnce);
    },
    /** Come closer by a factor, to a point in shares of the view. */
    zoom(factor, [at, up] = [0.5, 0.5], { at_once: atOnce = false } = {}) {
      const start = from();
      if (!start) return;
      const [width, height] = [(start.right - start.left) / factor, (start.top - start.bottom) / factor];
      if (width > 4 || height > 4 || width < 1e-4 || height < 1e-4) return;
      const [x, y] = [start.left + at * (start.right - start.left), start.bottom + up * (start.top - start.bottom)];
      show({ left: x - at * width, right: x + (1 - at) * width, bottom: y - up * height, top: y + (1 - up) * height }, atOnce);
    },
    reset() {
      if (tiles) show(tiles.whole);
    },
    /** Search from the picture at a point, if there is one. */
    pick(at) {
      const image = pictureAt(at);
      if (image) searchFrom(image);
    },
    hover(at) {
      const image = at && pictureAt(at);
      if ((image?.id ?? null) === focus) return;
      focus = image?.id ?? null;
      canvas.title = image ? `${nameOf(image)} – ${image.id}` : "";
      canvas.style.cursor = draws ? "crosshair" : image ? "pointer" : "";
      redraw();
    },
    drawing: () => draws,
    /** Draw a line around images. */
    trace([at, up], stage) {
      const point = [view.left + at * (view.right - view.left), view.bottom + up * (view.top - view.bottom)];
      if (stage === "begin") traced = [];
      traced.push(point.map((value) => Number(value.toFixed(5))));
      redraw();
      if (stage !== "end") return;
      const points = thinned(traced);
      traced = [];
      arm("");
      if (points.length > 2) change({ box: points.flat().join(",") }, { step: true });
    },
    box(from, to, done) {
      const value = ([at, up]) => [view.left + at * (view.right - view.left), view.bottom + up * (view.top - view.bottom)];
      const [[x, y], [otherX, otherY]] = [value(from), value(to)];
      setBox({ left: Math.min(x, otherX), right: Math.max(x, otherX), bottom: Math.min(y, otherY), top: Math.max(y, otherY) }, done);
    },
  };

  function setBox({ left, right, bottom, top }, done) {
    if (right - left < 1e-4 || top - bottom < 1e-4) return;
    state.box = [left, right, bottom, top].map((value) => value.toFixed(5)).join(",");
    redraw();
    if (!done) return;
    arm("");
    change({ box: state.box }, { step: true });
  }

  function arm(what) {
    draws = what;
    find("map-boxing").ariaPressed = String(what === "box");
    find("map-drawing").ariaPressed = String(what === "shape");
    canvas.style.cursor = what ? "crosshair" : "";
  }

  function pictureAt([at, up]) {
    const [x, y] = [at * painter.width, (1 - up) * painter.height];
    return drawn.find((one) => Math.abs(one.x - x) <= one.side / 2 && Math.abs(one.y - y) <= one.side / 2)?.image;
  }

  function controls() {
    const choose = (name, label, changes) => {
      const select = h("select", { id: `map-${name}`, on: { change: () => change(changes(), { step: true }) } });
      find("map-axes").append(h("label", { class: "choice", htmlFor: select.id }, `${label} `, select));
      return select;
    };
    const byAxes = () => ({ axes: `${selects.x.value},${selects.y.value}`, box: null });
    const selects = { x: choose("x", "Across", byAxes), y: choose("y", "Up", byAxes) };
    const colour = choose("colour", "Colour by", () => ({ colour: colour.value }));
    return [selects, colour];
  }

  function offer(available) {
    for (const [name, select] of Object.entries(selects)) {
      if (select.options.length !== available) select.replaceChildren(...Array.from({ length: available }, (_, i) => h("option", { value: String(i + 1) }, `eigenfunction ${i + 1}`)));
      for (const option of select.options) option.disabled = Number(option.value) === axes()[name === "x" ? "y" : "x"];
      select.value = String(axes()[name]);
    }
    colour.replaceChildren(h("option", { value: "none" }, "nothing"), ...Object.keys(state.gallery.filters).map((name) => h("option", { value: name }, name)));
    colour.value = colourField();
  }

  function legend(entries) {
    names = entries?.map(({ value }) => value) ?? null;
    find("map-legend").replaceChildren(...(entries ?? []).map(({ value, count: images }, place) => {
      const swatch = h("i", { "aria-hidden": "true" });
      swatch.style.background = COLOURS[place];
      return h("li", {}, swatch, value, h("span", { class: "quiet" }, ` ${count(images)}`));
    }));
  }

  const buttons = listenTo(canvas, does);
  const step = (text, label, work) => button(text, work, { class: "step", ariaLabel: label, title: label });
  find("map-steps").append(
    plain("Mark a box", () => arm(draws === "box" ? "" : "box"), { id: "map-boxing", ariaPressed: "false", title: "Or hold Shift while you drag" }),
    plain("Draw a shape", () => arm(draws === "shape" ? "" : "shape"), { id: "map-drawing", ariaPressed: "false", title: "Drag a line around pictures" }),
    plain("Mark what is shown", () => goal && setBox(goal, true)),
    step("−", "Go back from the map", () => buttons.further()), step("+", "Come closer to the map", () => buttons.closer()),
    plain("Show everything", () => does.reset(), { id: "map-all" }));

  addEventListener("resize", settled(() => { redraw(); tellSoon(); }, 150));
  const recolour = () => { painter.recolour(); redraw(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  document.addEventListener("theme", recolour);
  listen((changed) => {
    if (state.view !== "map") return;
    if (["gallery", "axes", "colour"].some((name) => changed.has(name))) reset();
    else if (changed.has("view") && !tiles) reset();
    else {
      if (changed.has("box")) box.show(axes(), marked());
      if (changed.has("query") || changed.has("view")) {
        if (changed.has("query")) lit = [];
        ask();
      }
      redraw();
      tellSoon();
    }
  });
  return { again: reset };
}

/** A box of its edges, or a shape of its corners' places. */
const shapeOf = (numbers) => (numbers.length === 4 ? Object.fromEntries(numbers.map((value, place) => [["left", "right", "bottom", "top"][place], value])) : { points: Array.from({ length: numbers.length / 2 }, (_, place) => numbers.slice(2 * place, 2 * place + 2)) });

/** So few corners of a line that an address can hold them. */
const thinned = (points) => points.filter((_, place) => place % Math.ceil(points.length / CORNERS) === 0);
