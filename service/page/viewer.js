// The photo viewer: one image in full, with the next and the previous, what is known of it, and what can be done.

import { call, hasKey, headers } from "./api.js";
import { button, h, plain } from "./dom.js";
import { addExample } from "./examples.js";
import { count, nameOf, signed } from "./format.js";
import { show } from "./pictures.js";
import { state } from "./state.js";
import { whyMatched } from "./why.js";

const SWIPE = 48; // pixels
const CLOSER = 1.5;
const CLOSEST = 12;

const text = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value));

/** Look at `images`, an array or a function that returns the present one, from the one at `place`. `more` loads more. */
export function openViewer(images, place, { chosen, more = null }) {
  const all = typeof images === "function" ? images : () => images;
  let zoom = 1;
  let at = place;
  const picture = h("img", { class: "whole", draggable: false });
  const stage = h("div", { class: "stage-area", tabIndex: -1, role: "group", ariaLabel: "The picture" }, picture);
  const tool = (said, sign, work, more = {}) => button(sign, work, { class: "tool", ariaLabel: said, title: said, ...more });
  const previous = tool("The image before", "‹", () => go(-1), { class: "tool turn before" });
  const following = tool("The next image", "›", () => go(1), { class: "tool turn after" });
  const place_ = h("span", { class: "quiet" });
  const said = h("span", { role: "status", class: "quiet" });
  const close = tool("Close", "×", () => dialog.close(), { autofocus: true });
  const known = h("dl", { class: "known" });
  const why = h("div", { class: "why" });
  const title = h("h2", {});
  const dialog = h("dialog", { class: "viewer" },
    h("div", { class: "tools" }, place_, said, tool("Smaller", "−", () => scale(1 / CLOSER)), tool("Larger", "+", () => scale(CLOSER)),
      tool("Download", "⤓", () => download(image())), plain("Copy link", () => copy(image()), { title: "A link to a search from this image" }), close),
    h("div", { class: "looking" }, previous, stage, following),
    h("div", { class: "beside" }, title,
      h("div", { class: "inline" }, button("Search from this", () => { dialog.close(); chosen(image()); }),
        ...[["+", "More like this"], ["-", "Less like this"]].map(([sign, name]) => plain(name, () => { addExample(image(), sign); said.textContent = `${name}: added to the search.`; }))),
      known, why));

  const image = () => all()[at];

  async function go(by) {
    if (by > 0 && at + by >= all().length && more) await more();
    if (!all()[at + by] || !dialog.isConnected) return;
    at += by;
    tell();
  }

  /** Scale what is shown; its middle stays where it is. */
  function scale(by) {
    const whole = picture.clientWidth / zoom;
    const middle = [(stage.scrollLeft + stage.clientWidth / 2) / stage.scrollWidth, (stage.scrollTop + stage.clientHeight / 2) / stage.scrollHeight];
    zoom = Math.min(CLOSEST, Math.max(1, zoom * by));
    if (zoom < 1.05) zoom = 1;
    stage.classList.toggle("closer", zoom > 1);
    stage.tabIndex = zoom > 1 ? 0 : -1; // it scrolls then
    picture.style.width = zoom > 1 ? `${whole * zoom}px` : "";
    stage.scrollTo(middle[0] * stage.scrollWidth - stage.clientWidth / 2, middle[1] * stage.scrollHeight - stage.clientHeight / 2);
    said.textContent = zoom > 1 ? `${Math.round(100 * zoom)} %` : "";
  }

  function tell() {
    const one = image();
    scale(0);
    said.textContent = "";
    dialog.setAttribute("aria-label", `About ${one.id}`);
    picture.alt = String(one.metadata?.label ?? nameOf(one));
    show(picture, one.content);
    title.textContent = nameOf(one);
    place_.textContent = `${count(at + 1)} of ${count(all().length)}`;
    previous.disabled = at === 0;
    following.disabled = at + 1 >= all().length && !more;
    if (document.activeElement.disabled) stage.focus(); // a disabled button hears no keys
    const facts = [["name", one.id], ["size", `${count(one.width)} × ${count(one.height)} pixels`], ["type", one.media_type],
      ...(one.score === undefined ? [] : [["score", signed(one.score, one.score > 0.999 ? 6 : 4)]]), ...(one.duplicates?.length ? [["copies", one.duplicates.map((other) => other.id).join(", ")]] : []), ...Object.entries(one.metadata ?? {})];
    const rows = (pairs) => pairs.map(([name, value]) => [h("dt", {}, name), h("dd", {}, text(value))]).flat();
    known.replaceChildren(...rows(facts));
    if (/^image\/(jpeg|tiff|webp|heic|heif|avif|png)$/.test(one.media_type)) {
      call(`/v1/exif?${new URLSearchParams({ id: one.id })}`).then(({ exif }) => { if (image() === one) known.append(...rows(Object.entries(exif).filter(([name]) => one.metadata?.[name] === undefined))); }, () => {});
    }
    why.replaceChildren(...(one.score === undefined || !state.query ? [] : [whyMatched(one)]));
  }

  async function download(one) {
    const link = h("a", { download: nameOf(one), href: one.content });
    if (hasKey()) {
      const response = await fetch(one.content, { headers: headers() }).catch(() => null);
      if (!response?.ok) {
        said.textContent = "It cannot be downloaded.";
        return;
      }
      link.href = URL.createObjectURL(await response.blob());
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    }
    link.click();
  }

  async function copy(one) {
    const address = `${location.href.split("#")[0]}#search?${new URLSearchParams({ id: one.id })}`;
    try {
      await navigator.clipboard.writeText(address);
      said.textContent = "The link is copied.";
    } catch { // a browser lets only secure pages write there
      const field = h("input", { value: address, readOnly: true, ariaLabel: "Link" });
      said.replaceChildren(field);
      field.select();
    }
  }

  const KEYS = { ArrowLeft: () => go(-1), ArrowRight: () => go(1), "+": () => scale(CLOSER), "=": () => scale(CLOSER), "-": () => scale(1 / CLOSER), 0: () => scale(0) };
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLInputElement) return;
    const work = KEYS[event.key];
    if (!work || (zoom > 1 && event.key.startsWith("Arrow"))) return; // a closer picture scrolls
    event.preventDefault();
    event.stopPropagation();
    work();
    if (zoom > 1) stage.focus({ preventScroll: true }); // for the arrows
  });
  let touch = null;
  stage.addEventListener("pointerdown", (event) => { touch = event.isPrimary && zoom === 1 ? { x: event.clientX, y: event.clientY } : null; });
  stage.addEventListener("pointermove", (event) => {
    if (zoom > 1 && event.pointerType === "mouse" && event.buttons) stage.scrollBy(-event.movementX, -event.movementY);
  });
  stage.addEventListener("pointerup", (event) => {
    const [x, y] = touch ? [event.clientX - touch.x, event.clientY - touch.y] : [0, 0];
    touch = null;
    if (Math.abs(x) > SWIPE && Math.abs(x) > 2 * Math.abs(y)) go(x < 0 ? 1 : -1);
  });
  stage.addEventListener("dblclick", () => scale(zoom > 1 ? 0 : 2.5));
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && zoom === 1 && event.deltaY > 0) return;
    event.preventDefault();
    scale(event.deltaY < 0 ? 1.2 : 1 / 1.2);
  }, { passive: false });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  tell();
  dialog.showModal();
}
