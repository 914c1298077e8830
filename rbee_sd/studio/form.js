// @ts-check
// The form: what the person has set, within the offer, and the request that comes of it. What nobody has touched is left
// to the model. Values are kept for the next visit.

import { written } from "./api.js";
import { button, byId, keep, kept, on } from "./dom.js";
import { NUMBERS, showLoras, showOffer, showSettings, TEXTS } from "./fields.js";
import { boundsOf, NONE, offerFor, settle, shaped, sizeFrom } from "./offer.js";

const SHAPES = /** @type {[string, number][]} */ ([["1:1", 1], ["3:4", 3 / 4], ["4:3", 4 / 3], ["9:16", 9 / 16], ["16:9", 16 / 9]]);
/** What cannot be done with the picture that is there, where only this can. */
const LESS = { image_generation: "starting from a picture", image_transform: "a mask" };

export class Form {
  /** @type {Record<string, any>} what was set; nothing stands for the model's own */
  #set = kept("localStorage", "form", {});
  /** @type {any} what the worker says of itself */
  #capabilities = null;
  #offer = NONE;

  /**
   * @param {{submit: () => void, input: import("./input.js").Input, seed: () => bigint | null, lost: (what: string[]) => void}} page
   *   `seed` is that of the picture in sight; `lost` is told what was set and is not to be had with the chosen model
   */
  constructor(page) {
    this.page = page;
    this.input = page.input;
    on("form", "submit", (event) => {
      event.preventDefault();
      page.submit();
    });
    addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.repeat && !document.querySelector("dialog[open]")) {
        event.preventDefault();
        page.submit();
      }
    });
    for (const name of [...NUMBERS, ...TEXTS]) {
      on(name, byId(name).tagName === "SELECT" ? "change" : "input", () => this.#typed(name));
    }
    on("seed", "input", () => this.lock(byId("seed").value.trim()));
    on("lock", "click", () => this.lock(this.#set.seed ? "" : String(page.seed() ?? "")));
    on("finish", "change", () => this.#keep({ finish: byId("finish").checked }));
    on("swap", "click", () => {
      const { width, height } = this.size();
      if (width !== height) this.#keep({ width: height, height: width });
    });
    on("reset", "click", () => {
      const { prompt, model, finish } = this.#set;
      page.lost(this.#settle({ prompt, model, finish }));
    });
    byId("shapes").replaceChildren(...SHAPES.map(([name, ratio]) => button(name, () => this.#keep(shaped(this.#offer, ratio)))));
    this.input.onChange(() => this.#show());
    this.#show();
  }

  /** What the worker can do: the form offers of that what the chosen model can, and no more. */
  offer(capabilities) {
    this.#capabilities = capabilities;
    const offer = offerFor(capabilities, this.#set.model);
    const same = JSON.stringify({ ...offer, defaults: null }) === JSON.stringify({ ...this.#offer, defaults: null });
    this.#offer = offer;
    // A person may be writing. But what was kept from another visit may be of another worker, or of another model.
    if (same) this.#show();
    else this.page.lost(this.#settle(this.#set));
  }

  /** The size that will be made, as far as it is known. */
  size() {
    const { width, height } = this.#set;
    const own = this.#own();
    return { width: width ?? own.width ?? 512, height: height ?? own.height ?? 512 };
  }

  /** Take over settings of another picture, which can be anybody's. Returns, in words, what is not to be had here. */
  apply(settings) {
    const taken = { negative_prompt: "", finish: this.#set.finish };
    for (const name of NUMBERS) if (isNumber(settings[name])) taken[name] = Number(settings[name]);
    for (const name of TEXTS) if (settings[name] && typeof settings[name] === "string") taken[name] = settings[name];
    const loras = (Array.isArray(settings.loras) ? settings.loras : []).filter((lora) => typeof lora?.name === "string");
    taken.loras = loras.map(({ name, scale }) => ({ name, scale: isNumber(scale) ? Number(scale) : 1 }));
    if (isNumber(settings.seed)) taken.seed = String(settings.seed);
    return this.#settle(taken);
  }

  /** Use this seed until it is unlocked; without one, a new one each time. */
  lock(/** @type {string} */ seed) {
    this.#keep({ seed: seed || undefined });
  }

  /** The request for the worker. */
  request() {
    const { finish, seed, strength, prompt = "", negative_prompt, ...rest } = this.#now();
    const picture = this.input.request();
    // What is undefined is not sent.
    return {
      operation: "image_generation", preview: true, prompt, ...rest,
      negative_prompt: this.#offer.negative ? negative_prompt : undefined,
      seed: seed && written(seed),
      on_disconnect: finish ? "finish" : undefined,
      ...(picture && { ...picture, ...this.size(), strength }),
    };
  }

  /** What the model makes where nothing is set, as far as it is known. */
  #own() {
    const picture = this.input.size();
    return { ...this.#offer.defaults, count: 1, ...(picture && sizeFrom(this.#offer, picture)) };
  }

  #strength() {
    return this.#set.strength ?? this.#offer.strengths[this.input.operation()] ?? 0.8;
  }

  /** What size, steps and strength leave room for. */
  #bounds() {
    return boundsOf(this.#offer, { ...this.size(), steps: this.#set.steps, strength: this.input.size() ? this.#strength() : 1 });
  }

  /** What is set, as far as there is room for it. */
  #now() {
    const bounds = this.#bounds();
    const now = /** @type {Record<string, any>} */ ({ ...this.#set, strength: Math.max(this.#strength(), bounds.strength) });
    if (now.steps > bounds.steps) now.steps = bounds.steps;
    if (now.count > bounds.count) now.count = bounds.count;
    return now;
  }

  /** Set all of these, as far as they are to be had. Returns what is not, in words. */
  #settle(settings) {
    const before = this.input.operation();
    const { offer, kept, lost } = this.#capabilities ? settle(this.#capabilities, settings) : { offer: NONE, kept: settings, lost: /** @type {string[]} */ ([]) };
    this.#offer = offer;
    this.#set = kept;
    showOffer(offer);
    this.input.offer(offer.operations);
    this.#keep({});
    const now = this.input.operation();
    if (now !== before && before !== "image_generation" && LESS[now]) lost.push(LESS[now]);
    return lost;
  }

  #typed(name) {
    const { value } = byId(name);
    const set = value === "" ? undefined : NUMBERS.includes(name) ? Number(value) : value;
    if (name === "model") this.page.lost(this.#settle({ ...this.#set, model: set }));
    else this.#keep({ [name]: set });
  }

  #keep(changes) {
    Object.assign(this.#set, changes);
    keep("localStorage", "form", this.#set);
    this.#show();
  }

  #show() {
    showSettings(this.#now(), this.#own(), this.#bounds());
    const { width, height } = this.size();
    SHAPES.forEach(([, ratio], place) => {
      const shape = shaped(this.#offer, ratio);
      byId("shapes").children[place].setAttribute("aria-pressed", String(shape.width === width && shape.height === height));
    });
    showLoras(this.#offer, this.#set.loras ?? [], (chosen) => this.#keep({ loras: chosen }));
  }
}

/** Whether it is a number, or text for one, as pictures of other programs hold it. */
function isNumber(value) {
  return ["number", "bigint", "string"].includes(typeof value) && value !== "" && Number.isFinite(Number(value));
}
