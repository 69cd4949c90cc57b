// Draws the map: density, pictures where they do not cover each other, dots for the others, the query and its results.

import { fetchPicture } from "../pictures.js";
import { PARTS } from "./tiles.js";

export const SIDE = 42; // pixels of a picture
const QUERY_SIDE = 64;
const LIT = 12; // results as pictures
const KEPT = 1500; // pictures
// Ten colours that can be told apart on light and on dark ground.
export const COLOURS = ["#4e79c7", "#e8833a", "#3fa66b", "#d1495b", "#8f6bc2", "#b07d52", "#d972b0", "#7d8794", "#b5a62c", "#2ea7b8"];

/** Pictures in the size in which they are drawn, with round corners; `arrived` is called when one is there. */
export class Sprites {
  constructor(arrived) {
    Object.assign(this, { arrived, sprites: new Map() });
  }

  /** The picture at an address as a canvas of so many pixels; null until it is there. */
  of(source, side, scale) {
    const key = `${side}@${scale} ${source}`;
    const known = this.sprites.get(key);
    if (known !== undefined) return known;
    this.sprites.set(key, null);
    fetchPicture(source).then((image) => {
      this.sprites.set(key, sprite(image, side, scale));
      for (const old of this.sprites.keys()) {
        if (this.sprites.size <= KEPT) break;
        this.sprites.delete(old);
      }
      this.arrived();
    }, () => {});
    return null;
  }
}

