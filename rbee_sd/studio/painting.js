// @ts-check
// What is painted over a picture: strokes, and what can be done with all of them. What was done is kept as a list, so
// that undoing is doing all but the last again.

import { make } from "./dom.js";

/** @typedef {{kind: "stroke", erase: boolean, size: number, points: [number, number][]}} Stroke */
/** @typedef {Stroke | {kind: "invert"} | {kind: "clear"} | {kind: "mask", mask: HTMLCanvasElement}} Deed */

const COLOUR = "#e0218a"; // unlike most pictures; the mask that comes of it is white

export class Painting {
  /** @type {Deed[]} */
  #deeds = [];
  /** @type {Deed | null} what was done last, if it was not undone */
  #last = null;

  constructor(/** @type {number} */ width, /** @type {number} */ height) {
    this.canvas = make("canvas", { width, height });
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
  }

  /** Do something, and remember it. */
  act(/** @type {Deed} */ deed) {
    this.#deeds.push(deed);
    this.#last = deed;
    this.#perform(deed);
  }

  /** Go on with the stroke that was begun, unless it was undone. */
  extend(/** @type {[number, number]} */ point) {
    const deed = this.#last;
    if (deed?.kind !== "stroke") return;
    deed.points.push(point);
    this.#line(deed, deed.points.slice(-2));
  }

  /** Undo the stroke that was begun, unless it was undone. */
  withdraw() {
    if (this.#last) this.undo();
  }

  /** Undo what was done last. */
  undo() {
    this.#deeds.pop();
    this.#last = null;
    this.#clear();
    for (const deed of this.#deeds) this.#perform(deed);
  }

  /** White on black, of the picture's size; null when nothing is white. */
  mask() {
    const { width, height } = this.canvas;
    const mask = make("canvas", { width, height });
    const context = mask.getContext("2d");
    context.drawImage(this.canvas, 0, 0);
    fill(context, "source-in", "#fff");
    fill(context, "destination-over", "#000");
    const { data } = context.getImageData(0, 0, width, height);
    return data.some((value, at) => at % 4 === 0 && value > 127) ? mask : null;
  }

  #perform(deed) {
    if (deed.kind === "stroke") this.#line(deed, deed.points);
    else if (deed.kind === "mask") this.#take(deed.mask);
    else if (deed.kind === "clear") this.#clear();
    else fill(this.context, "xor", COLOUR);
  }

  #clear() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  #take(mask) {
    const { width, height } = this.canvas;
    this.context.drawImage(mask, 0, 0);
    const pixels = this.context.getImageData(0, 0, width, height);
    // What is black in it becomes transparent: its red is the new opacity.
    for (let at = 0; at < pixels.data.length; at += 4) pixels.data[at + 3] = pixels.data[at];
    this.context.putImageData(pixels, 0, 0);
    fill(this.context, "source-in", COLOUR);
  }

  #line({ erase, size }, points) {
    const { context } = this;
    context.globalCompositeOperation = erase ? "destination-out" : "source-over";
    Object.assign(context, { strokeStyle: COLOUR, lineWidth: size, lineCap: "round", lineJoin: "round" });
    context.beginPath();
    context.moveTo(...points[0]);
    for (const point of points.slice(1)) context.lineTo(...point);
    // A line of no length is not drawn; this one is a dot.
    if (points.length === 1) context.lineTo(points[0][0] + 0.01, points[0][1]);
    context.stroke();
    context.globalCompositeOperation = "source-over";
  }
}

function fill(context, how, colour) {
  context.globalCompositeOperation = how;
  context.fillStyle = colour;
  context.fillRect(0, 0, context.canvas.width, context.canvas.height);
  context.globalCompositeOperation = "source-over";
}
