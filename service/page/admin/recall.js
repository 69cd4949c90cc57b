// The recall that real searches reached, beside what they were promised.

import { call } from "../api.js";
import { h } from "../dom.js";
import { count, percent } from "../format.js";

const TITLES = ["Plan", "Results", "Filter", "Promised", "Reached", "95 % interval", "Searches", ""];

/** Build the panel in `place`; `follow` shows the progress of a job. */
export function startRecall(place, follow) {
  const about = h("p", { class: "quiet", id: "recall-about" });
  const table = h("table", { id: "recall" });
  const button = h("button", { type: "button", class: "plain" }, "Recalibrate with recent searches");
  const status = h("p", { id: "recall-status", role: "status" });
  button.addEventListener("click", async () => {
    status.textContent = "";
    try {
      follow(await call("/v1/admin/recalibrate", { method: "POST" }));
    } catch (reason) {
      status.textContent = reason.message;
    }
  });
  place.append(h("section", { class: "panel", "aria-labelledby": "recall-title" }, h("h2", { id: "recall-title" }, "Recall of real searches"), about,
    h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Recall by plan" }, table), h("p", {}, button), status));

  /** Show the recall of the service's stats, as often as they are read. */
  function tell({ live_recall: { share, plans }, recent_queries }) {
    about.textContent = share
      ? `While it is idle, the service repeats ${percent(share)} of the searches exactly. Codes of ${count(recent_queries)} recent searches are kept for recalibration.`
      : "The service repeats no searches (setting recall_share).";
    table.hidden = plans.length === 0;
    table.replaceChildren(h("thead", {}, h("tr", {}, TITLES.map((title) => (title ? h("th", { scope: "col" }, title) : h("td", {}))))), h("tbody", {}, plans.map(row)));
  }

  return { tell, stop() {} };
}

function row({ plan, k, filtered, target_recall, searches, recall, recall_low, recall_high, below_promise }) {
  const promised = target_recall ?? plan.expected_recall;
  const name = [`${plan.length} ${plan.kind}`, plan.effort && `effort ${plan.effort}`, plan.rerank && `best ${count(plan.shortlist)} rescored with ${plan.rerank}`];
  return h("tr", {}, [
    name.filter(Boolean).join(", "), count(k), filtered ? "yes" : "no", promised === undefined || promised === null ? "–" : percent(promised), percent(recall),
    `${percent(recall_low)} to ${percent(recall_high)}`, count(searches), below_promise ? h("b", { class: "bad" }, "below its promise") : "",
  ].map((cell) => h("td", {}, cell)));
}
