// Calls of the service: its problems as errors, patience where it is busy, news of its going away and coming back.

import { sendAndTell } from "./sending.js";

const TRIES = 5;
const LONGEST_WAIT_S = 5;
const KNOCK_EVERY_MS = 1000;

let key = ""; // for this visit only: it is written nowhere
let lost = false;

/** "lost" and "back" of the service; "busy" with the seconds to wait; "key" when it changes; "admin" when it is known to be the admin key; "locked" if one is needed. */
export const events = new EventTarget();
const tell = (name, detail) => events.dispatchEvent(new CustomEvent(name, { detail }));

/** An answer that is no success; `status` 0 where there was none. */
export class Problem extends Error {
  constructor(message, status, type = "") {
    super(message);
    this.status = status;
    this.type = type;
  }
}

export const hasKey = () => key !== "";

/** Use a key from now on. Throws a Problem for what cannot be one. */
export function useKey(given) {
  if (given !== "" && !/^[\x21-\x7e]+$/.test(given)) throw new Problem("A key has letters, digits and signs only, no spaces.", 0);
  key = given;
  tell("key");
}

export const headers = (more = {}) => (key ? { ...more, Authorization: `Bearer ${key}` } : more);

/** The path of an image, whose id may have slashes of its own. */
export const imagePath = (id) => `/v1/images/${id.split("/").map(encodeURIComponent).join("/")}`;

/**
 * The JSON of an answer. Waits and tries again where the service is busy. Throws a Problem, or AbortError.
 * `onSent` is called with the bytes of the body that were sent so far; such a call knows no `signal`.
 */
export async function call(path, { method = "GET", json, body, signal, type = "json", patient = true, onSent } = {}) {
  const options = { method, signal, body, headers: headers(), onSent };
  if (json !== undefined) {
    options.body = JSON.stringify(json);
    options.headers["Content-Type"] = "application/json";
  }
  for (let attempt = 1; ; attempt += 1) {
    const response = await reach(path, options);
    if (response.ok) return response.status === 204 ? null : response[type]();
    const problem = await response.json().catch(() => null);
    const again = response.status === 429 || response.status === 503;
    if (again && patient && attempt < TRIES) {
      const wait_s = Math.min(LONGEST_WAIT_S, Number(response.headers.get("Retry-After")) || 1);
      tell("busy", wait_s);
      await pause(wait_s * 1000, signal);
      continue;
    }
    if (response.status === 401 || response.status === 403) tell("locked", { status: response.status, path });
    throw new Problem(sentence(problem?.detail ?? `The service answered ${response.status}.`), response.status, problem?.type);
  }
}

/** The address of a path of the service, which a proxy may publish below a path of its own. */
const addressOf = (path) => new URL(path.slice(1), new URL(".", document.baseURI));

async function reach(path, options) {
  try {
    const response = await (options.onSent ? sendAndTell : fetch)(addressOf(path), options);
    if (lost) {
      lost = false;
      tell("back");
    }
    return response;
  } catch (reason) {
    if (reason.name === "AbortError") throw reason;
    gone();
    throw new Problem("The service does not answer.", 0);
  }
}

/** The service does not answer: say so, and knock until it does. */
export function gone() {
  if (lost) return;
  lost = true;
  tell("lost");
  const knock = async () => {
    if (!lost) return;
    const ready = await fetch(addressOf("/readyz"), { cache: "no-store" }).then((response) => response.ok, () => false);
    if (ready && lost) {
      lost = false;
      tell("back");
    } else if (lost) setTimeout(knock, KNOCK_EVERY_MS);
  };
  setTimeout(knock, KNOCK_EVERY_MS);
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("left", "AbortError"));
    });
  });
}

/** A problem's detail as a sentence of its own. */
function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}
