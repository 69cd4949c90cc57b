// The generations that are kept, and going back to one.

import { call } from "../api.js";
import { h } from "../dom.js";
import { bytes, count, moment } from "../format.js";

const TITLES = ["Generation", "Built", "Images", "Lengths", "On disk", ""];

/** Build the panel in `place`; `changed` is called when another generation is served. */
export function startGenerations(place, changed) {
  const table = h("table", { id: "generations" });
  const status = h("p", { id: "generations-status", role: "status" });
  place.append(h("section", { class: "panel", "aria-labelledby": "generations-title" }, h("h2", { id: "generations-title" }, "Generations"),
    h("p", { class: "quiet" }, "Going back to an earlier one loses nothing that was added or removed since."), h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Generations" }, table), status));

  async function show() {
    try {
      const generations = await call("/v1/admin/generations");
      table.replaceChildren(h("thead", {}, h("tr", {}, TITLES.map((title) => (title ? h("th", { scope: "col" }, title) : h("td", {}))))), h("tbody", {}, generations.map(row)));
    } catch (reason) {
      status.textContent = reason.message;
    }
  }

  function row(generation) {
    const action = generation.served ? h("b", {}, "served now") : h("button", { type: "button", class: "plain", "aria-label": `Serve generation ${generation.number}` }, "Serve this one");
    if (!generation.served) action.addEventListener("click", () => activate(generation.number, action));
    return h("tr", {}, [String(generation.number), moment(generation.created), count(generation.count), generation.lengths.join(", "), bytes(generation.bytes), action].map((cell) => h("td", {}, cell)));
  }

  async function activate(number, button) {
    button.disabled = true;
    status.textContent = `Opening generation ${number} …`;
    try {
      await call(`/v1/admin/generations/${number}/activate`, { method: "POST" });
      status.textContent = `Generation ${number} is served.`;
      changed();
    } catch (reason) {
      button.disabled = false;
      status.textContent = reason.message;
    }
    show();
  }

  show();
  return { show, stop() {} };
}
