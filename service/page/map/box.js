// A box on the map, or a shape drawn around images: how many it has; they are searched, linked to, or taken as a table.

import { call } from "../api.js";
import { button, find, h, plain } from "../dom.js";
import { plural } from "../format.js";
import { change, state } from "../state.js";

const MOST_STRIPS = 31; // of a filter, which has 100 clauses at most
const TALLEST = 24;

/** The boxes that a shape consists of: the box itself, or strips of what a line was drawn around, {points: [[x, y], …]}. */
export function boxesOf(shape) {
  if (!shape.points) return [shape];
  for (let rows = TALLEST; rows > 0; rows -= 1) {
    const strips = cut(shape.points, rows);
    if (strips.length <= MOST_STRIPS) return strips;
  }
  return [];
}

/** A polygon in so many rows: each has a box between every second crossing of its middle with the outline. */
function cut(points, rows) {
  const heights = points.map(([, y]) => y);
  const [low, high] = [Math.min(...heights), Math.max(...heights)];
  const height = (high - low) / rows;
  return Array.from({ length: rows }, (_, row) => low + row * height).flatMap((bottom) => {
    const middle = bottom + height / 2;
    const crossings = points.flatMap(([x, y], place) => {
      const [nextX, nextY] = points[(place + 1) % points.length];
      return y > middle === nextY > middle ? [] : [x + ((middle - y) / (nextY - y)) * (nextX - x)];
    }).sort((one, other) => one - other);
    return Array.from({ length: crossings.length / 2 }, (_, pair) => ({ left: crossings[2 * pair], right: crossings[2 * pair + 1], bottom, top: bottom + height }));
  });
}

/** The box around a shape. */
function around(shape) {
  if (!shape.points) return shape;
  const [across, up] = [0, 1].map((axis) => shape.points.map((point) => point[axis]));
  return { left: Math.min(...across), right: Math.max(...across), bottom: Math.min(...up), top: Math.max(...up) };
}

/** The filter of a search that leaves the images of a shape. */
export function filterOf(axes, shape) {
  const parts = boxesOf(shape).map((box) => ({ $code: { [axes.x]: { $gte: box.left, $lte: box.right }, [axes.y]: { $gte: box.bottom, $lte: box.top } } }));
  return shape.points ? { $or: parts } : parts[0];
}

/** The panel of a box or a shape; `forget` takes it away. Returns {show(axes, box)}, box null for none. */
export function startBox(forget) {
  const place = find("map-box");
  let now = null;

  const region = () => new URLSearchParams({ ...now.axes, ...around(now.box) });

  /** The table of the shape's images: of what is around it, the lines that lie in it. */
  async function table(asked) {
    const [head, ...lines] = (await call(`/v1/map/images?${region()}`, { type: "text" })).trimEnd().split("\r\n");
    if (!asked.box.points) return [head, ...lines];
    const boxes = boxesOf(asked.box);
    return [head, ...lines.filter((line) => {
      const [x, y] = line.split(",").slice(-2).map(Number);
      return boxes.some((box) => x >= box.left && x <= box.right && y >= box.bottom && y <= box.top);
    })];
  }
  const search = () => change({ view: "search", filter: { ...state.filter, ...filterOf(now.axes, now.box) } }, { step: true });

  async function link({ target }) {
    try {
      await navigator.clipboard.writeText(location.href);
      target.textContent = "Copied";
    } catch {
      target.textContent = "The address above is the link"; // no right to copy
    }
  }

  /** Save the table, fetched with the key where there is one, since a link sends none. */
  async function save() {
    const lines = await table(now);
    const address = URL.createObjectURL(new Blob([`${lines.join("\r\n")}\r\n`], { type: "text/csv" }));
    h("a", { href: address, download: "map.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  }

  return {
    async show(axes, box) {
      now = box && { axes, box };
      place.hidden = !box;
      if (!box) return;
      const asked = now;
      const count = h("b", {}, "…");
      const only = button("Search only these", search);
      place.replaceChildren(h("p", { role: "status" }, count, box.points ? " in the shape" : " in the box"), only, plain("Copy a link", link), plain("Save their names (CSV)", save), plain(box.points ? "Remove the shape" : "Remove the box", () => forget()));
      const images = box.points ? (await table(asked).catch(() => [])).length - 1 : (await call(`/v1/map?${new URLSearchParams({ ...axes, ...box, columns: 1, rows: 1, parts: 1 })}`).catch(() => null))?.count ?? -1;
      if (images >= 0 && asked === now) count.textContent = plural(images, "image");
      only.disabled = images === 0;
    },
  };
}
