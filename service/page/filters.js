// Filters from the gallery's metadata: what is chosen as words that can be taken away again, and a small form to add.

import { button, find, h, plain } from "./dom.js";
import { change, state } from "./state.js";

const SUGGESTED = 200;
const OPERATORS = { text: [["is", "$eq"], ["is not", "$ne"]], number: [["at least", "$gte"], ["at most", "$lte"], ["is", "$eq"]], boolean: [["is", "$eq"]] };
const SAID = { $eq: "is", $ne: "is not", $gte: "at least", $lte: "at most", $gt: "above", $lt: "below", $in: "one of", $nin: "none of" };

/** Build the filters' bar. Returns {show, seen}: seen(results) learns values to suggest. */
export function startFilters() {
  const place = find("filters");
  const known = new Map();
  const field = h("select", { id: "filter-field", ariaLabel: "Field" });
  const operator = h("select", { id: "filter-operator", ariaLabel: "Comparison" });
  const suggestions = h("datalist", { id: "filter-values" });
  const value = h("input", { id: "filter-value", ariaLabel: "Value", required: true, autocomplete: "off" });
  value.setAttribute("list", "filter-values");
  const truth = h("select", { id: "filter-truth", ariaLabel: "Value" }, h("option", { value: "true" }, "yes"), h("option", { value: "false" }, "no"));
  const form = h("form", { class: "inline", hidden: true }, field, operator, value, truth, suggestions, h("button", { type: "submit" }, "Apply"));
  const opener = plain("Add a filter", () => {
    form.hidden = !form.hidden;
    opener.ariaExpanded = String(!form.hidden);
    if (form.hidden) return;
    fit();
    field.focus();
  }, { ariaExpanded: "false" });
  const chips = h("ul", { class: "chips", "aria-label": "Filters in use" });
  place.append(chips, opener, form);

  const kindOf = () => (state.gallery?.filters[field.value] ?? ["text"])[0];
  function fit() {
    const kind = kindOf();
    operator.replaceChildren(...OPERATORS[kind].map(([said, name]) => h("option", { value: name }, said)));
    value.hidden = kind === "boolean";
    value.required = kind !== "boolean";
    truth.hidden = kind !== "boolean";
    value.type = kind === "number" ? "number" : "text";
    value.step = "any";
    value.value = "";
    suggestions.replaceChildren(...[...(known.get(field.value) ?? [])].sort().slice(0, SUGGESTED).map((text) => h("option", { value: text })));
  }
  field.addEventListener("change", fit);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const kind = kindOf();
    const given = kind === "boolean" ? truth.value === "true" : kind === "number" ? Number(value.value) : value.value;
    const present = state.filter[field.value];
    const kept = present !== null && typeof present === "object" && !Array.isArray(present) ? present : {};
    change({ filter: { ...state.filter, [field.value]: { ...kept, [operator.value]: given } } }, { step: true });
    form.hidden = true;
    opener.ariaExpanded = "false";
    opener.focus();
  });

  function show() {
    const fields = Object.keys(state.gallery?.filters ?? {});
    opener.hidden = fields.length === 0;
    const before = field.value;
    field.replaceChildren(...fields.map((name) => h("option", { value: name }, name)));
    if (fields.includes(before)) field.value = before;
    chips.replaceChildren(...parts(state.filter).map(({ name, said, without }) => {
      const remove = button("×", () => {
        change({ filter: without }, { step: true });
        opener.focus();
      }, { ariaLabel: `Remove the filter: ${name} ${said}`, title: "Remove" });
      return h("li", {}, h("span", {}, `${name} ${said}`.trim()), remove);
    }));
  }

  function seen(results) {
    for (const result of results) for (const [name, given] of Object.entries(result.metadata ?? {})) {
      const values = known.get(name) ?? new Set();
      known.set(name, values);
      for (const one of Array.isArray(given) ? given : [given]) if (typeof one === "string" && values.size < SUGGESTED) values.add(one);
    }
  }
  return { show, seen };
}

/** A filter taken apart into what each part says, and the filter without it. */
function parts(filter) {
  return Object.entries(filter).flatMap(([name, condition]) => {
    const { [name]: _, ...others } = filter;
    if (name === "$or" && condition.every?.((part) => part.$code)) return [{ name: "in the shape on the map", said: "", without: others }];
    if (name === "$code") return [{ name: "in the box on the map", said: "", without: others }];
    if (condition === null || typeof condition !== "object" || Array.isArray(condition)) return [{ name, said: name.startsWith("$") ? "…" : `is ${condition}`, without: others }];
    return Object.entries(condition).map(([operator, value]) => {
      const { [operator]: __, ...rest } = condition;
      return { name, said: `${SAID[operator] ?? operator} ${Array.isArray(value) ? value.join(", ") : value}`, without: Object.keys(rest).length ? { ...others, [name]: rest } : others };
    });
  });
}
