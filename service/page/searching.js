// Searches: a photograph is sent and encoded once, everything after that goes by its code.

import { call } from "./api.js";
import { state } from "./state.js";

const INCLUDE = ["metadata", "timing", "code"];

/** The service's answer to the present query. Throws a Problem. */
export async function search({ length, rerank = false, target, filter, k, offset = 0 }, query = state.query) {
  const parameters = { k, length, include: INCLUDE };
  if (offset) parameters.offset = offset;
  if (length === "auto") parameters.target_recall = Number(target ?? 0.99);
  else if (rerank && length !== state.gallery.code_length) parameters.rerank = "full";
  if (filter && Object.keys(filter).length) parameters.filter = filter;
  if (query.positive) return noted(query, await post({ ...parameters, positive: await told(query.positive), negative: await told(query.negative) }));
  if (query.id) return noted(query, await post({ ...parameters, id: query.id }));
  if (!query.code) {
    if (!query.encoding) {
      query.encoding = encode(query, parameters);
      try {
        return await query.encoding;
      } finally {
        query.encoding = null;
      }
    }
    await query.encoding;
  }
  return post({ ...parameters, code: query.code });
}

/** Examples as a search takes them; a photograph is sent and encoded once. */
async function told(examples) {
  return Promise.all(examples.map(async (example) => {
    if (example.id) return { id: example.id };
    if (!example.code) await encode(example, { k: 1, include: ["code"] });
    return { code: example.code };
  }));
}

const post = (json) => call("/v1/search", { method: "POST", json });

async function encode(query, parameters) {
  const form = new FormData();
  form.set("image", query.file);
  for (const [name, value] of Object.entries(parameters)) {
    form.set(name, name === "filter" ? JSON.stringify(value) : String(value));
  }
  return noted(query, await call("/v1/search", { method: "POST", body: form }));
}

function noted(query, answer) {
  if (answer.code) query.code = answer.code;
  return answer;
}

/** The query's code scaled to unit norm, as eigenfunctions are told; null before the first answer. */
export function unitCode(query = state.query) {
  if (!query?.code) return null;
  const norm = Math.hypot(...query.code) || 1;
  return query.code.map((value) => value / norm);
}

/** Calls of `work` one after the other: what is asked for meanwhile is done once, with what then is the case. */
export function latest(work) {
  let busy = false;
  let again = false;
  return async function run() {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      do {
        again = false;
        await work(() => again);
      } while (again);
    } finally {
      busy = false;
    }
  };
}
