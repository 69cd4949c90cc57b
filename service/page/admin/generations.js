// The generations that are kept, and going back to one.

import { call } from "../api.js";
import { fillTable, h, panel, plain, scrolling } from "../dom.js";
import { bytes, count, moment } from "../format.js";

const TITLES = ["Generation", "Built", "Images", "Lengths", "On disk", ""];

/** Build the panel in `place`; `changed` is called when another generation is served. */
export function startGenerations(place, changed) {
  const table = h("table", { id: "generations" });
  const status = h("p", { id: "generations-status", role: "status" });
  place.append(panel("generations", "Generations",
    h("p", { class: "quiet" }, "Going back to an earlier one loses nothing that was added or removed since."), scrolling("Generations", table), status));

  async function show() {
    try {
      fillTable(table, TITLES, (await call("/v1/admin/generations")).map(row));
    } catch (reason) {
      status.textContent = reason.message;
    }
  }

  function row(generation) {
    const action = generation.served ? h("b", {}, "served now") : plain("Serve this one", () => activate(generation.number, action), { ariaLabel: `Serve generation ${generation.number}` });
    return [String(generation.number), moment(generation.created), count(generation.count), generation.lengths.join(", "), bytes(generation.bytes), action];
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
  return { show };
}
