// The search: results that follow the slider, the plan in words, time by stage, more at the end of the page.

import { Cards, labelOf } from "../cards.js";
import { drawStrip } from "../charts/bars.js";
import { find, h, svg } from "../dom.js";
import { startFacets } from "../facets.js";
import { startFilters } from "../filters.js";
import { milliseconds, percent, plural } from "../format.js";
import { lengthControl } from "../length_control.js";
import { inWords, labelShare, tradeOff } from "../plan_words.js";
import { searchFrom } from "../query.js";
import { latest, search, unitCode } from "../searching.js";
import { change, listen, remember, state } from "../state.js";
import { term } from "../terms.js";

const FIRST = 24;
const NEXT = 48;
const WATCHED = new Set(["query", "length", "rerank", "target", "filter", "gallery", "view"]);

/** Start; `trouble(message)` shows what went wrong, "" that it is over. */
export function startSearch(trouble) {
  const cards = new Cards(find("results"), { chosen: searchFrom, more: () => extend() });
  const control = lengthControl({ label: "Code length:", id: "length", moved: (length) => change({ length }) });
  find("length-control").append(control.element);
  const [target, rerank, more] = [find("target"), find("rerank"), find("more")];
  const filters = startFilters();
  const facets = startFacets(() => showNumbers());
  let shown = null; // what the results were asked with

  target.addEventListener("change", () => change({ target: target.value }));
  rerank.addEventListener("change", () => change({ rerank: rerank.checked }));
  more.addEventListener("click", () => extend());
  new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) extend(); }, { rootMargin: "200px" }).observe(more);

  const run = latest(async () => {
    const { query, length } = state;
    if (!query || !state.gallery) return;
    const asked = { length, rerank: state.rerank, target: state.target, filter: state.filter, k: FIRST };
    find("results").setAttribute("aria-busy", "true");
    if (!query.code && !query.id) find("status").textContent = "Reading the photograph …";
    try {
      if (query.encoder && query.encoder !== state.gallery.encoder) throw new Error("This link holds a code of another encoder, which says nothing here. Search for the photograph again.");
      const answer = await search(asked, query);
      if (query !== state.query) return; // another was chosen meanwhile: its search comes next
      const { plan } = answer;
      const [most, full] = [plan.rerank ?? plan.length, state.gallery.code_length];
      shown = { asked, query, compared: most === full ? `${full} numbers` : `first ${plural(most, "number")}`, hits: 0, firsts: new Map(), end: answer.results.length < FIRST };
      trouble("");
      show(answer);
      remember();
    } catch (reason) {
      if (query !== state.query) return;
      shown = null;
      cards.show([]); // none of another query's
      find("details").hidden = true; // nothing ran
      for (const id of ["numbers", "timing", "timing-bar", "strip"]) find(id).replaceChildren();
      for (const id of ["plan", "status", "unlike", "why"]) find(id).textContent = "";
      more.hidden = true;
      trouble(reason.message);
    } finally {
      find("results").removeAttribute("aria-busy");
    }
  });

  function show(answer) {
    cards.show(collapsed(answer.results));
    find("details").hidden = false;
    filters.seen(answer.results);
    const plan = answer.plan;
    tellCount();
    find("unlike").textContent = unlikeness(answer);
    find("plan").textContent = inWords(plan, state.gallery);
    shown.answer = answer;
    showNumbers();
    showTiming(answer.timing_ms);
    strip(plan);
  }

  function showNumbers() {
    if (!shown?.answer) return;
    const { plan, results } = shown.answer;
    const [stay, ...costs] = tradeOff(plan, state.gallery);
    // Where all images have one label, or each its own, it says nothing.
    const share = facets.tellApart("label") || facets.tellApart("title") ? labelShare(results, shown.query.label, labelOf) : null;
    const numbers = [stay, share, ...costs].filter(Boolean);
    find("numbers").replaceChildren(...numbers.map(([word, value, about]) => h("div", {}, h("dt", {}, h("b", {}, value)), h("dd", {}, term(word, ...[about].flat())))));
  }

  function strip(plan) {
    const code = unitCode();
    if (code) drawStrip(find("strip"), code, plan.rerank ?? plan.length);
    state.used = plan.length;
  }

  function tellCount() {
    const [n, end] = [cards.count, shown.end];
    find("status").textContent = n === 0 ? (Object.keys(state.filter).length ? "No image satisfies the filter." : "There is no other image.") : `The ${plural(n, "most similar image")}${end ? "; there are no more" : ""}`;
    find("why").replaceChildren(...(n === 0 ? [] : [`First comes the picture whose ${shown.compared} agree best with yours.`, h("span", { class: "long" }, " The number on each is 1 where they agree in full.")]));
    more.hidden = end;
  }

  /** Results without the copies of those before them, which are told with the first of them: the same bytes. */
  function collapsed(results) {
    shown.hits += results.length;
    return results.filter((image) => {
      const first = shown.firsts.get(image.sha256);
      if (first) {
        first.duplicates.push(image);
        cards.refresh(first.id);
      } else shown.firsts.set(image.sha256, Object.assign(image, { duplicates: [] }));
      return !first;
    });
  }

  let extending = false;
  async function extend() {
    if (extending || !shown || shown.end || more.hidden) return;
    extending = true;
    const before = shown;
    try {
      const answer = await search({ ...before.asked, k: NEXT, offset: before.hits }, before.query);
      if (shown !== before) return;
      cards.append(collapsed(answer.results));
      shown.end = answer.results.length < NEXT;
      tellCount();
    } catch (reason) {
      if (shown === before && reason.status === 422) shown.end = true; // as far as pages reach
      if (shown === before && reason.status === 422) tellCount();
      else if (shown === before) trouble(reason.message);
    } finally {
      extending = false;
    }
  }

  listen((changed) => {
    if (changed.has("gallery") && state.gallery) control.fill(state.gallery);
    control.set(state.length);
    target.value = state.target;
    if (target.value !== state.target) target.value = state.target = "0.99";
    rerank.checked = state.rerank;
    find("target-row").hidden = state.length !== "auto";
    find("rerank-row").hidden = state.length === "auto";
    rerank.disabled = state.length === state.gallery?.code_length;
    if (changed.has("filter") || changed.has("gallery")) filters.show();
    if (state.view === "search" && [...changed].some((name) => WATCHED.has(name))) run();
  });
  return { again: run };
}

