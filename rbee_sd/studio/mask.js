// @ts-check
// The mask painter: a picture with a painting over it that fingers, a mouse or the keyboard draw on, as near as one
// likes, and the tools beside it.

import { byId, make } from "./dom.js";
import { Painting } from "./painting.js";

/** @typedef {{width: number, height: number}} Size */

const NEAREST = 16;
const KEY_STEP = 8; // pixels of the picture
const HELP = "Mask. The arrow keys move the brush, space paints.";

/**
 * Have a person paint a mask over a picture. Gives the mask, or the one before when they change their mind.
 * @param {string} picture  its address
 * @param {Size} size
 * @param {HTMLCanvasElement | null} before
 * @returns {Promise<HTMLCanvasElement | null>}
 */
export function paintMask(picture, size, before) {
  const dialog = byId("painter");
  const painter = new Painter(picture, size, before);
  let result = before;
  return new Promise((done) => {
    const finish = () => {
      result = painter.painting.mask();
      dialog.close();
    };
    dialog.replaceChildren(make("div", { className: "row actions" }, ...painter.tools(),
      button("Cancel", () => dialog.close(), "quiet close"), button("Use this mask", finish, "primary")), painter.table);
    dialog.onkeydown = (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "z" && (event.ctrlKey || event.metaKey)) painter.painting.undo();
    };
    dialog.addEventListener("close", () => {
      dialog.replaceChildren();
      done(result);
    }, { once: true });
    dialog.showModal();
    painter.painting.canvas.focus();
  });
}

class Painter {
  #view = { zoom: 1, x: 0, y: 0 };
  #erase = false;
  /** @type {Map<number, PointerEvent>} the fingers, or the mouse, that are down */
  #down = new Map();

