// The eigenfunctions: one number of the code at a time, the spectrum, and the query's code.

import { call } from "../api.js";
import { Cards } from "../cards.js";
import { drawCode, drawHistogram, drawSpectrum } from "../charts/bars.js";
import { button, find, h, settled } from "../dom.js";
import { percent, signed } from "../format.js";
import { searchFrom } from "../query.js";
import { latest, search, unitCode } from "../searching.js";
import { change, listen, remember, state } from "../state.js";

const ENDS = [["top", "Largest values"], ["middle", "In the middle"], ["bottom", "Smallest values"]];

/** Start; `trouble(message)` shows what went wrong, "" that it is over. */
export function startEigenfunctions(trouble) {
  let spectrum = null; // GET /v1/eigenfunctions of a generation
  let answer = null;
  const slider = h("input", { type: "range", id: "coordinate", min: "1", max: "1", value: "1", step: "1" });
  const value = h("output", { id: "coordinate-value", htmlFor: "coordinate" });
  const step = (by, text, label) => button(text, () => choose(state.coordinate + by), { class: "step", ariaLabel: label });
  find("coordinate-control").append(h("div", { class: "length-label" }, h("label", { htmlFor: "coordinate" }, "Number of the code:"), value),
    h("div", { class: "stepped" }, step(-1, "‹", "The number before"), slider, step(1, "›", "The number after")));
  slider.addEventListener("input", () => choose(Number(slider.value)));
  const ends = new Map(ENDS.map(([name, title]) => {
    const list = h("ol", { class: "grid tight", id: `end-${name}` });
    find("ends").append(h("section", { class: "panel", "aria-label": title }, h("h2", {}, title), list));
    return [name, new Cards(list, { chosen: (image) => searchFrom(image), extra: (image) => [signed(image.value)] })];
  }));

  function choose(coordinate) {
    const most = state.gallery?.code_length ?? 1;
    change({ coordinate: Math.min(most, Math.max(1, coordinate)) });
  }

  const run = latest(async (outdated) => {
    const { gallery, query, coordinate } = state;
    if (!gallery) return;
    try {
      if (query && (!query.code || (state.length === "auto" && !state.used))) {
        const found = await search({ length: state.length, rerank: state.rerank, target: state.target, k: 24 }, query);
        state.used = found.plan.length;
      }
      if (outdated()) return;
      const code = unitCode();
      if (spectrum?.generation !== gallery.generation) spectrum = await call("/v1/eigenfunctions");
      answer = await call(`/v1/eigenfunctions/${coordinate}${code ? `?value=${code[coordinate - 1]}` : ""}`);
      for (const [name, cards] of ends) cards.show(answer[name], { moving: false });
      trouble("");
      missing("");
    } catch (reason) {
      answer = null;
      if (reason.status === 404 && reason.type?.includes("eigenfunction")) missing(reason.message);
      else trouble(reason.message);
    }
    remember();
    draw();
  });

  /** A generation of an earlier version has no eigenfunctions: its spectrum and the query's code are shown all the same. */
  function missing(message) {
    find("no-eigenfunctions").textContent = message;
    find("no-eigenfunctions").hidden = message === "";
    find("ends").hidden = find("histogram").hidden = find("falls").hidden = message !== "";
  }

  function draw() {
    const { gallery, coordinate } = state;
    if (state.view !== "eigenfunctions" || !gallery) return;
    const code = unitCode();
    const eigenvalues = spectrum?.eigenvalues ?? gallery.eigenvalues;
    const used = state.length === "auto" ? state.used ?? gallery.code_length : state.length;
    const eigenvalue = eigenvalues[coordinate - 1];
    find("eigenvalue").textContent = `Eigenvalue ${signed(eigenvalue)}: near 1 if this number agrees closely between two pictures of the same thing and differs much between others.`;
    if (answer) drawHistogram(find("histogram"), answer);
    find("falls").textContent = !answer ? "" : answer.query
      ? `The query has ${signed(answer.query.value)}: more than ${percent(answer.query.share_below)} of the images.`
      : "Search for something to see where it falls.";
    drawSpectrum(find("spectrum"), { eigenvalues, lengths: gallery.lengths.map((entry) => entry.length), used, coordinate, chosen: choose });
    find("code-about").textContent = code
      ? "Bars: the query, scaled to length 1. Grey behind them: where 90 % of the gallery's images lie. Filled bars and the tinted part: the beginning that the search uses. Click a bar to look at its number."
      : "Search for something to see its code.";
    if (code) drawCode(find("code"), { code, used, spectrum, coordinate, chosen: choose });
    else find("code").replaceChildren();
  }

  addEventListener("resize", settled(draw, 150));
  listen((changed) => {
    slider.max = String(state.gallery?.code_length ?? 1);
    if (slider.value !== String(state.coordinate)) slider.value = String(state.coordinate);
    value.textContent = `${state.coordinate} of ${state.gallery?.code_length ?? "…"}`;
    slider.setAttribute("aria-valuetext", value.textContent);
    if (state.view === "eigenfunctions" && ["query", "coordinate", "gallery", "view"].some((name) => changed.has(name))) run();
  });
  return { again: run };
}
