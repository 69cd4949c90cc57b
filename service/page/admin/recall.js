// The recall that real searches reached, beside what they were promised.

import { call } from "../api.js";
import { fillTable, h, panel, plain, scrolling } from "../dom.js";
import { count, percent } from "../format.js";

const TITLES = ["Plan", "Results", "Filter", "Promised", "Reached", "95 % interval", "Searches", ""];

/** Build the panel in `place`; `follow` shows the progress of a job. */
export function startRecall(place, follow) {
  const about = h("p", { class: "quiet", id: "recall-about" });
  const table = h("table", { id: "recall" });
  const status = h("p", { id: "recall-status", role: "status" });
  const button = plain("Recalibrate with recent searches", async () => {
    status.textContent = "";
    try {
      follow(await call("/v1/admin/recalibrate", { method: "POST" }));
    } catch (reason) {
      status.textContent = reason.message;
    }
  });
  place.append(panel("recall", "Recall of real searches", about, scrolling("Recall by plan", table), h("p", {}, button), status));

  /** Show the recall of the service's stats, as often as they are read. */
  function tell({ live_recall: { share, plans }, recent_queries }) {
    about.textContent = share
      ? `While it is idle, the service repeats ${percent(share)} of the searches exactly. Codes of ${count(recent_queries)} recent searches are kept for recalibration.`
      : "The service repeats no searches (setting recall_share).";
    table.hidden = plans.length === 0;
    fillTable(table, TITLES, plans.map(row));
  }

  return { tell };
}

function row({ plan, k, filtered, target_recall, searches, recall, recall_low, recall_high, below_promise }) {
  const promised = target_recall ?? plan.expected_recall;
  const name = [`${plan.length} ${plan.kind}`, plan.effort && `effort ${plan.effort}`, plan.rerank && `best ${count(plan.shortlist)} rescored with ${plan.rerank}`];
  return [
    name.filter(Boolean).join(", "), count(k), filtered ? "yes" : "no", promised === undefined || promised === null ? "–" : percent(promised), percent(recall),
    `${percent(recall_low)} to ${percent(recall_high)}`, count(searches), below_promise ? h("b", { class: "bad" }, "below its promise") : "",
  ];
}