function sprite(image, side, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = Math.round(side * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.beginPath();
  pen.roundRect(0, 0, side, side, side / 7);
  pen.clip();
  const fill = side / Math.min(image.naturalWidth, image.naturalHeight);
  const [width, height] = [image.naturalWidth * fill, image.naturalHeight * fill];
  pen.drawImage(image, (side - width) / 2, (side - height) / 2, width, height);
  return canvas;
}

/** Draws scenes on a canvas. */
export class Painter {
  constructor(canvas, arrived) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.sprites = new Sprites(arrived);
    this.density = document.createElement("canvas");
    this.composed = null; // what the density shows
  }

  /** The page's colours are others now. */
  recolour() {
    this.colours = this.composed = null;
  }

  /** Fit the canvas to its place. Returns its width and height in CSS pixels. */
  fit() {
    const { canvas } = this;
    [this.width, this.height] = [Math.max(200, canvas.clientWidth), Math.max(200, canvas.clientHeight)];
    this.scale = Math.min(2, devicePixelRatio || 1);
    const [width, height] = [Math.round(this.width * this.scale), Math.round(this.height * this.scale)];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    if (this.colours) return [this.width, this.height];
    const style = getComputedStyle(canvas);
    this.font = `600 12px ${style.fontFamily}`;
    this.colours = Object.fromEntries(["accent", "warm", "surface", "ink", "quiet", "line"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    return [this.width, this.height];
  }

  /**
   * Draw a scene: {view, tiles, shown, version, names, query, lit, focus, box, axes}. `version` changes when what is
   * shown of the tiles does. Returns the images that are drawn as pictures: [{image, x, y, side}] in pixels.
   */
  draw(scene) {
    const { pen, width, height } = this;
    const { view } = scene;
    const across = (x) => ((x - view.left) / (view.right - view.left)) * width;
    const up = (y) => height - ((y - view.bottom) / (view.top - view.bottom)) * height;
    pen.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    this.paintDensity(scene, across, up);
    if (this.ordered?.version !== scene.version || this.ordered.lit !== scene.lit) this.ordered = order(scene);
    const placed = place(this.ordered, scene, across, up, width, height);
    const colourOf = (image) => this.ordered.colours.get(image);
    let brush = null;
    for (const { image, x, y } of placed.dots) {
      const colour = colourOf(image) ?? this.colours.accent;
      if (colour !== brush) pen.fillStyle = brush = colour;
      pen.fillRect(x - 1.5, y - 1.5, 3, 3);
    }
    for (const { image, x, y, side, lit } of placed.pictures) {
      const picture = this.sprites.of(image.thumbnail, side, this.scale);
      const [left, top] = [Math.round(x - side / 2), Math.round(y - side / 2)];
      if (picture) pen.drawImage(picture, left, top, side, side);
      else this.frame(left, top, side, this.colours.line, 1);
      const colour = colourOf(image);
      if (colour) this.frame(left, top, side, colour, 2);
      if (lit) this.frame(left - 2, top - 2, side + 4, this.colours.warm, 3);
      if (scene.focus === image.id) this.frame(left - 3, top - 3, side + 6, this.colours.accent, 4);
    }
    if (scene.query) this.pin(scene.query, across(scene.query.x), up(scene.query.y));
    if (scene.box) this.mark(scene.box, across, up);
    this.nameAxes(scene.axes);
    return placed.pictures;
  }

  frame(x, y, side, colour, wide) {
    const { pen } = this;
    pen.strokeStyle = colour;
    pen.lineWidth = wide;
    pen.beginPath();
    pen.roundRect(x, y, side, side, side / 7);
    pen.stroke();
  }

  /** The density of all parts in view, put together small and drawn large and smooth. */
  paintDensity(scene, across, up) {
    const { tiles, shown, version } = scene;
    if (!shown.length) return;
    if (this.composed?.version !== version) this.compose(tiles, shown, version, scene.names !== null);
    const { box } = this.composed;
    this.pen.imageSmoothingEnabled = true;
    this.pen.drawImage(this.density, across(box.left), up(box.top), across(box.right) - across(box.left), up(box.bottom) - up(box.top));
  }

  compose(tiles, shown, version, coloured) {
    const places = shown.map(({ place }) => place);
    const [west, south] = [Math.min(...places.map((place) => place.column)), Math.min(...places.map((place) => place.row))];
    const [east, north] = [Math.max(...places.map((place) => place.column)), Math.max(...places.map((place) => place.row))];
    const [columns, rows] = [(east - west + 1) * PARTS, (north - south + 1) * PARTS];
    const picture = new ImageData(columns, rows);
    const plain = rgb(this.colours.accent);
    for (const { place, tile, up } of shown) {
      const most = Math.log1p(tiles.most[tile.place.level]);
      const size = PARTS >> up || 1; // of a coarser tile, the quarter of a quarter that this place is
      for (let row = 0; row < PARTS; row += 1) for (let column = 0; column < PARTS; column += 1) {
        const from = (offset, at) => Math.min(PARTS - 1, Math.floor((offset & ((1 << up) - 1)) * (PARTS / (1 << up)) + (at * size) / PARTS));
        const [partRow, partColumn] = [from(place.row, row), from(place.column, column)];
        const number = tile.counts[partRow][partColumn];
        if (!number) continue;
        const entry = coloured ? tile.commonest?.[partRow][partColumn] ?? -1 : -1;
        const [red, green, blue] = coloured ? rgb(COLOURS[entry] ?? "#888888") : plain;
        const at = 4 * (((north - place.row + 1) * PARTS - 1 - row) * columns + (place.column - west) * PARTS + column);
        picture.data.set([red, green, blue, 255 * (0.08 + (coloured ? 0.62 : 0.42) * (Math.log1p(number) / most))], at);
      }
    }
    [this.density.width, this.density.height] = [columns, rows];
    this.density.getContext("2d").putImageData(picture, 0, 0);
    const [first, last] = [{ level: places[0].level, column: west, row: south }, { level: places[0].level, column: east, row: north }].map((at) => tiles.boxOf(at));
    this.composed = { version, box: { left: first.left, bottom: first.bottom, right: last.right, top: last.top } };
  }

  /** The query: its picture on a pin whose point is where it falls. */
  pin(query, x, y) {
    const { pen } = this;
    const side = QUERY_SIDE;
    const top = y - 14 - side;
    pen.fillStyle = this.colours.warm;
    pen.beginPath();
    pen.roundRect(x - side / 2 - 4, top - 4, side + 8, side + 8, 13);
    pen.moveTo(x - 9, top + side + 3);
    pen.lineTo(x, y);
    pen.lineTo(x + 9, top + side + 3);
    pen.fill();
    const picture = query.picture ? this.sprites.of(query.picture, side, this.scale) : null;
    if (picture) pen.drawImage(picture, x - side / 2, top, side, side);
    pen.beginPath();
    pen.arc(x, y, 3.5, 0, 2 * Math.PI);
    pen.fillStyle = this.colours.surface;
    pen.fill();
    pen.strokeStyle = this.colours.warm;
    pen.lineWidth = 2.5;
    pen.stroke();
  }

  mark(box, across, up) {
    const { pen } = this;
    if (box.points) {
      pen.beginPath();
      for (const [x, y] of box.points) pen.lineTo(across(x), up(y));
      pen.closePath();
      this.outline(() => pen.fill(), () => pen.stroke());
      return;
    }
    const place = [across(box.left), up(box.top), across(box.right) - across(box.left), up(box.bottom) - up(box.top)];
    this.outline(() => pen.fillRect(...place), () => pen.strokeRect(...place));
  }

  outline(fill, stroke) {
    const { pen } = this;
    pen.globalAlpha = 0.12;
    pen.fillStyle = this.colours.accent;
    fill();
    pen.globalAlpha = 1;
    pen.strokeStyle = this.colours.accent;
    pen.lineWidth = 2;
    pen.setLineDash([7, 4]);
    stroke();
    pen.setLineDash([]);
  }

  nameAxes(axes) {
    const { pen, width, height } = this;
    pen.font = this.font;
    pen.fillStyle = this.colours.quiet;
    pen.textAlign = "right";
    pen.fillText(`eigenfunction ${axes.x} →`, width - 10, height - 10);
    pen.save();
    pen.translate(16, 10);
    pen.rotate(-Math.PI / 2);
    pen.fillText(`eigenfunction ${axes.y} →`, 0, 0);
    pen.restore();
  }
}

/** The images of a scene, results and the smallest ranks first, and their colours: the same as long as it moves only. */
function order({ shown, lit, names, field, version }) {
  const images = new Map(lit.slice(0, LIT).map((image) => [image.id, { image, lit: true }]));
  for (const { tile } of shown) for (const image of tile.images) if (!images.has(image.id)) images.set(image.id, { image, lit: false });
  const first = (one) => (one.lit ? -1 : one.image.rank);
  const entries = [...images.values()].sort((one, other) => first(one) - first(other));
  const colourOf = new Map(names?.map((name, entry) => [name, COLOURS[entry]]));
  return { version, lit, entries, colours: new Map(entries.map(({ image }) => [image, colourOf.get(String(image.metadata?.[field]))])) };
}

/** Pictures that do not cover each other, in their order; dots for all others. */
function place({ entries }, { view, focus }, across, up, width, height) {
  const inside = ({ image }) => image.x >= view.left && image.x <= view.right && image.y >= view.bottom && image.y <= view.top;
  const ahead = entries.filter((one) => one.image.id === focus);
  const ordered = ahead.length ? [...ahead, ...entries.filter((one) => one.image.id !== focus)] : entries;
  const taken = new Map();
  const step = SIDE + 3;
  const pictures = [];
  const dots = [];
  for (const one of ordered) {
    if (!inside(one)) continue;
    const { image, lit: isLit } = one;
    const within = (at, size) => Math.min(size - SIDE / 2 - 3, Math.max(SIDE / 2 + 3, at)); // at an edge, a whole picture
    const [x, y] = [within(across(image.x), width), within(up(image.y), height)];
    const [column, row] = [Math.floor(x / step), Math.floor(y / step)];
    let free = true;
    for (let i = column - 1; free && i <= column + 1; i += 1) for (let j = row - 1; free && j <= row + 1; j += 1) {
      free = !(taken.get(i * 4096 + j) ?? []).some((other) => Math.abs(other.x - x) < step && Math.abs(other.y - y) < step);
    }
    if (!free) {
      dots.push({ image, x: across(image.x), y: up(image.y) });
      continue;
    }
    const picture = { image, x, y, side: SIDE, lit: isLit };
    pictures.push(picture);
    const key = column * 4096 + row;
    taken.set(key, [...(taken.get(key) ?? []), picture]);
  }
  return { pictures, dots };
}

const known = new Map();
/** [red, green, blue] of a colour such as #4e79c7. */
function rgb(colour) {
  if (!known.has(colour)) known.set(colour, [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
  return known.get(colour);
}
