// Two lengths side by side: what appears, what drops, where ranks move; and what every plan costs.

import { Cards } from "../cards.js";
import { drawPlans, tablePlans } from "../charts/plans.js";
import { find, h, settled } from "../dom.js";
import { plural } from "../format.js";
import { lengthControl } from "../length_control.js";
import { inWords, tradeOff } from "../plan_words.js";
import { searchFrom } from "../query.js";
import { latest, search } from "../searching.js";
import { change, listen, remember, state } from "../state.js";

const K = 24;
const SIDES = ["a", "b"];

/** Start; `trouble(message)` shows what went wrong, "" that it is over. */
export function startCompare(trouble) {
  const ranks = { a: new Map(), b: new Map() };
  const answers = { a: null, b: null };
  const controls = {};
  const cards = {};
  for (const side of SIDES) {
    controls[side] = lengthControl({ label: side === "a" ? "Left:" : "Right:", id: `length-${side}`, moved: (length) => change({ [side]: length }) });
    find(`control-${side}`).append(controls[side].element);
    cards[side] = new Cards(find(`results-${side}`), { chosen: searchFrom, extra: (image, rank) => moved(side, image, rank) });
    const list = find(`results-${side}`);
    for (const [event, lit] of [["pointerover", true], ["pointerout", false], ["focusin", true], ["focusout", false]]) list.addEventListener(event, (given) => light(given.target, lit));
  }

  /** How an image's rank on one side differs from the other's. */
  function moved(side, image, rank) {
    const other = ranks[side === "a" ? "b" : "a"].get(image.id);
    const said = (mark, text, className) => [h("span", { class: `move ${className}` }, h("span", { "aria-hidden": "true" }, mark), h("span", { class: "unseen" }, text))];
    if (other === undefined) return said("only here", "only here", "alone");
    const by = other - rank;
    if (by === 0) return said("=", "same rank on both sides", "equal");
    return by > 0 ? said(`▲ ${by}`, `${plural(by, "rank")} higher than on the other side`, "up") : said(`▼ ${-by}`, `${plural(-by, "rank")} lower than on the other side`, "down");
  }

  function light(target, lit) {
    const item = target.closest?.("li");
    if (!item) return;
    for (const side of SIDES) for (const card of cards[side].cards.values()) {
      if (card.item === item) for (const other of SIDES) cards[other].cards.get(card.image.id)?.item.classList.toggle("lit", lit);
    }
  }

  const run = latest(async (outdated) => {
    const { query, gallery } = state;
    if (!gallery) return;
    charts();
    if (!query) return;
    if (query.encoder && query.encoder !== gallery.encoder) {
      trouble("This link holds a code of another encoder, which says nothing here. Search for the photograph again.");
      return;
    }
    const asked = (length) => search({ length, target: state.target, filter: state.filter, k: K }, query);
    try {
      const [first, second] = [asked(state.a), asked(state.b)];
      [answers.a, answers.b] = await Promise.all([first, second]);
      if (query !== state.query) return;
      trouble("");
      for (const side of SIDES) ranks[side] = new Map(answers[side].results.map((image, rank) => [image.id, rank]));
      for (const side of SIDES) {
        cards[side].show(answers[side].results);
        find(`about-${side}`).replaceChildren(h("b", {}, tradeOff(answers[side].plan, gallery).map(([, value, about]) => `${value} ${[about].flat()[0]}`).join(", ")), ` ${inWords(answers[side].plan, gallery)}`);
      }
      agree();
      remember();
      if (!outdated()) charts();
    } catch (reason) {
      if (query === state.query) trouble(reason.message);
    }
  });

  function agree() {
    const [a, b] = SIDES.map((side) => [...ranks[side].keys()]);
    const both = a.filter((id) => ranks.b.has(id));
    const stay = both.filter((id) => ranks.a.get(id) === ranks.b.get(id)).length;
    const name = (side) => (state[side] === "auto" ? "auto" : plural(state[side], "number"));
    find("agreement").textContent = `${both.length} of ${Math.max(a.length, b.length)} images are on both sides, ${stay} at the same rank. ` +
      `${a.length - both.length} are found only with ${name("a")}, ${b.length - both.length} only with ${name("b")}.`;
  }

  function charts() {
    if (state.view !== "compare" || !state.gallery) return;
    const marked = SIDES.filter((side) => answers[side]).map((side) => ({ plan: answers[side].plan, name: side === "a" ? "left" : "right" }));
    drawPlans(find("plans"), state.gallery.plans, marked);
    tablePlans(find("plans-table"), state.gallery.plans, marked);
  }

  addEventListener("resize", settled(charts, 150));
  listen((changed) => {
    if (changed.has("gallery") && state.gallery) for (const side of SIDES) controls[side].fill(state.gallery);
    for (const side of SIDES) controls[side].set(state[side]);
    if (state.view === "compare" && ["query", "a", "b", "filter", "gallery", "view"].some((name) => changed.has(name))) run();
  });
  return { again: run };
}
