// A box on the map: how many images it has; they are searched, linked to, or taken as a table.

import { call } from "../api.js";
import { find, h } from "../dom.js";
import { plural } from "../format.js";
import { change, state } from "../state.js";

/** The filter of a search that leaves the images of a box. */
export const filterOf = (axes, box) => ({ $code: { [axes.x]: { $gte: box.left, $lte: box.right }, [axes.y]: { $gte: box.bottom, $lte: box.top } } });

/** The panel of a box; `forget` takes the box away. Returns {show(axes, box)}, box null for none. */
export function startBox(forget) {
  const place = find("map-box");
  let now = null;

  const region = () => new URLSearchParams({ ...now.axes, ...now.box });
  const search = () => change({ view: "search", filter: { ...state.filter, ...filterOf(now.axes, now.box) } }, { step: true });

  async function link(button) {
    try {
      await navigator.clipboard.writeText(location.href);
      button.textContent = "Copied";
    } catch {
      button.textContent = "The address above is the link"; // no right to copy
    }
  }

  /** Save the table, fetched with the key where there is one, since a link sends none. */
  async function save() {
    const table = await call(`/v1/map/images?${region()}`, { type: "blob" });
    const address = URL.createObjectURL(table);
    h("a", { href: address, download: "map.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  }

  return {
    async show(axes, box) {
      now = box && { axes, box };
      place.hidden = !box;
      if (!box) return;
      const asked = now;
      const count = h("b", {}, "…");
      const button = (text, work) => {
        const made = h("button", { type: "button", class: "plain", on: { click: () => work(made) } }, text);
        return made;
      };
      place.replaceChildren(h("p", { role: "status" }, count, " in the box"), h("button", { type: "button", on: { click: search } }, "Search only these"), button("Copy a link", link), button("Save their names (CSV)", save), button("Remove the box", forget));
      const answer = await call(`/v1/map?${new URLSearchParams({ ...axes, ...box, columns: 1, rows: 1, parts: 1 })}`).catch(() => null);
      if (answer && asked === now) count.textContent = plural(answer.count, "image");
    },
  };
}
