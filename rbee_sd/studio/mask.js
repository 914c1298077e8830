// @ts-check
// The mask painter: a picture with a painting over it that fingers, a mouse or the keyboard draw on, as near as one
// likes, and the tools beside it.

import { button, byId, make, on } from "./dom.js";
import { Painting } from "./painting.js";

/** @typedef {{width: number, height: number}} Size */

const NEAREST = 16;
const KEY_STEP = 8; // pixels of the picture
const HELP = "Mask. The arrow keys move the brush, space paints.";

/**
 * Have a person paint a mask over the picture at an address. Gives the mask, or the one before when they change their mind.
 * @type {(picture: string, size: Size, before: HTMLCanvasElement | null) => Promise<HTMLCanvasElement | null>}
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
      button("Cancel", () => dialog.close(), { className: "quiet close" }), button("Use this mask", finish, { className: "primary" })), painter.table);
    dialog.onkeydown = (event) => {
      if (event.key === "z" && (event.ctrlKey || event.metaKey)) painter.painting.undo();
    };
    dialog.onclose = () => {
      dialog.replaceChildren();
      done(result);
    };
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
    this.ring = make("div", { className: "ring", hidden: true });
    this.table = make("div", { className: "table" }, this.sheet, this.ring);
    this.brush = make("input", { type: "range", id: "brush-size", min: 1, max: 100, value: 12 });
    on(canvas, "pointerdown", (event) => this.#press(event));
    on(canvas, "pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) on(canvas, end, (event) => this.#down.delete(event.pointerId));
    on(canvas, "pointerleave", () => { this.ring.hidden = true; });
    on(canvas, "contextmenu", (event) => event.preventDefault());
    on(canvas, "keydown", (event) => this.#key(event));
    this.table.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.#zoom(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
    }, { passive: false });
  }

  /** Brush, eraser and the rest of them. */
  tools() {
    const brushes = [button("Brush", () => choose(false)), button("Erase", () => choose(true))];
    const choose = (erase) => {
      this.#erase = erase;
      brushes.forEach((each, place) => each.setAttribute("aria-pressed", String(erase === (place === 1))));
    };
    choose(false);
    const nearer = (factor) => {
      const { left, top, width, height } = this.table.getBoundingClientRect();
      this.#zoom(factor, left + width / 2, top + height / 2);
    };
    return [
      ...brushes, make("label", { htmlFor: "brush-size" }, "Size"), this.brush,
      button("Undo", () => this.painting.undo()),
      button("Invert", () => this.painting.act({ kind: "invert" })),
      button("Clear", () => this.painting.act({ kind: "clear" })),
      button("−", () => nearer(1 / 1.5), { title: "Smaller" }), button("+", () => nearer(1.5), { title: "Larger" }),
    ];
  }

  #begin(point, erase = this.#erase) {
    this.painting.act({ kind: "stroke", erase, size: this.#across(), points: [point] });
  }

  #press(event) {
    this.painting.canvas.setPointerCapture(event.pointerId);
    this.#down.set(event.pointerId, event);
    // A second finger means to zoom: what the first began to paint was not meant.
    if (this.#down.size === 2) this.painting.withdraw();
    else if (this.#down.size === 1) this.#begin(this.#spot(event), this.#erase || event.button === 2);
  }

  #move(event) {
    if (event.pointerType !== "touch") this.#show(event.clientX, event.clientY);
    const before = this.#down.get(event.pointerId);
    if (!before) return;
    this.#down.set(event.pointerId, event);
    if (this.#down.size > 1) this.#pinch(before, event);
    else for (const each of [...event.getCoalescedEvents(), event]) this.painting.extend(this.#spot(each));
  }

  #pinch(before, event) {
    const other = [...this.#down.values()].find((each) => each.pointerId !== event.pointerId);
    if (!other) return;
    const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    this.#view.x += (event.clientX - before.clientX) / 2;
    this.#view.y += (event.clientY - before.clientY) / 2;
    this.#zoom(apart(event) / Math.max(1, apart(before)), (event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2);
  }

  #key(event) {
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

  /** From the window's coordinates to the picture's. @returns {[number, number]} */
  #spot(at) {
    const box = this.painting.canvas.getBoundingClientRect();
    const { width, height } = this.size;
    return [((at.clientX - box.left) / box.width) * width, ((at.clientY - box.top) / box.height) * height];
  }

  /** Zoom so that what is at this place of the window stays there. */
  #zoom(factor, clientX, clientY) {
    const { sheet } = this;
    const box = this.table.getBoundingClientRect();
    const { zoom: before, x, y } = this.#view;
    const zoom = Math.min(NEAREST, Math.max(1, before * factor));
    const [atX, atY] = [clientX - box.left - sheet.offsetLeft, clientY - box.top - sheet.offsetTop];
    this.#view = zoom === 1 ? { zoom, x: 0, y: 0 } : { zoom, x: atX - ((atX - x) * zoom) / before, y: atY - ((atY - y) * zoom) / before };
    sheet.style.transform = `translate(${this.#view.x}px, ${this.#view.y}px) scale(${zoom})`;
  }

  /** Show the brush at this place of the window. */
  #show(clientX, clientY) {
    const box = this.table.getBoundingClientRect();
    const across = (this.#across() * this.painting.canvas.getBoundingClientRect().width) / this.size.width;
    this.ring.hidden = false;
    this.ring.style.width = this.ring.style.height = `${across}px`;
    this.ring.style.transform = `translate(${clientX - box.left - across / 2}px, ${clientY - box.top - across / 2}px)`;
  }
}
