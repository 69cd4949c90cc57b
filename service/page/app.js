// The page: one query, encoded once; moving the slider searches again by its code.

const K = 24;
const element = (id) => document.getElementById(id);
const [drop, file, query, hint, slider, rerank, status, error, results, timing] = [
  "drop", "file", "query", "hint", "length", "rerank", "status", "error", "results", "timing",
].map(element);

let lengths = []; // as GET /v1/lengths tells them
let asked = null; // what is searched for: {form} for a photograph, {id} for an image of the gallery
let code = null; // the query's code, once the service has answered it
let latest = 0; // number of the newest request; answers to older ones are dropped

async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The service does not answer. Is it running?");
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Error(body?.detail ?? `The service answered ${response.status}.`);
  return body;
}

async function loadLengths() {
  const answer = await call("/v1/lengths");
  lengths = answer.lengths;
  slider.max = String(lengths.length - 1);
  const start = lengths.findIndex((entry) => entry.length >= 16);
  slider.value = String(start < 0 ? lengths.length - 1 : start);
  slider.disabled = false;
  element("gallery").textContent =
    `${answer.count.toLocaleString("en")} images, codes of ${answer.code_length} numbers, generation ${answer.generation}`;
  showLength();
  search(); // a photograph may have been chosen before the lengths were known
}

function showLength() {
  const entry = lengths[Number(slider.value)];
  element("length-value").textContent = `${entry.length} of ${lengths.at(-1).length}`;
  element("length-bytes").textContent = `(${entry.bytes_per_image.toLocaleString("en")} bytes an image)`;
  slider.setAttribute("aria-valuetext", `${entry.length} numbers`);
  rerank.disabled = entry.full;
}

function request() {
  const entry = lengths[Number(slider.value)];
  const parameters = { k: K, length: entry.length, rerank: rerank.checked && !entry.full ? "full" : "none" };
  if (code === null && asked.form) {
    const form = new FormData();
    form.set("image", asked.form);
    for (const [name, value] of Object.entries({ ...parameters, include: "metadata,timing,code" })) form.set(name, value);
    return { method: "POST", body: form };
  }
  const body = asked.id ? { ...parameters, id: asked.id } : { ...parameters, code };
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
}

async function search() {
  if (asked === null || lengths.length === 0) return;
  const number = ++latest;
  status.textContent = "Searching …";
  try {
    const answer = await call("/v1/search", request());
    if (number !== latest) return;
    if (answer.code) code = answer.code;
    error.hidden = true;
    show(answer);
  } catch (reason) {
    if (number !== latest) return;
    status.textContent = "";
    error.textContent = reason.message;
    error.hidden = false;
  }
}

function show(answer) {
  const plan = answer.plan;
  const rescored = plan.rerank ? `, best ${plan.shortlist} rescored with ${plan.rerank}` : "";
  status.textContent = `${answer.results.length} results with ${plan.length} numbers${rescored}`;
  timing.replaceChildren(...Object.entries(answer.timing_ms).map(([stage, ms]) => {
    const pair = document.createElement("div");
    pair.append(textElement("dt", stage), textElement("dd", `${ms.toFixed(2)} ms`));
    return pair;
  }));
  results.replaceChildren(...answer.results.map(card));
}

function card(result) {
  const label = String(result.metadata.label ?? result.id);
  const picture = document.createElement("img");
  Object.assign(picture, { src: result.thumbnail, alt: label, loading: "lazy", width: 192, height: 192 });
  const button = document.createElement("button");
  button.type = "button";
  button.title = `Search for images like ${result.id}`;
  button.append(picture, textElement("span", result.score.toFixed(3), "score"), textElement("span", label, "label"));
  button.addEventListener("click", () => searchFor({ id: result.id }, result.thumbnail, label));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

function textElement(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

function searchFor(what, picture, description) {
  asked = what;
  code = null;
  if (query.src.startsWith("blob:")) URL.revokeObjectURL(query.src);
  query.src = picture;
  query.alt = `You search for: ${description}`;
  query.hidden = false;
  hint.textContent = "Drop or paste another, or";
  search();
}

function take(files) {
  const photograph = files?.[0];
  if (photograph) searchFor({ form: photograph }, URL.createObjectURL(photograph), photograph.name);
}

file.addEventListener("change", () => { take(file.files); file.value = ""; });
document.addEventListener("paste", (event) => take(event.clipboardData?.files));
document.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
document.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take(event.dataTransfer?.files);
});
slider.addEventListener("input", () => { showLength(); search(); });
rerank.addEventListener("change", search);
query.addEventListener("error", () => { query.hidden = true; });

loadLengths().catch((reason) => { error.textContent = reason.message; error.hidden = false; });
