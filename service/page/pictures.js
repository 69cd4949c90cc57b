// Thumbnails: straight from the service, or fetched with the key where searches need one (an <img> sends no key).

import { h } from "./dom.js";
import { headers } from "./api.js";

let locked = false;
const SIDE = 192;

/** From now on, pictures are fetched with the key. */
export function lock() {
  locked = true;
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) {
    seen.unobserve(entry.target);
    fetchInto(entry.target);
  }
}, { rootMargin: "200px" });

/** A picture that is loaded when it comes into view; its place is kept before. */
export function thumbnail(source, alt) {
  const image = h("img", { alt, width: SIDE, height: SIDE, loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => image.classList.add("gone"));
  show(image, source);
  return image;
}

/** Show another picture in an element of thumbnail(), or in any <img>. */
export function show(image, source) {
  image.classList.remove("gone");
  if (image.dataset.made) URL.revokeObjectURL(image.dataset.made);
  delete image.dataset.made;
  if (!locked || !source.startsWith("/")) {
    image.src = source;
    return;
  }
  image.dataset.source = source;
  seen.observe(image);
}

/** A picture that is shown nowhere yet, in full. Throws where there is none. */
export async function fetchPicture(source) {
  const image = new Image();
  if (locked && source.startsWith("/")) {
    const response = await fetch(source, { headers: headers() });
    if (!response.ok) throw new Error("no picture");
    image.src = URL.createObjectURL(await response.blob());
  } else image.src = source;
  await image.decode();
  if (locked && source.startsWith("/")) URL.revokeObjectURL(image.src);
  return image;
}

async function fetchInto(image) {
  const response = await fetch(image.dataset.source, { headers: headers() }).catch(() => null);
  if (response?.ok) image.src = image.dataset.made = URL.createObjectURL(await response.blob());
  else image.classList.add("gone");
}
