// @ts-check
// The picture to start from: dropped, pasted, chosen or taken from the gallery, with the mask that was painted over it.

import { byId, on } from "./dom.js";

const [MAKE, CHANGE, INPAINT] = ["image_generation", "image_transform", "image_inpaint"];

export class Input {
  /** @type {Blob | null} */
  #file = null;
  #address = "";
  #data = "";
  /** @type {{width: number, height: number} | null} */
  #size = null;
  /** @type {HTMLCanvasElement | null} */
  #mask = null;
  /** @type {string[]} */
  #operations = [];
  #asked = 0;
  #taken = 0;
  /** @type {(() => void)[]} */
  #observers = [];

  /** @param {typeof import("./mask.js").paintMask} paint */
  constructor(paint) {
    on("input-remove", "click", () => this.clear());
    on("input-unmask", "click", () => this.#masked(null));
    on("input-paint", "click", async () => {
      const file = this.#file;
      if (!this.#size) return;
      const mask = await paint(this.#address, this.#size, this.#mask);
      // Another picture may have come meanwhile.
      if (file === this.#file) this.#masked(mask);
    });
  }

  /** Have `observer` called when there is another picture, or none, or another mask. */
  onChange(/** @type {() => void} */ observer) {
    this.#observers.push(observer);
  }

  /** What the model can do. */
  offer(/** @type {string[]} */ operations) {
    this.#operations = operations;
    this.#show();
  }

  /**
   * Start from this file. False, and no change, when it is no picture that a browser can read; undefined when there is
   * none after all, or when another was taken, or the picture removed, after this was asked for: the newest counts.
   * Raises what `given` does.
   */
  async take(/** @type {Promise<Blob | null>} */ given) {
    const turn = ++this.#asked;
    const file = await given;
    if (!file) return undefined;
    const address = URL.createObjectURL(file);
    const image = new Image();
    image.src = address;
    const data = await image.decode().then(() => dataOf(file)).catch(() => "");
    if (!data || turn < this.#taken) {
      URL.revokeObjectURL(address);
      return data ? undefined : false;
    }
    this.clear();
    this.#taken = turn;
    this.#file = file;
    this.#address = address;
    this.#size = { width: image.naturalWidth, height: image.naturalHeight };
    this.#data = data;
    this.#show();
    return true;
  }

  /** Start from nothing again. */
  clear() {
    this.#taken = ++this.#asked;
    if (this.#address) URL.revokeObjectURL(this.#address);
    this.#file = this.#size = this.#mask = null;
    this.#address = this.#data = "";
    this.#show();
  }

  /** The picture's size; null when none is used. */
  size() {
    return this.operation() === MAKE ? null : this.#size;
  }

  /** What is to be done: what there is for it, or else what comes next to that of what the model can do. */
  operation() {
    const wanted = !this.#file ? [MAKE, INPAINT] : this.#mask ? [INPAINT, CHANGE] : [CHANGE, INPAINT];
    return wanted.find((each) => this.#operations.includes(each)) ?? MAKE;
  }

  /** The fields that it adds to a request; null when the picture is of no use. */
  request() {
    const operation = this.operation();
    if (operation === MAKE) return null;
    return { operation, ...(this.#file && { image: this.#data }), ...(operation === INPAINT && this.#mask && { mask: this.#mask.toDataURL("image/png") }) };
  }

  #masked(mask) {
    this.#mask = mask;
    this.#show();
  }

  #show() {
    const there = Boolean(this.#file);
    const inpaints = this.#operations.includes(INPAINT);
    const mask = inpaints ? this.#mask : null;
    byId("input").hidden = !inpaints && !this.#operations.includes(CHANGE);
    byId("input-empty").hidden = there;
    byId("input-filled").hidden = !there;
    byId("input-paint").hidden = !inpaints;
    byId("input-paint").textContent = mask ? "Change the mask" : "Paint a mask";
    byId("input-unmask").hidden = !mask;
    if (there && this.#size) {
      byId("input-picture").src = this.#address;
      const painted = mask ? "what is white in the mask is painted anew" : "paint over what is to be made anew";
      const what = this.operation() === INPAINT ? painted : "changed towards the prompt";
      byId("input-about").textContent = `${this.#size.width} × ${this.#size.height}, ${what}`;
      const canvas = byId("input-mask");
      canvas.width = 144;
      canvas.height = Math.round(144 * this.#size.height / this.#size.width);
      if (mask) canvas.getContext("2d").drawImage(mask, 0, 0, canvas.width, canvas.height);
      canvas.hidden = !mask;
    } else byId("input-picture").removeAttribute("src");
    for (const observer of this.#observers) observer();
  }
}

/** A file as a `data:` address. Raises when it cannot be read any more. */
function dataOf(/** @type {Blob} */ file) {
  return new Promise((done, fail) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => done(String(reader.result)));
    reader.addEventListener("error", fail);
    reader.readAsDataURL(file);
  });
}
