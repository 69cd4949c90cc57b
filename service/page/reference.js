// The API as its document describes it: each call with its parameters, examples and answers. Asks no other host.

import { h } from "./dom.js";

const METHODS = ["get", "post", "put", "patch", "delete"];

const main = document.getElementById("reference");
try {
  const response = await fetch(new URL("openapi.json", new URL(".", document.baseURI)));
  if (!response.ok) throw new Error(`the document was answered ${response.status}`);
  show(await response.json());
} catch (reason) {
  main.append(h("p", { class: "error", role: "alert" }, `The document cannot be read: ${reason.message}.`));
}

function show(api) {
  document.getElementById("title").textContent = `${api.info.title} ${api.info.version}: the API`;
  main.append(h("p", {}, api.info.summary ?? ""));
  const calls = Object.entries(api.paths).flatMap(([path, at]) =>
    METHODS.filter((method) => at[method]).map((method) => ({ method, path, operation: at[method] })));
  for (const tag of api.tags) {
    const tagged = calls.filter(({ operation }) => operation.tags?.includes(tag.name));
    main.append(h("section", {}, h("h2", {}, tag.name), h("p", {}, tag.description), ...tagged.map(describe)));
  }
}

function describe({ method, path, operation }) {
  const name = h("summary", {}, h("code", { class: "method" }, method.toUpperCase()), h("code", {}, path), ` ${operation.summary}`);
  return h("details", {}, name, h("p", {}, operation.description ?? ""), ...parameters(operation.parameters ?? []),
    ...bodies("Body", operation.requestBody?.content ?? {}), ...answers(operation.responses));
}

function parameters(all) {
  if (!all.length) return [];
  const rows = all.map(({ name, required, schema, description }) => h("tr", {}, h("td", {}, h("code", {}, name)),
    h("td", {}, required ? "required" : shown(schema?.default)), h("td", {}, description ?? schema?.description ?? "")));
  return [h("h3", {}, "Parameters"), h("table", {}, h("tbody", {}, ...rows))];
}

function shown(value) {
  return value === undefined || value === null ? "" : `default ${JSON.stringify(value)}`;
}

function bodies(title, content) {
  return Object.entries(content).flatMap(([type, { example }]) => [h("h3", {}, `${title}: ${type}`),
    ...(example === undefined ? [] : [h("pre", {}, h("code", {}, JSON.stringify(example, null, 2)))])]);
}

function answers(all) {
  const rows = Object.entries(all).map(([status, { description }]) => h("tr", {}, h("td", {}, status), h("td", {}, description)));
  const good = Object.entries(all).filter(([status]) => status < 300);
  return [h("h3", {}, "Answers"), h("table", {}, h("tbody", {}, ...rows)),
    ...good.flatMap(([status, { content }]) => bodies(status, content ?? {}))];
}
