// @ts-check
// The fields of the form on the page: what there is to choose from, what is set, and what the worker refused.

import { button, byId, make, on, options, say } from "./dom.js";

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

/** Show what is `set`, and where nothing is, the model's `own`; `bounds` are those of `boundsOf`. */
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
      say(control.labels[0].querySelector("output"), shown === undefined ? "" : String(shown));
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

/** @typedef {{name: string, scale: number}} Lora */

/** @type {Lora[]} */
let shownLoras = [];

/** Show the LoRAs that are chosen; `change` is called with another choice. */
export function showLoras(/** @type {import("./offer.js").Offer} */ { loras: all, limits }, /** @type {Lora[]} */ chosen, change) {
  const list = byId("lora-list");
  byId("loras").hidden = !all.length;
  byId("lora-add").onchange = () => change([...chosen, { name: byId("lora-add").value, scale: 1 }]);
  // Rebuilt only for others: a slider that is being moved stays.
  const names = JSON.stringify(all);
  if (list.dataset.names === names && chosen.length === shownLoras.length && chosen.every((lora, place) => lora === shownLoras[place])) return;
  list.dataset.names = names;
  shownLoras = chosen;
  byId("lora-add").disabled = chosen.length >= limits.max_loras;
  options(byId("lora-add"), "add one …", all.filter((name) => !chosen.some((lora) => lora.name === name)));
  list.replaceChildren(...chosen.map((lora) => {
    const output = make("output", {}, String(lora.scale));
    const reach = Math.max(Math.min(2, limits.max_lora_scale), Math.abs(lora.scale));
    const scale = make("input", { type: "range", min: -reach, max: reach, step: 0.05, value: lora.scale, "aria-label": `Weight of ${lora.name}` });
    on(scale, "input", () => {
      lora.scale = Number(scale.value);
      say(output, scale.value);
      change(chosen);
    });
    const drop = () => change(chosen.filter((each) => each !== lora));
    return make("li", {}, make("span", {}, lora.name, " ", output), scale,
      button("✕", drop, { "aria-label": `Remove ${lora.name}` }));
  }));
}

/** Say at each field what is wrong with it, and go to the first. */
export function refuse(/** @type {{field: string, message: string}[]} */ errors) {
  accept();
  const start = byId("input-empty").hidden ? "input-remove" : "input-choose";
  let first = null;
  for (const { field, message } of errors) {
    const name = field.split(".")[0];
    const control = byId({ image: start, mask: start, loras: "lora-add" }[name] ?? name);
    const place = control?.closest("#form .field") ?? byId("refused");
    place.append(make("p", { className: "error", id: `error-${name}` }, message));
    control?.setAttribute("aria-invalid", "true");
    control?.setAttribute("aria-describedby", `error-${name}`);
    first ??= control;
  }
  if (first?.closest("#settings")) byId("settings").open = true;
  first?.focus();
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
function write(control, value) {
  if (control.value !== value) control.value = value;
}
