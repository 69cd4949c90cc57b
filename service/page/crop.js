// A part of the query: a box that is dragged on it, or moved by the keyboard.

import { headers } from "./api.js";
import { button, h, plain } from "./dom.js";

const STEP = 0.02;
const LEAST = 0.03; // of a side

/** Ask for a part of a query's picture; `taken` gets the query of it. */
export async function openCropper(query, taken) {
  let box = { left: 0.1, top: 0.1, right: 0.9, bottom: 0.9 };
  let start = null;
  const picture = h("img", { alt: query.name ?? "", draggable: false });
  const frame = h("div", { class: "crop-box" });
  const area = h("div", { class: "crop-area", tabIndex: 0, "aria-label": "The part to search for: arrows move it, with Shift they change its size" }, picture, frame);
  area.setAttribute("role", "application");
  const said = h("p", { role: "status", class: "quiet" });
  const dialog = h("dialog", { class: "cropper", "aria-label": "Search for a part of the picture" },
    h("p", { class: "quiet" }, "Drag a box around what matters. On the keyboard: arrows move the box, with Shift they change its size."), area, said, h("div", { class: "inline" }, button("Search for this part", () => cut()), plain("Cancel", () => dialog.close())));

  const response = query.file ? null : await fetch(contentOf(query.picture), { headers: headers() }).catch(() => null);
  if (response && !response.ok) return;
  const source = query.file ? query.picture : URL.createObjectURL(await response.blob());
  picture.src = source;

  function tell() {
    Object.assign(frame.style, { left: `${100 * box.left}%`, top: `${100 * box.top}%`, width: `${100 * (box.right - box.left)}%`, height: `${100 * (box.bottom - box.top)}%` });
    said.textContent = `${Math.round(100 * (box.right - box.left))} % of the width, ${Math.round(100 * (box.bottom - box.top))} % of the height`;
  }
  const point = (event) => {
    const place = picture.getBoundingClientRect();
    return [Math.min(1, Math.max(0, (event.clientX - place.left) / place.width)), Math.min(1, Math.max(0, (event.clientY - place.top) / place.height))];
  };
  area.addEventListener("pointerdown", (event) => {
    area.setPointerCapture(event.pointerId);
    start = point(event);
  });
  area.addEventListener("pointermove", (event) => {
    if (!start) return;
    const [x, y] = point(event);
    box = { left: Math.min(x, start[0]), right: Math.max(x, start[0]), top: Math.min(y, start[1]), bottom: Math.max(y, start[1]) };
    tell();
  });
  const release = () => {
    if (start && (box.right - box.left < LEAST || box.bottom - box.top < LEAST)) box = { left: 0.1, top: 0.1, right: 0.9, bottom: 0.9 };
    start = null;
    tell();
  };
  area.addEventListener("pointerup", release);
  area.addEventListener("pointercancel", release);
  area.addEventListener("keydown", (event) => {
    const [x, y] = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key] ?? [0, 0];
    if (event.key === "Enter") cut();
    if (!x && !y) return;
    event.preventDefault();
    const { left, top, right, bottom } = box;
    if (event.shiftKey) box = { left, top, right: Math.min(1, Math.max(left + LEAST, right + x)), bottom: Math.min(1, Math.max(top + LEAST, bottom + y)) };
    else if (left + x >= 0 && right + x <= 1 && top + y >= 0 && bottom + y <= 1) box = { left: left + x, right: right + x, top: top + y, bottom: bottom + y };
    tell();
  });

  async function cut() {
    const { naturalWidth: width, naturalHeight: height } = picture;
    const part = [Math.round(box.left * width), Math.round(box.top * height), Math.max(1, Math.round((box.right - box.left) * width)), Math.max(1, Math.round((box.bottom - box.top) * height))];
    const canvas = h("canvas", { width: part[2], height: part[3] });
    canvas.getContext("2d").drawImage(picture, ...part, 0, 0, part[2], part[3]);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    const name = `part of ${query.name}`;
    const file = new File([blob], `${name}.png`, { type: "image/png" });
    dialog.close();
    taken({ file, name, picture: URL.createObjectURL(file) });
  }
  dialog.addEventListener("close", () => {
    if (!query.file) URL.revokeObjectURL(source);
    dialog.remove();
  });
  document.body.append(dialog);
  tell();
  dialog.showModal();
  area.focus();
}

/** The image itself, of which a thumbnail is known. */
const contentOf = (picture) => picture.replace(/\/thumbnail(\?|$)/, "/content$1");