  constructor(/** @type {string} */ picture, /** @type {Size} */ size, /** @type {HTMLCanvasElement | null} */ before) {
    this.size = size;
    this.painting = new Painting(size.width, size.height);
    if (before) this.painting.act({ kind: "mask", mask: before });
    this.cursor = { x: size.width / 2, y: size.height / 2 };
    const { canvas } = this.painting;
    Object.assign(canvas, { tabIndex: 0, role: "application", ariaLabel: HELP });
    this.sheet = make("div", { className: "sheet" }, make("img", { src: picture, alt: "", draggable: false }), canvas);
    this.sheet.style.setProperty("--ratio", String(size.width / size.height));
    this.sheet.style.aspectRatio = "var(--ratio)";
    this.ring = make("div", { className: "ring", hidden: true });
    this.table = make("div", { className: "table" }, this.sheet, this.ring);
    this.brush = make("input", { type: "range", id: "brush-size", min: 1, max: 100, value: 12 });
    canvas.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => this.#press(event));
    canvas.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (/** @type {PointerEvent} */ event) => this.#down.delete(event.pointerId));
    }
    canvas.addEventListener("pointerleave", () => { this.ring.hidden = true; });
    canvas.addEventListener("contextmenu", (/** @type {Event} */ event) => event.preventDefault());
    canvas.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.#key(event));
    this.table.addEventListener("wheel", (/** @type {WheelEvent} */ event) => {
      event.preventDefault();
      this.#zoom(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
    }, { passive: false });
  }

  /** Brush, eraser and the rest of them. */
  tools() {
    const brushes = [button("Brush", () => choose(false)), button("Erase", () => choose(true))];
    const choose = (/** @type {boolean} */ erase) => {
      this.#erase = erase;
      brushes.forEach((each, place) => each.setAttribute("aria-pressed", String(erase === (place === 1))));
    };
    choose(false);
    const nearer = (/** @type {number} */ factor) => {
      const { left, top, width, height } = this.table.getBoundingClientRect();
      this.#zoom(factor, left + width / 2, top + height / 2);
    };
    return [
      ...brushes, make("label", { for: "brush-size" }, "Size"), this.brush,
      button("Undo", () => this.painting.undo()),
      button("Invert", () => this.painting.act({ kind: "invert" })),
      button("Clear", () => this.painting.act({ kind: "clear" })),
      button("−", () => nearer(1 / 1.5), "quiet", "Smaller"), button("+", () => nearer(1.5), "quiet", "Larger"),
    ];
  }

  #begin(/** @type {[number, number]} */ point, erase = this.#erase) {
    this.painting.act({ kind: "stroke", erase, size: this.#across(), points: [point] });
  }

  #press(/** @type {PointerEvent} */ event) {
    this.painting.canvas.setPointerCapture(event.pointerId);
    this.#down.set(event.pointerId, event);
    // A second finger means to zoom: what the first began to paint was not meant.
    if (this.#down.size === 2) this.painting.undo();
    else if (this.#down.size === 1) this.#begin(this.#spot(event), this.#erase || event.button === 2);
  }

  #move(/** @type {PointerEvent} */ event) {
    if (event.pointerType !== "touch") this.#show(event.clientX, event.clientY);
    const before = this.#down.get(event.pointerId);
    if (!before) return;
    this.#down.set(event.pointerId, event);
    if (this.#down.size > 1) this.#pinch(before, event);
    else for (const each of event.getCoalescedEvents().length ? event.getCoalescedEvents() : [event]) this.painting.extend(this.#spot(each));
  }

  #pinch(/** @type {PointerEvent} */ before, /** @type {PointerEvent} */ event) {
    const other = [...this.#down.values()].find((each) => each.pointerId !== event.pointerId);
    if (!other) return;
    const apart = (/** @type {PointerEvent} */ one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    this.#view.x += (event.clientX - before.clientX) / 2;
    this.#view.y += (event.clientY - before.clientY) / 2;
    this.#zoom(apart(event) / Math.max(1, apart(before)), (event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2);
  }

  #key(/** @type {KeyboardEvent} */ event) {
    const { cursor, size } = this;
    const step = event.shiftKey ? 1 : KEY_STEP;
    const [x, y] = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key] ?? [0, 0];
    if (event.key === " ") this.#begin([cursor.x, cursor.y]);
    else if (!x && !y) return;
    event.preventDefault();
    cursor.x = Math.min(size.width, Math.max(0, cursor.x + x));
    cursor.y = Math.min(size.height, Math.max(0, cursor.y + y));
    const box = this.painting.canvas.getBoundingClientRect();
    this.#show(box.left + (cursor.x / size.width) * box.width, box.top + (cursor.y / size.height) * box.height);
  }

  /** The brush's size, in pixels of the picture. */
  #across() {
    return Math.max(1, (Number(this.brush.value) / 200) * Math.max(this.size.width, this.size.height));
  }

  /** From the window's coordinates to the picture's. */
  #spot(/** @type {PointerEvent} */ at) {
    const box = this.painting.canvas.getBoundingClientRect();
    const { width, height } = this.size;
    return /** @type {[number, number]} */ ([((at.clientX - box.left) / box.width) * width, ((at.clientY - box.top) / box.height) * height]);
  }

  /** Zoom so that what is at this place of the window stays there. */
  #zoom(/** @type {number} */ factor, /** @type {number} */ clientX, /** @type {number} */ clientY) {
    const { sheet } = this;
    const box = this.table.getBoundingClientRect();
    const { zoom: before, x, y } = this.#view;
    const zoom = Math.min(NEAREST, Math.max(1, before * factor));
    const [atX, atY] = [clientX - box.left - sheet.offsetLeft, clientY - box.top - sheet.offsetTop];
    this.#view = zoom === 1 ? { zoom, x: 0, y: 0 } : { zoom, x: atX - ((atX - x) * zoom) / before, y: atY - ((atY - y) * zoom) / before };
    sheet.style.transform = `translate(${this.#view.x}px, ${this.#view.y}px) scale(${zoom})`;
  }

  /** Show the brush at this place of the window. */
  #show(/** @type {number} */ clientX, /** @type {number} */ clientY) {
    const box = this.table.getBoundingClientRect();
    const across = (this.#across() * this.painting.canvas.getBoundingClientRect().width) / this.size.width;
    this.ring.hidden = false;
    this.ring.style.width = this.ring.style.height = `${across}px`;
    this.ring.style.transform = `translate(${clientX - box.left - across / 2}px, ${clientY - box.top - across / 2}px)`;
  }
}

function button(/** @type {string} */ text, /** @type {() => void} */ onclick, className = "quiet", title = "") {
  return make("button", { type: "button", className, onclick, title }, text);
}
