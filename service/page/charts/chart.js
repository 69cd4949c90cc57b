// What charts share: a frame that fits its place, scales, axes with units. Colours come from the style sheet.

import { svg } from "../dom.js";

let made = 0;

/** An SVG with a name and a description for those who cannot see it, in user units of about a pixel. */
export function frame({ width, height, name, description }) {
  const id = `chart-${(made += 1)}`;
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": `${id}-t ${id}-d`, preserveAspectRatio: "xMidYMid meet" },
    svg("title", { id: `${id}-t` }, name), svg("desc", { id: `${id}-d` }, description));
}

/** A chart's width for its place: text keeps its size on a phone. */
export const widthOf = (element, least = 300) => Math.max(least, Math.round(element.clientWidth || 640));

/** A function from [low, high] to pixels. */
export function scale(low, high, from, to) {
  const span = high - low || 1;
  return (value) => from + ((value - low) / span) * (to - from);
}

export const words = (x, y, text, attributes = {}) => svg("text", { x, y, ...attributes }, text);
export const line = (x1, y1, x2, y2, className) => svg("line", { x1, y1, x2, y2, class: className });

/** Round values between low and high, about `wanted` of them. */
export function roundTicks(low, high, wanted = 5) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-6; tick += step) ticks.push(Math.abs(tick) < step * 1e-6 ? 0 : tick);
  return ticks;
}

/** The digits after the point that tell these ticks exactly. */
export function digitsOf(ticks) {
  return [0, 1, 2, 3].find((digits) => ticks.every((tick) => Math.abs(tick * 10 ** digits - Math.round(tick * 10 ** digits)) < 1e-6)) ?? 4;
}

/** 1, 2, 5, 10 ... between low and high; more of them where these are few. */
export function logTicks(low, high, factors = [1, 2, 5]) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of factors) {
      const tick = factor * 10 ** power;
      if (tick >= low && tick <= high) ticks.push(Number(tick.toPrecision(2)));
    }
  }
  return ticks.length > 2 || factors.length > 3 ? ticks : logTicks(low, high, [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8]);
}

const SHAPES = ["circle", "square", "diamond", "triangle", "cross", "star", "hexagon", "wedge"];

/** One of eight marks, told apart without colour, of radius r around (x, y). */
export function mark(place, x, y, r, className) {
  const polygon = (corners, turn, inner = 1) => Array.from({ length: corners }, (_, corner) => {
    const angle = turn + (corner * 2 * Math.PI) / corners;
    const radius = corner % 2 ? r * inner : r;
    return `${(x + radius * Math.cos(angle)).toFixed(1)},${(y + radius * Math.sin(angle)).toFixed(1)}`;
  }).join(" ");
  const up = -Math.PI / 2;
  const shape = SHAPES[place % SHAPES.length];
  if (shape === "circle") return svg("circle", { cx: x, cy: y, r, class: className });
  const points = {
    square: polygon(4, Math.PI / 4), diamond: polygon(4, up), triangle: polygon(3, up), wedge: polygon(3, -up),
    cross: polygon(8, up, 0.35), star: polygon(10, up, 0.45), hexagon: polygon(6, up),
  }[shape];
  return svg("polygon", { points, class: className });
}
