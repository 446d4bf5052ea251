// An image with its heat map: one pane or two beside each other, zoomed and moved together by mouse, fingers and keys.

import { heatPixels, outline, squareOn } from "./heat.js";
import { make, say } from "./texts.js";

const NEAREST = 16; // times the size at which the whole image is seen
const STEP = 1.4;
const HALF = 0.5; // of the most heat that a map can have, as pictures of Stillroom have their line

/** A canvas with the pixels of a preview, an ImageBitmap, which is let go of. Of a large image it is smaller than the image. */
export function asCanvas(preview) {
  const canvas = make("canvas", { width: preview.width, height: preview.height });
  canvas.getContext("2d").drawImage(preview, 0, 0);
  preview.close();
  return canvas;
}

/** A small copy for a table. */
export function thumbnail(canvas, side = 104) {
  const scale = Math.min(side / canvas.width, side / canvas.height, 1);
  const small = make("canvas", { width: side, height: side, "aria-hidden": "true" });
  const [width, height] = [Math.max(1, canvas.width * scale), Math.max(1, canvas.height * scale)];
  const brush = small.getContext("2d");
  brush.imageSmoothingQuality = "high";
  brush.drawImage(canvas, (side - width) / 2, (side - height) / 2, width, height);
  return small;
}

/** The viewer of one image. `look` is `{opacity, colours, lines, fill, beside}` and may be changed before `draw`. */
export function makeViewer(image, fit, look, label) {
  const place = { zoom: 1, x: 0, y: 0 };
  const panes = [makePane(label), makePane(say("map.pane", { image: label }))];
  const captions = [make("figcaption", {}, say("map.alone")), make("figcaption", {}, say("map.over"))];
  const figures = panes.map((pane, n) => make("figure", {}, pane, captions[n]));
  const node = make("div", { class: "panes" }, figures);
  const square = squareOn(image.width, image.height, fit);
  let heat = null;
  let lines = [];
  let side = 1;
  let pending = false;

  /** The map to draw: `[side * side]`, and where the image is shown at its own size the same at that size. */
  function show(map, original = null) {
    side = Math.round(Math.sqrt(map.length));
    const whole = original?.length === image.width * image.height;
    const [width, height] = whole ? [image.width, image.height] : [side, side];
    const canvas = make("canvas", { width, height });
    canvas.getContext("2d").putImageData(new ImageData(heatPixels(whole ? original : map, look.colours), width, height), 0, 0);
    heat = { canvas, box: whole ? { x: 0, y: 0, width: image.width, height: image.height } : square };
    lines = outline(map, side, HALF);
    draw();
  }

  function drop() {
    heat = null;
    lines = [];
    draw();
  }

  function draw() {
    if (pending) return;
    pending = true;
    requestAnimationFrame(drawNow);
  }

  function drawNow() {
    pending = false;
    const beside = look.beside && heat !== null;
    node.classList.toggle("beside", beside);
    figures[1].hidden = !beside;
    for (const caption of captions) caption.hidden = !beside;
    paint(panes[0], beside ? false : heat !== null);
    if (beside) paint(panes[1], true);
  }

  function paint(pane, mapped) {
    const canvas = pane.firstChild;
    const sharp = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(pane.clientWidth * sharp), Math.round(pane.clientHeight * sharp)];
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    pane.classList.toggle("near", place.zoom > 1);
    const brush = canvas.getContext("2d");
    const scale = Math.min(width / image.width, height / image.height) * place.zoom;
    keepInView(width, height, scale);
    brush.setTransform(1, 0, 0, 1, 0, 0);
    brush.clearRect(0, 0, width, height);
    brush.setTransform(scale, 0, 0, scale, width / 2 - (image.width / 2 + place.x) * scale, height / 2 - (image.height / 2 + place.y) * scale);
    brush.imageSmoothingEnabled = scale < 6 * sharp;
    brush.imageSmoothingQuality = "high";
    brush.drawImage(image, 0, 0);
    if (!mapped) return;
    brush.save();
    brush.beginPath();
    brush.rect(0, 0, image.width, image.height);
    brush.clip();
    brush.imageSmoothingEnabled = true;
    if (look.fill) {
      brush.globalAlpha = look.opacity;
      brush.drawImage(heat.canvas, heat.box.x, heat.box.y, heat.box.width, heat.box.height);
      brush.globalAlpha = 1;
    }
    if (look.lines) {
      const [across, down] = [square.width / side, square.height / side];
      brush.beginPath();
      for (const [x0, y0, x1, y1] of lines) {
        brush.moveTo(square.x + x0 * across, square.y + y0 * down);
        brush.lineTo(square.x + x1 * across, square.y + y1 * down);
      }
      brush.lineCap = brush.lineJoin = "round";
      for (const [colour, thick] of [["rgb(0 0 0 / 85%)", 4.2], ["#ffffff", 1.8]]) {
        brush.strokeStyle = colour;
        brush.lineWidth = (thick * sharp) / scale;
        brush.stroke();
      }
    }
    brush.restore();
  }

  function keepInView(width, height, scale) {
    const room = (length, seen) => Math.max(0, (length - seen / scale) / 2);
    const [across, down] = [room(image.width, width), room(image.height, height)];
    place.x = Math.min(across, Math.max(-across, place.x));
    place.y = Math.min(down, Math.max(-down, place.y));
  }

  function zoomTo(zoom) {
    place.zoom = Math.min(NEAREST, Math.max(1, zoom));
    draw();
  }

  function moveBy(across, down) {
    const pane = panes[0];
    const scale = Math.min(pane.clientWidth / image.width, pane.clientHeight / image.height) * place.zoom;
    place.x += across / scale;
    place.y += down / scale;
    draw();
  }

  function makePane(name) {
    const pane = make("div", { class: "pane", tabindex: "0", role: "group", "aria-label": `${name}. ${say("map.keys")}` });
    pane.style.aspectRatio = `${image.width} / ${image.height}`;
    pane.append(make("canvas", { role: "img", "aria-label": name }));
    const fingers = new Map();
    pane.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const far = 48;
      const deeds = {
        "+": () => zoomTo(place.zoom * STEP), "=": () => zoomTo(place.zoom * STEP), "-": () => zoomTo(place.zoom / STEP), 0: () => zoomTo(1),
        ArrowLeft: () => moveBy(-far, 0), ArrowRight: () => moveBy(far, 0), ArrowUp: () => moveBy(0, -far), ArrowDown: () => moveBy(0, far),
      };
      const deed = deeds[event.key];
      if (!deed || (event.key.startsWith("Arrow") && place.zoom === 1)) return;
      event.preventDefault();
      deed();
    });
    pane.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey && document.activeElement !== pane) return; // the page scrolls
      event.preventDefault();
      zoomTo(place.zoom * Math.exp(-event.deltaY / 300));
    }, { passive: false });
    pane.addEventListener("pointerdown", (event) => {
      fingers.set(event.pointerId, event);
      pane.setPointerCapture(event.pointerId);
    });
    pane.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const apart = () => {
        const [one, other] = [...fingers.values()];
        return Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      };
      const was = fingers.size === 2 ? apart() : 0;
      fingers.set(event.pointerId, event);
      if (fingers.size === 2 && was > 0) zoomTo((place.zoom * apart()) / was);
      else if (fingers.size === 1) moveBy(before.clientX - event.clientX, before.clientY - event.clientY);
    });
    for (const end of ["pointerup", "pointercancel"]) pane.addEventListener(end, (event) => fingers.delete(event.pointerId));
    pane.addEventListener("dblclick", () => zoomTo(place.zoom > 1 ? 1 : 3));
    return pane;
  }

  const watcher = new ResizeObserver(draw);
  for (const pane of panes) watcher.observe(pane);
  window.addEventListener("beforeprint", drawNow);
  draw();
  return {
    node, show, drop, draw,
    nearer: () => zoomTo(place.zoom * STEP), farther: () => zoomTo(place.zoom / STEP), whole: () => zoomTo(1),
    close() {
      watcher.disconnect();
      window.removeEventListener("beforeprint", drawNow);
    },
  };
}
