// Charts over the numbers of a code: the code itself, the spectrum; and how one number is spread over the gallery.

import { digitsOf, frame, line, roundTicks, scale, widthOf, words } from "./chart.js";
import { svg } from "../dom.js";
import { percent, plural, signed } from "../format.js";

const [LEFT, RIGHT, TOP, BOTTOM] = [52, 12, 22, 40];

/** The numbers of a code at a glance, those in use filled: a small picture beside the slider. */
export function drawStrip(place, code, used) {
  const [width, height] = [widthOf(place, 200), 56];
  const most = Math.max(...code.map(Math.abs)) || 1;
  const each = width / code.length;
  const chart = frame({ width, height, name: "The query's code", description: `The first ${used} of ${plural(code.length, "number")} are in use.` });
  chart.setAttribute("preserveAspectRatio", "none");
  chart.append(svg("rect", { x: 0, y: 0, width: used * each, height, class: "prefix", rx: 4 }), line(0, height / 2, width, height / 2, "rule"));
  for (const [j, value] of code.entries()) {
    const tall = Math.max(1, (Math.abs(value) / most) * (height / 2 - 3));
    chart.append(svg("rect", { x: j * each + each * 0.12, y: value > 0 ? height / 2 - tall : height / 2, width: Math.max(0.8, each * 0.76), height: tall, class: j < used ? "bar" : "bar unused" }));
  }
  place.replaceChildren(chart);
}

/** The query's code as bars over where 90 % of the gallery's images lie, with the prefix in use marked. */
export function drawCode(place, { code, used, spectrum, coordinate, chosen }) {
  const { chart, width, height, x, each } = axes(place, code.length, { name: "The query's code", description: `Bars of ${plural(code.length, "number")}; the first ${used} are in use.` });
  const most = Math.max(...code.map(Math.abs), ...(spectrum ? [...spectrum.low, ...spectrum.high].map(Math.abs) : [])) || 1;
  const y = scale(-most, most, height - BOTTOM, TOP);
  values(chart, roundTicks(-most, most, 4), y, width);
  chart.append(svg("rect", { x: LEFT, y: TOP, width: x(used + 1) - LEFT, height: height - BOTTOM - TOP, class: "prefix" }));
  if (spectrum) for (let j = 0; j < code.length; j += 1) {
    const [low, high] = [y(spectrum.low[j]), y(spectrum.high[j])];
    chart.append(svg("rect", { x: x(j + 1), y: high, width: each * 0.92, height: low - high, class: "usual" }));
  }
  for (const [j, value] of code.entries()) {
    const [top, bottom] = value > 0 ? [y(value), y(0)] : [y(0), y(value)];
    chart.append(svg("rect", { x: x(j + 1) + each * 0.2, y: top, width: Math.max(0.8, each * 0.6), height: Math.max(1, bottom - top), class: j < used ? "bar" : "bar unused" }));
  }
  const end = x(used + 1);
  chart.append(line(end, TOP - 8, end, height - BOTTOM, "prefix-end"), line(LEFT, y(0), width - RIGHT, y(0), "axis"),
    words(end > width / 2 ? end - 6 : end + 6, TOP - 8, used === code.length ? "all are in use" : `in use: the first ${used}`, { class: "now-name", "text-anchor": end > width / 2 ? "end" : "start" }));
  pointer(chart, x, each, coordinate, height);
  pick(chart, code.length, x, chosen);
  place.replaceChildren(chart);
}

/** Eigenvalues by their number; ticks below at the lengths that were built. */
export function drawSpectrum(place, { eigenvalues, lengths, used, coordinate, chosen }) {
  const { chart, width, height, x, each } = axes(place, eigenvalues.length, {
    name: "The spectrum", description: `Eigenvalues from ${signed(eigenvalues[0])} down to ${signed(eigenvalues.at(-1))}.`, lengths,
  });
  const top = Math.max(1, ...eigenvalues);
  const y = scale(Math.min(0, ...eigenvalues), top, height - BOTTOM, TOP);
  values(chart, roundTicks(Math.min(0, ...eigenvalues), top, 5), y, width);
  chart.append(svg("rect", { x: LEFT, y: TOP, width: x(used + 1) - LEFT, height: height - BOTTOM - TOP, class: "prefix" }));
  const steps = eigenvalues.map((value, j) => `${j ? "L" : "M"}${(x(j + 1)).toFixed(1)},${y(value).toFixed(1)}h${each.toFixed(1)}`).join("");
  chart.append(svg("path", { d: steps, class: "curve" }), line(LEFT, height - BOTTOM, width - RIGHT, height - BOTTOM, "axis"));
  const cx = x(coordinate) + each / 2;
  pointer(chart, x, each, coordinate, height);
  const right = cx > width * 0.75;
  chart.append(svg("circle", { cx, cy: y(eigenvalues[coordinate - 1]), r: 5, class: "now-dot" }),
    words(cx + (right ? -9 : 9), y(eigenvalues[coordinate - 1]) - 9, `number ${coordinate}: ${signed(eigenvalues[coordinate - 1])}`, { class: "now-name", "text-anchor": right ? "end" : "start" }));
  pick(chart, eigenvalues.length, x, chosen);
  place.replaceChildren(chart);
}

