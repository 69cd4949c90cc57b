// A plan in words, with what it was measured to find.

import { bytes, count, milliseconds, percent, plural } from "./format.js";
import { same } from "./charts/plans.js";

const WALKS = { hnsw: "walked a graph of them", "hnsw-sq8": "walked a graph of them" };

/** One or two sentences on how a search ran over `gallery`. */
export function inWords(plan, gallery) {
  const full = gallery.code_length;
  const all = plural(gallery.count, "image");
  const numbers = plan.length === full ? `all ${full} numbers of the code` : `the first ${plan.length} of ${full} numbers`;
  const first = `Compared ${numbers} ${walk(plan, all)}`;
  if (!plan.rerank) return `${first}.`;
  const again = plan.rerank === plan.length ? `those ${plural(plan.rerank, "number")}, exactly` : plan.rerank === full ? `all ${full}` : `${plan.rerank}`;
  return `${first}, then rescored the best ${count(plan.shortlist)} with ${again}.`;
}

function walk(plan, all) {
  if (plan.kind.startsWith("ivf")) return `with the images in ${plural(plan.effort, "list")} nearest to the query`;
  if (WALKS[plan.kind] || plan.kind.includes("hnsw")) return `along a graph of ${all}, keeping ${plural(plan.effort, "candidate")}`;
  if (plan.kind.startsWith("panorama")) return `with ${all}, leaving each as soon as it cannot win`;
  return `with ${all}`;
}

/** [name, value, explanation] of what a search costs and finds. */
export function tradeOff(plan, gallery) {
  const measured = gallery.plans.find((candidate) => same(candidate, plan));
  const length = gallery.lengths.find((entry) => entry.length === plan.length);
  const finds = plan.exact ? "all" : plan.expected_recall === undefined ? "–" : percent(plan.expected_recall);
  const unknown = "not measured at build";
  return [
    ["finds", finds, plan.expected_recall === undefined ? unknown : "of the full code’s best"],
    ["takes", plan.expected_latency_ms === undefined ? "–" : milliseconds(plan.expected_latency_ms), plan.expected_latency_ms === undefined ? unknown : "for the search alone"],
    ["needs", bytes(measured?.bytes_per_image ?? length?.bytes_per_image ?? 0), "of memory an image"],
  ];
}
