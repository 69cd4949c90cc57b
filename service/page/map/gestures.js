// Moving over the map by pointer, touch, wheel and keyboard; a box is drawn with Shift, or after a button.

const CLOSER = 1.5;
const STEP = 0.2;

/**
 * Listen on a canvas. `does` has move(across, up), zoom(factor, [at, up]), reset(), pick([at, up]), hover([at, up]),
 * drawing() what a drag draws, "box", "shape" or "", box([at, up], [at, up], done), trace([at, up], "begin", "on" or
 * "end"). Places are shares of the view from its left and
 * bottom.
 */
export function listenTo(canvas, does) {
  const touches = new Map();
  let drag = null;
  const point = (event) => {
    const place = canvas.getBoundingClientRect();
    return [(event.clientX - place.left) / place.width, 1 - (event.clientY - place.top) / place.height];
  };
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    does.zoom(Math.exp(-Math.sign(event.deltaY) * Math.min(1, Math.abs(event.deltaY) / 240)), point(event), { at_once: true });
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    touches.set(event.pointerId, point(event));
    drag = { at: point(event), moved: 0, boxes: touches.size === 1 && (event.shiftKey || does.drawing() === "box"), traces: touches.size === 1 && does.drawing() === "shape" };
    if (drag.traces) does.trace(drag.at, "begin");
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!touches.has(event.pointerId)) {
      does.hover(point(event));
      return;
    }
    const [before, now] = [touches.get(event.pointerId), point(event)];
    const others = [...touches].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    touches.set(event.pointerId, now);
    drag.moved += Math.hypot(now[0] - before[0], now[1] - before[1]) + others.length;
    if (others.length) {
      const apart = (place) => Math.max(0.02, Math.hypot(place[0] - others[0][0], place[1] - others[0][1]));
      does.zoom(apart(now) / apart(before), [(now[0] + others[0][0]) / 2, (now[1] + others[0][1]) / 2], { at_once: true });
    } else if (drag.boxes) does.box(drag.at, now, false);
    else if (drag.traces) does.trace(now, "on");
    else does.move(before[0] - now[0], before[1] - now[1], { at_once: true });
  });
  const release = (event) => {
    if (!touches.delete(event.pointerId) || touches.size || event.type !== "pointerup") return;
    if (drag.traces) does.trace(point(event), "end");
    else if (drag.moved < 0.01) does.pick(point(event));
    else if (drag.boxes) does.box(drag.at, point(event), true);
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => does.hover(null));

  const keys = {
    ArrowLeft: () => does.move(-STEP, 0), ArrowRight: () => does.move(STEP, 0), ArrowUp: () => does.move(0, STEP), ArrowDown: () => does.move(0, -STEP),
    "+": () => does.zoom(CLOSER), "=": () => does.zoom(CLOSER), "-": () => does.zoom(1 / CLOSER), 0: () => does.reset(),
  };
  canvas.addEventListener("keydown", (event) => {
    const work = event.ctrlKey || event.metaKey || event.altKey ? null : keys[event.key];
    if (!work) return;
    event.preventDefault();
    work();
  });
  return { closer: () => does.zoom(CLOSER), further: () => does.zoom(1 / CLOSER) };
}