/** What an answer says about how unlike the query everything is, in words; empty where it is not. */
function unlikeness({ unlike_everything: unlike, query_percentile: query, best_percentile: best }) {
  if (unlike) return `Nothing here looks like this picture, so the results may show something else. Its code lies farther out than those of ${percent(1 - query / 100)} of the gallery’s images.`;
  if (best !== undefined && best !== null && best < 5) return `Nothing here is very like this picture, so the results may show something else. ${percent(1 - best / 100)} of the gallery’s images have a nearer neighbour than the best one found.`;
  return "";
}

/** The time of each stage, and of what is between them, so that the parts add up to the whole. */
function showTiming(stages = {}) {
  const { total, ...parts } = stages;
  const sum = Object.values(parts).reduce((before, ms) => before + ms, 0);
  const whole = Math.max(total ?? sum, sum);
  if (whole - sum > 0.0005) parts.other = whole - sum;
  const pairs = [...Object.entries(parts), ["total", whole]];
  find("timing").replaceChildren(...pairs.map(([stage, ms], place) => h("div", { class: `stage stage-${place % 5}` }, h("dt", {}, stage), h("dd", {}, milliseconds(ms)))));
  const bar = svg("svg", { viewBox: "0 0 100 4", preserveAspectRatio: "none", class: "timing-bar", "aria-hidden": "true" });
  let at = 0;
  for (const [place, [, ms]] of Object.entries(parts).entries()) {
    const wide = (100 * ms) / (whole || 1);
    bar.append(svg("rect", { x: at, y: 0, width: Math.max(0, wide - 0.4), height: 4, class: `stage-${place % 5}` }));
    at += wide;
  }
  find("timing-bar").replaceChildren(bar);
}
