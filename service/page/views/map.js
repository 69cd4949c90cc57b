// The map: all images of the gallery at the place that two numbers of their codes give them.

import { call } from "../api.js";
import { Cards } from "../cards.js";
import { find, h, settled } from "../dom.js";
import { plural } from "../format.js";
import { thumbnail } from "../pictures.js";
import { searchFrom } from "../query.js";
import { latest, search, unitCode } from "../searching.js";
import { listen, state } from "../state.js";

const CELL = 58; // pixels for an image that stands for its part of the map
const SIDE = 50;
const NEAR = 12;
const CLOSER = 1.5;
const MARGIN = 0.25; // of the view, on each side, is loaded beyond it, so that moving shows no empty edge
const KEPT = 2000; // pictures

/** Start; `trouble(message)` shows what went wrong, "" that it is over. */
export function startMap(trouble) {
  const canvas = find("map-canvas");
  const pen = canvas.getContext("2d");
  const pictures = new Map(); // thumbnail: <img>
  let axes = { x: 1, y: 2 };
  let view = null; // {left, right, bottom, top} of what is seen, in values of codes
  let drawn = null; // the last answer
  let drag = null;
  const touches = new Map();

  const choose = (name, label) => {
    const select = h("select", { id: `map-${name}`, on: { change: () => { axes = { ...axes, [name]: Number(select.value) }; reset(); } } });
    find("map-axes").append(h("label", { class: "choice", htmlFor: `map-${name}` }, `${label} `, select));
    return select;
  };
  const selects = { x: choose("x", "Across: number"), y: choose("y", "Up: number") };
  const step = (text, label, work) => h("button", { type: "button", class: "step", "aria-label": label, on: { click: work } }, text);
  find("map-steps").append(step("−", "Go back from the map", () => zoom(1 / CLOSER)), step("+", "Come closer to the map", () => zoom(CLOSER)), h("button", { type: "button", id: "map-all", class: "plain", on: { click: () => reset() } }, "Show everything"));
  const near = new Cards(find("map-near"), { chosen: (image) => searchFrom(image) });

  const load = latest(async (outdated) => {
    if (state.view !== "map" || !state.gallery) return;
    const [width, height] = fit();
    const cells = (pixels) => Math.max(2, Math.min(40, Math.floor((pixels * (1 + 2 * MARGIN)) / CELL)));
    const parameters = new URLSearchParams({ ...axes, columns: cells(width), rows: cells(height), parts: 64 });
    for (const [name, value] of Object.entries(view ? grown(view, MARGIN) : {})) parameters.set(name, value);
    try {
      if (state.query && !state.query.code) await search({ length: state.length, rerank: state.rerank, target: state.target, k: NEAR });
      const answer = await call(`/v1/map?${parameters}`);
      if (outdated()) return; // it is of another region or other axes than those that are asked for now
      drawn = answer;
      const { left, right, bottom, top } = answer;
      view ??= { left, right, bottom, top };
      offer(answer.axes);
      trouble("");
    } catch (reason) {
      trouble(reason.message);
      return;
    }
    tell();
    draw();
  });
  const settle = settled(() => { load(); }, 120);

  /** Fit the canvas to its place. Returns its width and height in CSS pixels. */
  function fit() {
    const width = Math.max(200, canvas.clientWidth);
    const height = Math.max(200, canvas.clientHeight);
    const scale = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    return [width, height];
  }

  function offer(count) {
    for (const [name, select] of Object.entries(selects)) {
      if (select.options.length !== count) select.replaceChildren(...Array.from({ length: count }, (_, i) => h("option", { value: String(i + 1) }, String(i + 1))));
      for (const option of select.options) option.disabled = Number(option.value) === axes[name === "x" ? "y" : "x"];
      select.value = String(axes[name]);
    }
  }

  function reset() {
    view = drawn = null;
    load();
  }

  function show(next) {
    view = next;
    requestAnimationFrame(draw);
    settle();
  }

  /** Move by a share of the view. */
  function move(across, up) {
    if (!view) return;
    const [dx, dy] = [across * (view.right - view.left), up * (view.top - view.bottom)];
    show({ left: view.left + dx, right: view.right + dx, bottom: view.bottom + dy, top: view.top + dy });
  }

  /** Come closer by a factor, to a point in shares of the view from its left and bottom. */
  function zoom(factor, [at, up] = [0.5, 0.5]) {
    if (!view) return;
    const [width, height] = [(view.right - view.left) / factor, (view.top - view.bottom) / factor];
    if (width > 4 || height > 4 || width < 1e-4 || height < 1e-4) return;
    const [x, y] = [view.left + at * (view.right - view.left), view.bottom + up * (view.top - view.bottom)];
    show({ left: x - at * width, right: x + (1 - at) * width, bottom: y - up * height, top: y + (1 - up) * height });
  }

  function draw() {
    if (!view || !drawn || state.view !== "map") return;
    const [width, height] = fit();
    const across = (x) => ((x - view.left) / (view.right - view.left)) * width;
    const up = (y) => height - ((y - view.bottom) / (view.top - view.bottom)) * height;
    const style = getComputedStyle(canvas);
    pen.clearRect(0, 0, width, height);
    // How many images each part holds: the more, the stronger.
    const most = Math.max(1, ...drawn.counts.flat());
    const rows = drawn.counts.length;
    const [partWidth, partHeight] = [(drawn.right - drawn.left) / drawn.counts[0].length, (drawn.top - drawn.bottom) / rows];
    pen.fillStyle = style.getPropertyValue("--accent") || "#3366cc";
    for (const [row, counts] of drawn.counts.entries()) for (const [column, number] of counts.entries()) {
      if (!number) continue;
      pen.globalAlpha = 0.06 + 0.4 * (Math.log1p(number) / Math.log1p(most));
      // Whole pixels: parts that share an edge neither overlap nor leave a gap.
      const x = Math.round(across(drawn.left + column * partWidth));
      const y = Math.round(up(drawn.bottom + (row + 1) * partHeight));
      pen.fillRect(x, y, Math.round(across(drawn.left + (column + 1) * partWidth)) - x, Math.round(up(drawn.bottom + row * partHeight)) - y);
    }
    pen.globalAlpha = 1;
    for (const image of drawn.images) {
      const [x, y] = [across(image.x), up(image.y)];
      if (x > -SIDE && y > -SIDE && x < width + SIDE && y < height + SIDE) paint(pictureOf(image.thumbnail), x, y);
    }
    const place = queryPlace();
    if (!place) return;
    if (state.query.picture) paint(pictureOf(state.query.picture), across(place[0]), up(place[1]));
    pen.strokeStyle = style.color;
    pen.lineWidth = 3;
    pen.beginPath();
    pen.arc(across(place[0]), up(place[1]), SIDE / 2 + 6, 0, 2 * Math.PI);
    pen.stroke();
  }

  function paint(picture, x, y) {
    if (!picture.complete || !picture.naturalWidth) return;
    const scale = SIDE / Math.max(picture.naturalWidth, picture.naturalHeight);
    const [width, height] = [picture.naturalWidth * scale, picture.naturalHeight * scale];
    pen.drawImage(picture, x - width / 2, y - height / 2, width, height);
  }

  function queryPlace() {
    const code = unitCode();
    return code && code.length >= Math.max(axes.x, axes.y) ? [code[axes.x - 1], code[axes.y - 1]] : null;
  }

  function pictureOf(source) {
    let picture = pictures.get(source);
    if (!picture) {
      picture = thumbnail(source, "");
      picture.loading = "eager";
      picture.addEventListener("load", () => requestAnimationFrame(draw));
      pictures.set(source, picture);
      for (const old of pictures.keys()) {
        if (pictures.size <= KEPT) break;
        pictures.delete(old);
      }
    }
    return picture;
  }

  /** Say what is seen, and list the images near its middle: the way through the map without seeing it. */
  function tell() {
    const [x, y] = [(view.left + view.right) / 2, (view.bottom + view.top) / 2];
    const distance = (image) => Math.hypot((image.x - x) / (view.right - view.left), (image.y - y) / (view.top - view.bottom));
    near.show([...drawn.images].sort((one, other) => distance(one) - distance(other)).slice(0, NEAR), { moving: false });
    const place = queryPlace();
    const inside = place && place[0] >= view.left && place[0] <= view.right && place[1] >= view.bottom && place[1] <= view.top;
    const query = !place ? "" : inside ? " The ring is where the query falls." : " The query falls outside of what is shown.";
    find("map-status").textContent = `${plural(drawn.count, "image")} around here; ${plural(drawn.images.length, "picture")} stand for them.${query}`;
  }

  const point = (event) => {
    const place = canvas.getBoundingClientRect();
    return [(event.clientX - place.left) / place.width, 1 - (event.clientY - place.top) / place.height];
  };
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-Math.sign(event.deltaY) * Math.min(1, Math.abs(event.deltaY) / 240)), point(event));
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    touches.set(event.pointerId, point(event));
    drag = { at: point(event), moved: 0 };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!touches.has(event.pointerId)) return;
    const [before, now] = [touches.get(event.pointerId), point(event)];
    const others = [...touches].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    touches.set(event.pointerId, now);
    drag.moved += Math.hypot(now[0] - before[0], now[1] - before[1]) + others.length;
    if (others.length) {
      const apart = (place) => Math.max(0.02, Math.hypot(place[0] - others[0][0], place[1] - others[0][1]));
      zoom(apart(now) / apart(before), [(now[0] + others[0][0]) / 2, (now[1] + others[0][1]) / 2]);
    } else move(before[0] - now[0], before[1] - now[1]);
  });
  const release = (event) => {
    const clicked = touches.delete(event.pointerId) && touches.size === 0 && drag.moved < 0.01 && event.type === "pointerup";
    if (clicked) pick(point(event));
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);

  /** Search from the picture at a point, if there is one. */
  function pick([at, up]) {
    if (!drawn || !view) return;
    const { width, height } = canvas.getBoundingClientRect();
    const distance = (image) => Math.max(Math.abs((image.x - view.left) / (view.right - view.left) - at) * width, Math.abs((image.y - view.bottom) / (view.top - view.bottom) - up) * height);
    const found = drawn.images.filter((image) => distance(image) <= SIDE / 2).sort((one, other) => distance(one) - distance(other))[0];
    if (found) searchFrom(found);
  }

  const KEYS = { ArrowLeft: () => move(-0.2, 0), ArrowRight: () => move(0.2, 0), ArrowUp: () => move(0, 0.2), ArrowDown: () => move(0, -0.2), "+": () => zoom(CLOSER), "=": () => zoom(CLOSER), "-": () => zoom(1 / CLOSER), 0: () => reset() };
  canvas.addEventListener("keydown", (event) => {
    const work = event.ctrlKey || event.metaKey || event.altKey ? null : KEYS[event.key];
    if (!work) return;
    event.preventDefault();
    work();
  });

  addEventListener("resize", settled(() => { draw(); load(); }, 150));
  listen((changed) => {
    if (state.view !== "map") return;
    if (["gallery", "view"].some((name) => changed.has(name))) load();
    else if (changed.has("query")) load();
  });
  return { again: load };
}

/** A region with a share of its width and height more on each side. */
function grown({ left, right, bottom, top }, share) {
  const [x, y] = [share * (right - left), share * (top - bottom)];
  return { left: left - x, right: right + x, bottom: bottom - y, top: top + y };
}
