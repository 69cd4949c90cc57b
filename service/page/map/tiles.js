// The map's tiles: parts of a grid over it, finer with each level, loaded as they come into view and kept.

import { call } from "../api.js";

export const CELLS = 12; // pictures along a side of a tile
export const PARTS = 32; // counts along a side of a tile
const SIDE = 512; // pixels of a tile, when all of the map is shown
const KEPT = 400;
const AT_ONCE = 4;
const DEEPEST = 12;

/** Tiles of one pair of axes and one colour field over `whole`, which a canvas of so many pixels shows at level 0. */
export class Tiles {
  constructor({ whole, parameters, width, height, arrived }) {
    Object.assign(this, { whole, parameters, arrived, tiles: new Map(), queue: [], running: 0, most: [], closed: false });
    this.columns = Math.max(1, Math.round(width / SIDE));
    this.rows = Math.max(1, Math.round(height / SIDE));
  }

  /** No more tiles are wanted. */
  close() {
    this.closed = true;
    this.queue = [];
  }

  /** The level whose tiles are nearest to their best size in a view. */
  levelOf(view) {
    const closer = (this.whole.right - this.whole.left) / (view.right - view.left);
    return Math.min(DEEPEST, Math.max(0, Math.round(Math.log2(closer))));
  }

  /** The region of a tile. */
  boxOf({ level, column, row }) {
    const width = (this.whole.right - this.whole.left) / (this.columns * 2 ** level);
    const height = (this.whole.top - this.whole.bottom) / (this.rows * 2 ** level);
    const [left, bottom] = [this.whole.left + column * width, this.whole.bottom + row * height];
    return { left, right: left + width, bottom, top: bottom + height };
  }

  /** Places of the tiles that a view touches, the nearest to its middle first. */
  placesIn(view) {
    const level = this.levelOf(view);
    const { left, bottom, right, top } = this.boxOf({ level, column: 0, row: 0 });
    const range = (low, high, start, size) => [Math.floor((low - start) / size), Math.ceil((high - start) / size)];
    const [west, east] = range(view.left, view.right, left, right - left);
    const [south, north] = range(view.bottom, view.top, bottom, top - bottom);
    const places = [];
    for (let row = south; row < north; row += 1) for (let column = west; column < east; column += 1) places.push({ level, column, row });
    const away = ({ column, row }) => Math.hypot(column + 0.5 - (west + east) / 2, row + 0.5 - (south + north) / 2);
    return places.sort((one, other) => away(one) - away(other));
  }

  /** What is known of these places: their own tile, or until it is there the part of a coarser one. */
  shown(places) {
    const shown = [];
    for (const place of places) {
      for (let up = 0; up <= place.level; up += 1) {
        const tile = this.tiles.get(keyOf({ level: place.level - up, column: place.column >> up, row: place.row >> up }));
        if (!tile?.counts) continue;
        shown.push({ place, tile, up });
        break;
      }
    }
    return shown;
  }

  /** Load what is missing of these places, and nothing else that waits. */
  want(places) {
    this.queue = places.filter((place) => !this.tiles.has(keyOf(place)));
    while (this.running < AT_ONCE && this.queue.length) this.load(this.queue.shift());
  }

  async load(place) {
    const key = keyOf(place);
    const query = new URLSearchParams({ ...this.parameters, ...this.boxOf(place), columns: CELLS, rows: CELLS, parts: PARTS });
    this.tiles.set(key, { place });
    this.running += 1;
    try {
      const answer = await call(`/v1/map?${query}`);
      if (this.closed) return;
      this.tiles.set(key, { place, ...answer });
      this.most[place.level] = Math.max(this.most[place.level] ?? 1, ...answer.counts.flat());
      for (const old of this.tiles.keys()) {
        if (this.tiles.size <= KEPT) break;
        if (!old.startsWith("0/")) this.tiles.delete(old);
      }
      this.arrived(null, answer);
    } catch (reason) {
      this.tiles.delete(key);
      if (!this.closed) this.arrived(reason);
    } finally {
      this.running -= 1;
      if (!this.closed && this.queue.length) this.load(this.queue.shift());
    }
  }
}

const keyOf = ({ level, column, row }) => `${level}/${column}/${row}`;
