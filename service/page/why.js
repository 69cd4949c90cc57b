// Why an image matched: which numbers of its code and the query's agree and differ, with images of their ends.

import { call } from "./api.js";
import { h } from "./dom.js";
import { percent, signed } from "./format.js";
import { thumbnail } from "./pictures.js";
import { unitCode } from "./searching.js";
import { state } from "./state.js";

const SHOWN = 3;
const ENDS = 3;
const LEAST = 0.0005; // of a share: less is told as 0.000

/** A part that is filled when it is opened. */
export function whyMatched(image) {
  const inside = h("div", { class: "reasons" }, h("p", { class: "quiet" }, "…"));
  const details = h("details", {}, h("summary", {}, "Why did this match?"), inside);
  details.addEventListener("toggle", async () => {
    if (!details.open || inside.dataset.filled) return;
    inside.dataset.filled = "yes";
    try {
      inside.replaceChildren(...(await reasons(image)));
    } catch (reason) {
      delete inside.dataset.filled;
      inside.replaceChildren(h("p", { class: "bad" }, reason.message));
    }
  });
  return details;
}

async function reasons(image) {
  const query = unitCode();
  if (!query) throw new Error("Your picture is still being searched for.");
  const answer = await call("/v1/search", { method: "POST", json: { id: image.id, k: 1, include: ["code"] } });
  const other = unitCode({ code: answer.code });
  const used = state.used ?? query.length;
  const scale = (code) => code.slice(0, used).map((value) => value / (Math.hypot(...code.slice(0, used)) || 1));
  const [a, b] = [scale(query), scale(other)];
  // The score is the sum of these products: what agrees raises it, what differs lowers it.
  const shares = a.map((value, place) => ({ coordinate: place + 1, share: value * b[place], query: query[place], image: other[place] }));
  const score = shares.reduce((sum, { share }) => sum + share, 0);
  const raising = shares.filter(({ share }) => share > 0).sort((one, two) => two.share - one.share);
  const agree = raising.slice(0, SHOWN);
  const differ = shares.filter(({ share }) => share <= -LEAST).sort((one, two) => one.share - two.share).slice(0, SHOWN);
  const most = agree.reduce((sum, { share }) => sum + share, 0) / (raising.reduce((sum, { share }) => sum + share, 0) || 1);
  const ends = new Map(await Promise.all([...agree, ...differ].map(async ({ coordinate }) => [coordinate, await call(`/v1/eigenfunctions/${coordinate}`).catch(() => null)])));
  const part = (title, list, said) => [h("h3", {}, title), list.length ? h("ol", {}, list.map((one) => row(one, ends.get(one.coordinate)))) : h("p", { class: "quiet" }, said)];
  return [
    h("p", {}, `By the first ${used} numbers the two score ${signed(score)}. The ${agree.length} that agree most make ${percent(most)} of what speaks for it.`),
    ...part("They agree", agree, "No number of theirs has the same sign."),
    ...part("They differ", differ, "No number of theirs differs by much."),
  ];
}

/** One number of the codes: the end that the query lies towards, and the image's where it is the other one. */
function row({ coordinate, share, query, image }, function_) {
  const towards = (value) => (value >= 0 ? function_?.top : function_?.bottom)?.slice(0, ENDS).map((one) => thumbnail(one.thumbnail, "")) ?? [];
  const same = query >= 0 === image >= 0;
  const side = (who, value) => h("span", { class: "end" }, h("span", { class: "quiet" }, `${who} ${signed(value)}`), h("span", { class: "end-pictures" }, towards(value)));
  return h("li", {}, h("b", {}, `Number ${coordinate}`), h("span", { class: share >= 0 ? "good" : "bad" }, `${share >= 0 ? "+" : ""}${signed(share)}`),
    same ? side(`both like these: ${signed(query)} and`, image) : [side("the query is like these:", query), side("this image is like these:", image)]);
}
