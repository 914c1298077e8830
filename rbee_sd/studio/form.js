// @ts-check
// The form: what the worker offers, what the person has set, and the request that comes of both. What nobody has
// touched is left to the model. Values are kept for the next visit.

import { byId, keep, kept, make, options, say } from "./dom.js";
import { showLoras } from "./loras.js";

const NUMBERS = ["width", "height", "steps", "guidance_scale", "count", "strength"];
const TEXTS = ["prompt", "negative_prompt", "scheduler", "model"];
const SHAPES = /** @type {[string, number][]} */ ([["1:1", 1], ["3:4", 3 / 4], ["4:3", 4 / 3], ["9:16", 9 / 16], ["16:9", 16 / 9]]);
const UNTRIED = { limits: {}, strengths: {}, schedulers: [], models: [], loras: [], operations: [], defaults: null };

/** Names in a list of names or of objects that have one. */
const names = (/** @type {any[]} */ list) => list.map((each) => (typeof each === "string" ? each : each.name));

export class Form {
  /** @type {Record<string, any>} what was set; nothing stands for the model's own */
  #set = kept("localStorage", "form", {});
  /** @type {any} */
  #offer = UNTRIED;

  /** @param {{submit: () => void, input: import("./input.js").Input}} page */
  constructor(page) {
    this.input = page.input;
    const form = byId("form");
    form.addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      page.submit();
    });
    addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.repeat && !document.querySelector("dialog[open]")) {
        event.preventDefault();
        page.submit();
      }
    });
    for (const name of [...NUMBERS, ...TEXTS]) byId(name).addEventListener("input", () => this.#typed(name));
    byId("seed").addEventListener("input", () => this.lock(byId("seed").value.trim()));
    byId("lock").addEventListener("click", () => this.lock(this.#set.seed ? "" : byId("seed").value.trim() || String(this.lastSeed ?? "")));
    byId("finish").addEventListener("change", () => this.#keep({ finish: byId("finish").checked }));
    byId("swap").addEventListener("click", () => {
      const { width, height } = this.size();
      this.#keep({ width: height, height: width });
    });
    byId("reset").addEventListener("click", () => {
      const { prompt, finish } = this.#set;
      this.#set = {};
      this.#keep({ prompt, finish });
    });
    this.input.onChange(() => this.#show());
    /** @type {number | null} the seed of the last picture */
    this.lastSeed = null;
    this.#show();
  }

  /** What the worker can do: the form offers that and no more. */
  offer(/** @type {any} */ capabilities) {
    this.#offer = { ...UNTRIED, ...capabilities };
    const { limits, schedulers, models, operations } = this.#offer;
    options(byId("scheduler"), "default", schedulers);
    options(byId("model"), models.length > 1 ? "the loaded one" : null, names(models));
    for (const side of ["width", "height"]) {
      Object.assign(byId(side), { min: limits.min_side, max: limits.max_side, step: limits.multiple_of });
    }
    byId("steps").max = limits.max_steps;
    byId("count").max = limits.max_count;
    byId("prompt").maxLength = byId("negative_prompt").maxLength = limits.max_prompt;
    byId("strength").max = limits.max_strength;
    this.input.offer(operations.includes("image_transform"), operations.includes("image_inpaint"));
    byId("shapes").replaceChildren(...SHAPES.map(([name, ratio]) =>
      make("button", { type: "button", className: "quiet", onclick: () => this.#keep(this.#shaped(ratio)) }, name)));
    this.#fit();
    this.#show();
  }

  /** What was kept from another visit may be of another worker, or of another model. */
  #fit() {
    const { limits, schedulers, models, loras } = this.#offer;
    const most = { steps: limits.max_steps, count: limits.max_count, strength: limits.max_strength };
    for (const [name, bound] of Object.entries(most)) if (this.#set[name] > bound) this.#set[name] = bound;
    if (!schedulers.includes(this.#set.scheduler)) delete this.#set.scheduler;
    if (!names(models).includes(this.#set.model)) delete this.#set.model;
    this.#set.loras = (this.#set.loras ?? []).filter((/** @type {any} */ lora) => names(loras).includes(lora.name));
  }

  /** The size that will be made, as far as it is known. */
  size() {
    const { defaults } = this.#offer;
    const picture = this.input.size();
    return {
      width: this.#set.width ?? picture?.width ?? defaults?.width ?? 512,
      height: this.#set.height ?? picture?.height ?? defaults?.height ?? 512,
    };
  }

  /** Take over settings of another picture. Returns what is not to be had here, in words. */
  apply(/** @type {any} */ settings) {
    const { schedulers, models, loras } = this.#offer;
    const missing = [];
    const taken = /** @type {Record<string, any>} */ ({ negative_prompt: "", loras: [] });
    // A picture can be anybody's, and hold anything.
    for (const name of NUMBERS) if (isNumber(settings[name])) taken[name] = Number(settings[name]);
    for (const name of ["prompt", "negative_prompt"]) if (typeof settings[name] === "string") taken[name] = settings[name];
    for (const [name, there] of /** @type {[string, string[]][]} */ ([["scheduler", schedulers], ["model", names(models)]])) {
      if (!settings[name]) continue;
      if (there.includes(settings[name])) taken[name] = settings[name];
      else missing.push(`the ${name} ${settings[name]}`);
    }
    for (const lora of Array.isArray(settings.loras) ? settings.loras : []) {
      const scale = Number(lora?.scale ?? 1);
      if (names(loras).includes(lora?.name) && Number.isFinite(scale)) taken.loras.push({ name: lora.name, scale });
      else missing.push(`the LoRA ${lora?.name}`);
    }
    const { finish } = this.#set;
    this.#set = { finish };
    if (isNumber(settings.seed)) taken.seed = String(settings.seed);
    Object.assign(this.#set, taken);
    this.#fit();
    this.#keep({});
    return missing;
  }

  /** Use this seed until it is unlocked; without one, a new one each time. */
  lock(/** @type {string} */ seed) {
    this.#keep({ seed: seed || undefined });
  }

  /** The request for the worker. */
  request() {
    const { finish, seed, loras, strength, ...rest } = this.#set;
    const body = /** @type {Record<string, any>} */ ({ operation: "image_generation", preview: true });
    for (const [name, value] of Object.entries(rest)) if (value !== undefined && value !== "") body[name] = value;
    body.prompt ??= "";
    // A seed may be larger than JavaScript's numbers are exact; what is none is the worker's to refuse.
    if (seed) body.seed = /^\d{1,19}$/.test(seed) ? (/** @type {any} */ (JSON).rawJSON?.(seed) ?? Number(seed)) : seed;
    if (loras?.length) body.loras = loras;
    if (finish) body.on_disconnect = "finish";
    const picture = this.input.request();
    if (picture) Object.assign(body, picture, strength === undefined ? {} : { strength });
    return body;
  }

  /** Say at each field what is wrong with it, and go to the first. */
  refuse(/** @type {{field: string, message: string}[]} */ errors) {
    this.accept();
    let first = null;
    for (const { field, message } of errors) {
      const name = { mask: "image" }[field] ?? field.split(".")[0];
      const place = document.querySelector(`.field[data-field="${CSS.escape(name)}"]`) ?? document.querySelector('.field[data-field="request"]');
      const control = place?.querySelector("input:not([hidden]), textarea, select");
      place?.append(make("p", { className: "error", id: `error-${name}` }, message));
      control?.setAttribute("aria-invalid", "true");
      control?.setAttribute("aria-describedby", `error-${name}`);
      first ??= control;
    }
    if (first?.closest("#settings")) byId("settings").open = true;
    /** @type {any} */ (first)?.focus();
  }

  /** Nothing is wrong any more. */
  accept() {
    for (const message of document.querySelectorAll("#form .error")) message.remove();
    for (const control of document.querySelectorAll("#form [aria-invalid]")) {
      control.removeAttribute("aria-invalid");
      control.removeAttribute("aria-describedby");
    }
  }

  #typed(/** @type {string} */ name) {
    const { value } = byId(name);
    this.#keep({ [name]: value === "" ? undefined : NUMBERS.includes(name) ? Number(value) : value });
  }

  #keep(/** @type {Record<string, any>} */ changes) {
    Object.assign(this.#set, changes);
    keep("localStorage", "form", this.#set);
    this.#show();
  }

  /** Width and height of about the model's own area. */
  #shaped(/** @type {number} */ ratio) {
    const { defaults, limits } = this.#offer;
    const area = (defaults?.width ?? 512) * (defaults?.height ?? 512);
    const side = (/** @type {number} */ length) =>
      Math.min(limits.max_side, Math.max(limits.min_side, Math.round(length / limits.multiple_of) * limits.multiple_of));
    return { width: side(Math.sqrt(area * ratio)), height: side(Math.sqrt(area / ratio)) };
  }

  #show() {
    const { defaults, strengths, limits, loras } = this.#offer;
    const own = { ...defaults, count: 1, strength: strengths[this.input.operation()] ?? 0.8 };
    const picture = this.input.size();
    if (picture) Object.assign(own, picture);
    for (const name of NUMBERS) {
      const control = byId(name);
      const value = this.#set[name];
      if (control.type === "range") {
        const shown = value ?? own[name];
        if (shown > Number(control.max)) control.max = shown;
        control.value = shown ?? control.min;
        say(/** @type {Element} */ (document.querySelector(`output[for="${name}"]`)), shown === undefined ? "" : String(shown));
      } else {
        control.placeholder = own[name] ?? "";
        if (control.value !== String(value ?? "")) control.value = value ?? "";
      }
    }
    for (const name of TEXTS) {
      const value = this.#set[name] ?? "";
      if (byId(name).value !== value && (byId(name).tagName !== "SELECT" || byId(name).querySelector(`option[value="${CSS.escape(value)}"]`))) {
        byId(name).value = value;
      }
    }
    const { seed } = this.#set;
    if (seed !== undefined && byId("seed").value.trim() !== seed) byId("seed").value = seed;
    if (seed === undefined) byId("seed").value = "";
    byId("lock").setAttribute("aria-pressed", String(Boolean(seed)));
    say(byId("lock"), seed ? "Locked" : "Lock");
    byId("finish").checked = Boolean(this.#set.finish);
    const { width, height } = this.size();
    SHAPES.forEach(([, ratio], place) => {
      const shaped = limits.min_side ? this.#shaped(ratio) : null;
      byId("shapes").children[place]?.setAttribute("aria-pressed", String(shaped?.width === width && shaped?.height === height));
    });
    showLoras(names(loras), this.#set.loras ?? [], limits.max_lora_scale, (chosen) => this.#keep({ loras: chosen }));
  }
}

/** Whether it is a number, or text for one, as pictures of other programs hold it. */
function isNumber(/** @type {any} */ value) {
  return ["number", "string"].includes(typeof value) && value !== "" && Number.isFinite(Number(value));
}
