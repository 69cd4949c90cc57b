// Two to four lengths side by side: what appears, what drops, where ranks move; and what every plan costs.

import { Cards } from "../cards.js";
import { drawPlans, tablePlans } from "../charts/plans.js";
import { button, find, h, plain, settled } from "../dom.js";
import { plural } from "../format.js";
import { lengthControl } from "../length_control.js";
import { inWords, tradeOff } from "../plan_words.js";
import { searchFrom } from "../query.js";
import { latest, search } from "../searching.js";
import { change, listen, remember, state } from "../state.js";

const K = 24;
const NAMES = { a: "First", b: "Second", c: "Third", d: "Fourth" };
const SIDES = Object.keys(NAMES);
const LEAST = 2;

/** Start; `trouble(message)` shows what went wrong, "" that it is over. */
export function startCompare(trouble) {
  const ranks = Object.fromEntries(SIDES.map((side) => [side, new Map()]));
  const answers = {};
  const controls = {};
  const cards = {};
  const places = {};
  const add = plain("Add a length", () => addLength(), { id: "add-length" });
  find("agreement").after(h("p", {}, add));
  for (const side of SIDES) {
    controls[side] = lengthControl({ label: `${NAMES[side]}:`, id: `length-${side}`, moved: (length) => change({ [side]: length }) });
    const list = h("ol", { id: `results-${side}`, class: "grid tight" });
    const remove = button("×", () => removeLength(side), { class: "step remove-length", ariaLabel: `Remove the ${NAMES[side].toLowerCase()} length`, title: "Remove this length" });
    places[side] = h("section", { "aria-label": `${NAMES[side]} length` }, h("div", { class: "control" }, controls[side].element, remove), h("p", { id: `about-${side}`, class: "quiet about" }), list);
    find("sides").append(places[side]);
    cards[side] = new Cards(list, { chosen: searchFrom, extra: (image, rank) => moved(side, image, rank) });
    for (const [event, lit] of [["pointerover", true], ["pointerout", false], ["focusin", true], ["focusout", false]]) list.addEventListener(event, (given) => light(given.target, lit));
  }

  const compared = () => SIDES.filter((side) => state[side] !== null);
  const lengthName = (side) => (state[side] === "auto" ? "auto" : plural(state[side], "number"));

  /** The side that a side's ranks are told against: the last one, or for the last the one before it. */
  function referenceOf(side) {
    const sides = compared();
    return side === sides.at(-1) ? sides.at(-2) : sides.at(-1);
  }

  /** Compare one more length: the longest that is not compared yet. */
  function addLength() {
    const sides = compared();
    const lengths = state.gallery.lengths.map((entry) => entry.length);
    const unused = lengths.filter((length) => !sides.some((side) => state[side] === length));
    const middle = unused[Math.floor(unused.length / 2)] ?? "auto";
    // The last one stays last: it is what the others are compared with.
    const others = [...sides.slice(0, -1).map((side) => state[side]), middle].sort((one, other) => (Number(one) || 0) - (Number(other) || 0)); // auto is first
    setLengths([...others, state[sides.at(-1)]]);
    find(`length-${SIDES[others.indexOf(middle)]}`).focus();
  }

  function removeLength(side) {
    setLengths(compared().filter((other) => other !== side).map((other) => state[other]));
    add.focus();
  }

  const setLengths = (values) => change(Object.fromEntries(SIDES.map((side, place) => [side, values[place] ?? null])), { step: true });

  /** How an image's rank differs from its rank in the list that this one is compared with. */
  function moved(side, image, rank) {
    const reference = referenceOf(side);
    const other = ranks[reference].get(image.id);
    const said = (mark, text, className) => [h("span", { class: `move ${className}` }, h("span", { "aria-hidden": "true" }, mark), h("span", { class: "unseen" }, text))];
    if (other === undefined) return said(compared().length > 2 ? `not in ${state[reference]}` : "only here", `not found with ${lengthName(reference)}`, "alone");
    const by = other - rank;
    if (by === 0) return said("=", `same rank as with ${lengthName(reference)}`, "equal");
    return by > 0 ? said(`▲ ${by}`, `${plural(by, "rank")} higher than with ${lengthName(reference)}`, "up") : said(`▼ ${-by}`, `${plural(-by, "rank")} lower than with ${lengthName(reference)}`, "down");
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
    const sides = compared();
    try {
      const given = await Promise.all(sides.map((side) => search({ length: state[side], target: state.target, filter: state.filter, k: K }, query)));
      if (query !== state.query || sides.join() !== compared().join()) return;
      trouble("");
      for (const [place, side] of sides.entries()) {
        answers[side] = given[place];
        ranks[side] = new Map(given[place].results.map((image, rank) => [image.id, rank]));
      }
      for (const side of sides) {
        cards[side].show(answers[side].results);
        find(`about-${side}`).replaceChildren(h("b", { class: "short" }, lengthName(side)), h("b", {}, costsOf(answers[side].plan, gallery)), h("span", { class: "long" }, ` ${inWords(answers[side].plan, gallery)}`));
      }
      agree();
      remember();
      if (!outdated()) charts();
    } catch (reason) {
      if (query === state.query) trouble(reason.message);
    }
  });

  function agree() {
    const sides = compared();
    const lists = sides.map((side) => [...ranks[side].keys()]);
    const inAll = lists[0].filter((id) => sides.every((side) => ranks[side].has(id)));
    const most = Math.max(...lists.map((list) => list.length));
    const filtered = Object.keys(state.filter).length > 0;
    if (most === 0) {
      find("agreement").textContent = filtered ? "No image satisfies the filter of the search." : "There is no other image.";
      return;
    }
    const among = filtered ? " Only images that satisfy the filter of the search are compared." : "";
    if (sides.length > 2) {
      const [last, others] = [sides.at(-1), sides.slice(0, -1)];
      const shared = others.map((side) => `${lengthName(side)} find ${lists.at(-1).filter((id) => ranks[side].has(id)).length}`);
      find("agreement").textContent = `${inAll.length} of ${most} images are in all ${sides.length} lists. Of what ${lengthName(last)} find, ${shared.join(", ")}. ▲ and ▼: so many ranks higher or lower than with ${lengthName(last)}.${among}`;
      return;
    }
    const [a, b] = lists;
    const stay = inAll.filter((id) => ranks.a.get(id) === ranks.b.get(id)).length;
    find("agreement").textContent = `${inAll.length} of ${most} images are on both sides, ${stay} at the same rank. ` +
      `${a.length - inAll.length} are found only with ${lengthName("a")}, ${b.length - inAll.length} only with ${lengthName("b")}.${among}`;
  }

  function charts() {
    if (state.view !== "compare" || !state.gallery) return;
    const marked = compared().filter((side) => answers[side]).map((side) => ({ plan: answers[side].plan, name: NAMES[side].toLowerCase() }));
    drawPlans(find("plans"), state.gallery.plans, marked);
    tablePlans(find("plans-table"), state.gallery.plans, marked);
  }

  addEventListener("resize", settled(charts, 150));
  listen((changed) => {
    if (changed.has("gallery") && state.gallery) for (const side of SIDES) controls[side].fill(state.gallery);
    const sides = compared();
    for (const side of SIDES) {
      places[side].hidden = !sides.includes(side);
      if (sides.includes(side)) controls[side].set(state[side]);
      places[side].querySelector(".remove-length").hidden = sides.length <= LEAST;
    }
    find("sides").style.setProperty("--sides", String(Math.max(LEAST, sides.length)));
    add.parentElement.hidden = sides.length === SIDES.length;
    if (state.view === "compare" && ["query", ...SIDES, "filter", "gallery", "view"].some((name) => changed.has(name))) run();
  });
  return { again: run };
}

/** "9.9 of the best ten stay, 64 MB for a million pictures, 0.2 ms for a search" */
const costsOf = (plan, gallery) => tradeOff(plan, gallery).map(([, value, about]) => `${value.replace(" of 10", "")} ${[about].flat()[0]}`).join(", ");
