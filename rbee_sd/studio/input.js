// @ts-check
// The picture to start from: dropped, pasted, chosen or taken from the gallery, with the mask that was painted over it.

import { byId } from "./dom.js";

export class Input {
  /** @type {Blob | null} */
  #file = null;
  #address = "";
  #data = "";
  /** @type {{width: number, height: number} | null} */
  #size = null;
  /** @type {HTMLCanvasElement | null} */
  #mask = null;
  #transforms = false;
  #inpaints = false;
  /** @type {(() => void)[]} */
  #observers = [];

  /** @param {(picture: string, size: {width: number, height: number}, mask: HTMLCanvasElement | null) => Promise<HTMLCanvasElement | null>} paint */
  constructor(paint) {
    byId("input-remove").addEventListener("click", () => this.clear());
    byId("input-unmask").addEventListener("click", () => this.#masked(null));
    byId("input-paint").addEventListener("click", async () => {
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

  /** What the model can do with a picture. */
  offer(/** @type {boolean} */ transforms, /** @type {boolean} */ inpaints) {
    this.#transforms = transforms;
    this.#inpaints = inpaints;
    this.#show();
  }

  /** Start from this file. False, and no change, when it is no picture that a browser can read. */
  async take(/** @type {Blob} */ file) {
    const address = URL.createObjectURL(file);
    const image = new Image();
    image.src = address;
    try {
      await image.decode();
    } catch {
      URL.revokeObjectURL(address);
      return false;
    }
    const data = await new Promise((done) => {
      const reader = new FileReader();
      reader.addEventListener("load", () => done(String(reader.result)));
      reader.readAsDataURL(file);
    });
    this.clear();
    this.#file = file;
    this.#address = address;
    this.#size = { width: image.naturalWidth, height: image.naturalHeight };
    this.#data = data;
    this.#show();
    return true;
  }

  /** Start from nothing again. */
  clear() {
    if (this.#address) URL.revokeObjectURL(this.#address);
    this.#file = this.#size = this.#mask = null;
    this.#address = this.#data = "";
    this.#show();
  }

  /** The size that comes of the picture when nobody sets another. */
  size() {
    const multiple = Number(byId("width").step) || 8;
    const down = (/** @type {number} */ side) => Math.floor(side / multiple) * multiple;
    return this.#size && this.#transforms ? { width: down(this.#size.width), height: down(this.#size.height) } : null;
  }

  /** What is to be done with the picture. */
  operation() {
    if (!this.#file || !this.#transforms) return "image_generation";
    return this.#mask && this.#inpaints ? "image_inpaint" : "image_transform";
  }

  /** The fields that it adds to a request; null without a picture. */
  request() {
    const operation = this.operation();
    if (operation === "image_generation") return null;
    const mask = operation === "image_inpaint" ? { mask: this.#mask?.toDataURL("image/png") } : {};
    return { operation, image: this.#data, ...mask };
  }

  #masked(/** @type {HTMLCanvasElement | null} */ mask) {
    this.#mask = mask;
    this.#show();
  }

  #show() {
    const there = Boolean(this.#file);
    byId("input").hidden = !this.#transforms;
    byId("input-empty").hidden = there;
    byId("input-filled").hidden = !there;
    byId("input-paint").hidden = !this.#inpaints;
    byId("input-paint").textContent = this.#mask ? "Change the mask" : "Paint a mask";
    byId("input-unmask").hidden = !this.#mask;
    if (there && this.#size) {
      byId("input-picture").src = this.#address;
      const what = this.#mask ? "what is white in the mask is painted anew" : "changed towards the prompt";
      byId("input-about").textContent = `${this.#size.width} × ${this.#size.height}, ${what}`;
      const canvas = byId("input-mask");
      canvas.width = 144;
      canvas.height = Math.round(144 * this.#size.height / this.#size.width);
      if (this.#mask) canvas.getContext("2d").drawImage(this.#mask, 0, 0, canvas.width, canvas.height);
      canvas.hidden = !this.#mask;
    } else byId("input-picture").removeAttribute("src");
    for (const observer of this.#observers) observer();
  }
}