/** How many images have which value of one number, and where the query falls. */
export function drawHistogram(place, { histogram, query }) {
  const width = widthOf(place);
  const height = 190;
  const { low, high, shares } = histogram;
  const value = query?.value;
  const x = scale(Math.min(low, value ?? low), Math.max(high, value ?? high), LEFT, width - RIGHT);
  const y = scale(0, Math.max(...shares), height - BOTTOM, TOP + 6);
  const chart = frame({ width, height, name: "Values of this number over the gallery", description: `From ${signed(low)} to ${signed(high)}${query ? `; the query has ${signed(value)}, more than ${percent(query.share_below)} of the images` : ""}.` });
  const step = (high - low) / shares.length;
  values(chart, roundTicks(0, Math.max(...shares), 3), y, width, (tick) => `${Number((100 * tick).toFixed(1))} %`);
  for (const [bin, share] of shares.entries()) {
    const from = x(low + bin * step);
    chart.append(svg("rect", { x: from, y: y(share), width: Math.max(0.5, x(low + (bin + 1) * step) - from - 1), height: height - BOTTOM - y(share), class: "bar" }));
  }
  const ticks = roundTicks(low, high, width < 500 ? 4 : 8);
  for (const tick of ticks) chart.append(line(x(tick), height - BOTTOM, x(tick), height - BOTTOM + 5, "axis"), words(x(tick), height - BOTTOM + 19, signed(tick, digitsOf(ticks)), { "text-anchor": "middle" }));
  chart.append(line(LEFT, height - BOTTOM, width - RIGHT, height - BOTTOM, "axis"), words((LEFT + width - RIGHT) / 2, height - 4, "value of this number (share of images above)", { "text-anchor": "middle", class: "axis-name" }));
  if (query) {
    const at = x(value);
    const right = at > width / 2;
    chart.append(line(at, TOP - 6, at, height - BOTTOM, "query-line"), words(at + (right ? -6 : 6), TOP + 2, `the query: ${signed(value)}`, { class: "now-name", "text-anchor": right ? "end" : "start" }));
  }
  place.replaceChildren(chart);
}

function axes(place, length, { name, description, lengths }) {
  const width = widthOf(place);
  const height = Math.round(Math.min(280, Math.max(200, width * 0.34)));
  const chart = frame({ width, height, name, description });
  const x = scale(1, length + 1, LEFT, width - RIGHT);
  const each = (width - RIGHT - LEFT) / length;
  let last = -Infinity;
  for (const tick of lengths ?? [1, ...roundTicks(0, length, width < 500 ? 4 : 8).filter((tick) => tick >= 1)]) {
    const at = lengths ? x(tick + 1) : x(tick) + each / 2;
    chart.append(line(at, height - BOTTOM, at, height - BOTTOM + 5, "axis"));
    if (at - last < 24) continue;
    last = at;
    chart.append(words(at, height - BOTTOM + 19, String(tick), { "text-anchor": "middle" }));
  }
  chart.append(words((LEFT + width - RIGHT) / 2, height - 4, lengths ? "number of the code; ticks: the lengths built" : "number of the code", { "text-anchor": "middle", class: "axis-name" }));
  return { chart, width, height, x, each };
}

function values(chart, ticks, y, width, shown = (tick) => signed(tick, digitsOf(ticks))) {
  for (const tick of ticks) chart.append(line(LEFT, y(tick), width - RIGHT, y(tick), "rule"), words(LEFT - 8, y(tick) + 4, shown(tick), { "text-anchor": "end" }));
}

function pointer(chart, x, each, coordinate, height) {
  const at = x(coordinate) + each / 2;
  chart.append(svg("path", { d: `M${at - 5},${height - BOTTOM + 9}l5,-8l5,8z`, class: "now-pointer" }));
}

/** A click chooses the number below it; with the keyboard the slider above does. */
function pick(chart, length, x, chosen) {
  chart.classList.add("pick");
  chart.addEventListener("click", (event) => {
    const box = chart.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
    const j = Math.floor(1 + ((at - x(1)) / (x(length + 1) - x(1))) * length);
    if (j >= 1 && j <= length) chosen(j);
  });
}
