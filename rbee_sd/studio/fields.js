// @ts-check
// The fields of the form on the page: what there is to choose from, what is set, and what the worker refused.

import { byId, make, options, say } from "./dom.js";

export const NUMBERS = ["width", "height", "steps", "guidance_scale", "count", "strength"];
export const TEXTS = ["prompt", "negative_prompt", "scheduler", "model"];

/** Show what there is to choose from. */
export function showOffer(/** @type {import("./offer.js").Offer} */ { limits, schedulers, models, negative }) {
  options(byId("scheduler"), "default", schedulers);
  options(byId("model"), models.length > 1 ? "the default" : null, models);
  for (const side of ["width", "height"]) {
    Object.assign(byId(side), { min: limits.min_side, max: limits.max_side, step: limits.multiple_of });
  }
  byId("prompt").maxLength = byId("negative_prompt").maxLength = limits.max_prompt;
  byId("negative_prompt").disabled = !negative;
  byId("negative_prompt").placeholder = negative ? "" : "This model takes none.";
}

/**
 * Show what is set, and where nothing is, what the model makes of itself.
 * @param {Record<string, any>} set
 * @param {Record<string, any>} own
 * @param {{steps: number, count: number, strength: number}} bounds  see `boundsOf`
 */
export function showSettings(set, own, bounds) {
  byId("steps").max = bounds.steps;
  byId("count").max = bounds.count;
  byId("strength").min = bounds.strength;
  for (const name of NUMBERS) {
    const control = byId(name);
    const value = set[name];
    if (control.type === "range") {
      const shown = value ?? own[name];
      if (shown > Number(control.max)) control.max = shown;
      control.value = shown ?? control.min;
      say(/** @type {Element} */ (document.querySelector(`output[for="${name}"]`)), shown === undefined ? "" : String(shown));
    } else {
      control.placeholder = own[name] ?? "";
      write(control, String(value ?? ""));
    }
  }
  for (const name of TEXTS) {
    const value = set[name] ?? "";
    const there = byId(name).tagName !== "SELECT" || byId(name).querySelector(`option[value="${CSS.escape(value)}"]`);
    if (there) write(byId(name), value);
  }
  const { seed } = set;
  if (byId("seed").value.trim() !== seed) write(byId("seed"), seed ?? "");
  byId("lock").setAttribute("aria-pressed", String(Boolean(seed)));
  say(byId("lock"), seed ? "Locked" : "Lock");
  byId("finish").checked = Boolean(set.finish);
}

/** Say at each field what is wrong with it, and go to the first. */
export function refuse(/** @type {{field: string, message: string}[]} */ errors) {
  accept();
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
export function accept() {
  for (const message of document.querySelectorAll("#form .error")) message.remove();
  for (const control of document.querySelectorAll("#form [aria-invalid]")) {
    control.removeAttribute("aria-invalid");
    control.removeAttribute("aria-describedby");
  }
}

/** Where it is there already, the cursor stays. */
function write(/** @type {any} */ control, /** @type {string} */ value) {
  if (control.value !== value) control.value = value;
}
