// Accuracy, latency and memory of every plan, with the plans in use marked.

import { frame, line, logTicks, mark, scale, widthOf, words } from "./chart.js";
import { fillTable, h, svg } from "../dom.js";
import { bytes, milliseconds, percent, plural } from "../format.js";

const K = "10";
const MISSED = [1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];
const LEAST_MISSED = 0.0004; // what a perfect plan is drawn at: a logarithm of nothing missed has no place
const [LEFT, RIGHT, TOP, BOTTOM] = [76, 18, 14, 46];

const found = (plan) => plan.recall[K];
const missed = (plan) => Math.max(LEAST_MISSED, 1 - found(plan));
export const same = (one, other) => ["length", "kind", "effort", "shortlist", "rerank"].every((name) => (one[name] ?? null) === (other[name] ?? null));

/** Draw the plans into `place`; `marked` is a list of {plan, name}. */
export function drawPlans(place, plans, marked) {
  const width = widthOf(place);
  const height = Math.round(Math.min(420, Math.max(280, width * 0.5)));
  const lengths = [...new Set(plans.map((plan) => plan.length))].sort((a, b) => a - b);
  const times = plans.map((plan) => plan.latency_ms.p50);
  const [fast, slow] = [Math.min(...times) / 1.25, Math.max(...times) * 1.25];
  const x = scale(Math.log(fast), Math.log(slow), LEFT, width - RIGHT);
  const worst = Math.max(...plans.map(missed));
  const y = scale(Math.log(LEAST_MISSED), Math.log(Math.min(1, worst * 1.3)), TOP + 8, height - BOTTOM);
  const most = Math.max(...plans.map((plan) => plan.bytes_per_image));
  const chart = frame({
    width, height, name: "Plans by what they find and how long they take",
    description: `${plural(plans.length, "plan")}; the table below holds the same numbers.`,
  });

  let last = Infinity;
  for (const share of MISSED.filter((share) => share <= Math.min(1, worst * 1.3)).reverse()) {
    const at = y(Math.log(share));
    if (Math.abs(at - last) < 16) continue;
    last = at;
    chart.append(line(LEFT, at, width - RIGHT, at, "rule"), words(LEFT - 8, at + 4, `${Number((100 * (1 - share)).toFixed(1))} %`, { "text-anchor": "end" }));
  }
  const exact = y(Math.log(LEAST_MISSED));
  chart.append(line(LEFT, exact, width - RIGHT, exact, "rule"), words(LEFT - 8, exact + 4, "all", { "text-anchor": "end" }));
  let right = -Infinity;
  for (const tick of logTicks(fast, slow)) {
    const at = x(Math.log(tick));
    if (at - right < 56) continue;
    right = at;
    chart.append(line(at, height - BOTTOM, at, height - BOTTOM + 5, "axis"), words(at, height - BOTTOM + 19, milliseconds(tick), { "text-anchor": "middle" }));
  }
  chart.append(line(LEFT, height - BOTTOM, width - RIGHT, height - BOTTOM, "axis"),
    words((LEFT + width - RIGHT) / 2, height - 6, "median time of a search", { "text-anchor": "middle", class: "axis-name" }),
    words(14, (TOP + height - BOTTOM) / 2, `of the best ${K}, found`, { "text-anchor": "middle", class: "axis-name", transform: `rotate(-90 14 ${(TOP + height - BOTTOM) / 2})` }));

  const radius = (plan) => 3.5 + 5.5 * Math.sqrt(plan.bytes_per_image / most);
  for (const plan of [...plans].sort((a, b) => b.bytes_per_image - a.bytes_per_image)) {
    const shape = mark(lengths.indexOf(plan.length), x(Math.log(plan.latency_ms.p50)), y(Math.log(missed(plan))), radius(plan), "plan-mark");
    shape.append(svg("title", {}, sentence(plan)));
    chart.append(shape);
  }
  const names = []; // places of those that were written: another one near them goes above
  for (const { plan, name } of marked) {
    const known = plans.find((candidate) => same(candidate, plan));
    if (!known) continue;
    const [cx, cy] = [x(Math.log(known.latency_ms.p50)), y(Math.log(missed(known)))];
    const left = cx > width * 0.66;
    const at = { x: cx + (left ? -1 : 1) * (radius(known) + 10), y: cy + 4 };
    while (names.some((other) => Math.abs(other.x - at.x) < 90 && Math.abs(other.y - at.y) < 16)) at.y -= 16;
    names.push(at);
    chart.append(svg("circle", { cx, cy, r: radius(known) + 5, class: "now-ring" }), words(at.x, at.y, name, { "text-anchor": left ? "end" : "start", class: "now-name" }));
  }
  place.replaceChildren(chart, legend(lengths));
}

function legend(lengths) {
  return h("ul", { class: "legend", "aria-label": "Marks" }, lengths.map((length, place) =>
    h("li", {}, svg("svg", { width: 16, height: 16, viewBox: "0 0 16 16", "aria-hidden": "true" }, mark(place, 8, 8, 6, "plan-mark")), plural(length, "number"))));
}

const sentence = (plan) => `${how(plan)}: finds ${percent(found(plan))} in ${milliseconds(plan.latency_ms.p50)}, ${bytes(plan.bytes_per_image)} an image`;

const how = (plan) => [plural(plan.length, "number"), plan.kind, plan.effort && `effort ${plan.effort}`, plan.rerank && `best ${plan.shortlist} rescored with ${plan.rerank}`].filter(Boolean).join(", ");

/** The same as a table. */
export function tablePlans(table, plans, marked) {
  const titles = ["Numbers", "Index", "Effort", "Rescored", "Found of the best 10", "Median time", "95 % take less than", "Memory an image", "In use"];
  const rows = plans.map((plan) => [
    String(plan.length), plan.kind, plan.effort ? String(plan.effort) : "–", plan.rerank ? `best ${plan.shortlist} with ${plan.rerank}` : "–",
    percent(found(plan)), milliseconds(plan.latency_ms.p50), milliseconds(plan.latency_ms.p95), bytes(plan.bytes_per_image),
    marked.filter((one) => same(one.plan, plan)).map((one) => one.name).join(", "),
  ]);
  fillTable(table, titles, rows);
}
