// A plan in words, with what it was measured to find.

import { bytes, count, milliseconds, plural } from "./format.js";
import { same } from "./charts/plans.js";

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
  if (plan.kind === "vamana" || plan.kind.includes("hnsw")) return `along a graph of ${all}, keeping ${plural(plan.effort, "candidate")}`;
  if (plan.kind === "va-file" || plan.kind.startsWith("panorama")) return `with ${all}, leaving each as soon as it cannot win`;
  return `with ${all}`;
}

/** What was measured of a plan; undefined if it was not. */
export function measuredOf(plan, gallery) {
  const alone = gallery.lengths.flatMap((entry) => [entry.alone, entry.rescored]).filter(Boolean);
  return [...gallery.plans, ...alone].find((candidate) => same(candidate, plan));
}

/** How many of the ten best stay: "9.9", "10"; null where it was not measured. */
export function bestThatStay(plan, gallery) {
  const share = plan.exact ? 1 : measuredOf(plan, gallery)?.recall["10"] ?? plan.expected_recall;
  if (share === undefined) return null;
  return share === 1 ? "10" : Math.min(9.9, 10 * share).toFixed(1);
}

/** What the search costs and keeps, as [word, value, what it means, or that and what may be left out]. */
export function tradeOff(plan, gallery) {
  const measured = measuredOf(plan, gallery);
  const each = measured?.bytes_per_image ?? gallery.lengths.find((entry) => entry.length === plan.length)?.bytes_per_image ?? 0;
  const ms = plan.expected_latency_ms ?? measured?.latency_ms.p50;
  const stay = bestThatStay(plan, gallery);
  return [
    ["best ten", stay === null ? "–" : `${stay} of 10`, stay === null ? "of the best: not measured" : "of the best ten stay"],
    ["memory", bytes(each * 1e6), ["for a million pictures", `${bytes(each * 1e7)} for ten million`]],
    ["time", ms === undefined ? "–" : milliseconds(ms), ms === undefined ? "not measured" : "for a search"],
  ];
}

/** How many of the results have the query's label, or the commonest one; null where none has any. */
export function labelShare(results, label, labelOf) {
  const counts = new Map();
  for (const result of results) if (labelOf(result)) counts.set(labelOf(result), (counts.get(labelOf(result)) ?? 0) + 1);
  if (!counts.size) return null;
  const [name, number] = label ? [label, counts.get(label) ?? 0] : [...counts].sort((one, other) => other[1] - one[1])[0];
  return ["same", `${number} of ${results.length}`, label ? `show the same: ${name}` : `show one thing: ${name}`];
}
