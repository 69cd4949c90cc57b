// Result cards: made once for each image, moved rather than made again, so that pictures stay.

import { button, h, still } from "./dom.js";
import { addExample, DRAGGED, exampleButtons } from "./examples.js";
import { count, nameOf, plural, signed } from "./format.js";
import { thumbnail } from "./pictures.js";
import { openViewer } from "./viewer.js";

const ANIMATED = 48;

/** What is known of what it shows; empty if nothing is. */
export const labelOf = (image) => String(image.metadata?.label ?? image.metadata?.title ?? "");

/** How scores are told: with so many digits that they differ, and bars from the worst to the best of them. */
export function scaleOf(images) {
  const scores = images.map((image) => image.score ?? 0);
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  let digits = 3;
  while (digits < 6 && new Set(scores.map((score) => score.toFixed(digits))).size < scores.length / 2) digits += 1;
  return { digits, share: (score) => (high > low ? 0.15 + (0.85 * (score - low)) / (high - low) : 1) };
}

const DATES = ["taken", "date", "created", "datetime", "time"];

/** The day that the metadata tell of an image, as the reader's system writes it; "" where they tell none. */
export function dateOf(image) {
  const said = DATES.map((name) => image.metadata?.[name]).find((value) => typeof value === "string" && /^\d{4}-\d\d/.test(value));
  const day = said && new Date(said);
  return day && !Number.isNaN(day.getTime()) ? day.toLocaleDateString(undefined, { dateStyle: "medium" }) : "";
}

/** Width to height as a row shows it: neither too narrow nor too wide. */
const shapeOf = ({ width, height }) => Math.min(2.4, Math.max(0.6, width && height ? width / height : 1));

/** A list of results in `list`; `chosen` is called with the image of a card that is clicked. */
export class Cards {
  constructor(list, { chosen, extra = () => [], actions = () => [], more = null, describe = (image) => `Search for images like ${image.id}` }) {
    Object.assign(this, { list, chosen, extra, actions, more, describe, cards: new Map(), scale: scaleOf([]) });
  }

  /** Look at an image in full, with those beside it. */
  view(id) {
    const images = () => [...this.cards.values()].map((card) => card.image);
    openViewer(images, images().findIndex((image) => image.id === id), { chosen: this.chosen, more: this.more });
  }

  get count() {
    return this.cards.size;
  }

  /** Show these images and no others, in this order; where they were shown already, they move there. */
  show(images, { moving = true } = {}) {
    const animated = moving && !still() && this.cards.size > 0 && this.list.getBoundingClientRect().top < innerHeight;
    const before = animated ? this.places() : new Map();
    const next = new Map();
    this.scale = scaleOf(images);
    for (const [rank, image] of images.entries()) {
      const card = this.cards.get(image.id) ?? this.make(image);
      this.update(card, image, rank);
      next.set(image.id, card);
    }
    this.cards = next;
    const items = [...next.values()].map((card) => card.item);
    // Taken out and put back, a card would lose the click that is under way.
    if (items.length !== this.list.children.length || items.some((item, place) => item !== this.list.children[place])) this.replace(items);
    if (animated) this.animate(before);
  }

  /** Put these items into the list. The focus stays on its card, or where that one was. */
  replace(items) {
    const focused = document.activeElement;
    const place = [...this.list.children].findIndex((item) => item.contains(focused));
    this.list.replaceChildren(...items);
    if (place < 0) return;
    const next = this.list.contains(focused) ? focused : items[Math.min(place, items.length - 1)]?.querySelector("button");
    next?.focus({ preventScroll: true });
  }

  /** Show more images behind those that are shown; ones that are shown already are passed over. */
  append(images) {
    for (const image of images) {
      if (this.cards.has(image.id)) continue;
      const card = this.make(image);
      this.update(card, image, this.cards.size);
      this.cards.set(image.id, card);
      this.list.append(card.item);
    }
  }

  /** Tell anew what is known of an image that is shown. */
  refresh(id) {
    const card = this.cards.get(id);
    if (card) this.update(card, card.image, Number(card.item.dataset.rank) - 1);
  }

  /** Make all cards again when they are shown next. */
  forget() {
    this.cards.clear();
  }

  /** Show an image no longer. */
  drop(id) {
    this.cards.get(id)?.item.remove();
    this.cards.delete(id);
  }

  make(image) {
    const name = nameOf(image);
    const [label, date] = [labelOf(image), dateOf(image)];
    const score = h("span", { class: "score" });
    const extra = h("span", { class: "extra" });
    const known = Object.entries(image.metadata ?? {}).map(([field, value]) => `${field}: ${typeof value === "object" ? JSON.stringify(value) : value}`);
    const open = h("button", { type: "button", class: "card", title: [this.describe(image), "Keys: + more like this, − less like this", ...known].join("\n") },
      thumbnail(image.thumbnail, label ? `${label}, ${name}` : name), score, extra, h("span", { class: "label" }, label || name), label ? h("span", { class: "name" }, name) : null, date ? h("span", { class: "date" }, date) : null);
    const copies = h("span", { class: "copies", hidden: true });
    const about = button("⤢", () => this.view(image.id), { class: "about-card", ariaLabel: `About ${image.id}`, title: "Look at it" });
    const card = { item: h("li", {}, open, copies, h("span", { class: "card-tools" }, exampleButtons(image), about), ...this.actions(image)), score, extra, copies, image };
    card.item.style.setProperty("--shape", shapeOf(image).toFixed(3));
    open.addEventListener("click", () => this.chosen(card.image));
    open.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !["+", "-", "−"].includes(event.key)) return;
      event.preventDefault();
      addExample(image, event.key === "+" ? "+" : "-");
    });
    for (const element of [open, open.querySelector("img")]) element.draggable = true;
    open.addEventListener("dragstart", (event) => event.dataTransfer.setData(DRAGGED, JSON.stringify({ id: image.id, thumbnail: image.thumbnail, metadata: image.metadata })));
    return card;
  }

  update(card, image, rank) {
    card.image = image;
    if (image.score !== undefined) {
      card.score.textContent = signed(image.score, this.scale.digits);
      card.score.style.setProperty("--share", String(Math.max(0, Math.min(1, this.scale.share(image.score)))));
    }
    const copies = image.duplicates?.length ?? 0;
    card.copies.hidden = copies === 0;
    if (copies) {
      card.copies.textContent = `+ ${count(copies)}`;
      card.copies.title = `${plural(copies, "copy", "copies")} of this image: ${image.duplicates.map((one) => one.id).join(", ")}`;
    }
    const extra = this.extra(image, rank);
    if (extra.length || card.extra.hasChildNodes()) card.extra.replaceChildren(...extra);
    card.item.dataset.rank = String(rank + 1);
  }

  places() {
    const found = new Map();
    for (const [id, card] of this.cards) {
      if (found.size >= ANIMATED) break;
      found.set(id, card.item.getBoundingClientRect());
    }
    return found;
  }

  animate(before) {
    let place = 0;
    for (const [id, card] of this.cards) {
      if ((place += 1) > ANIMATED) break;
      const old = before.get(id);
      if (!old) {
        card.item.animate([{ opacity: 0 }, { opacity: 1 }], { duration: 160 });
        continue;
      }
      const now = card.item.getBoundingClientRect();
      const [x, y] = [old.left - now.left, old.top - now.top];
      if (x || y) card.item.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], { duration: 220, easing: "ease-out" });
    }
  }
}
