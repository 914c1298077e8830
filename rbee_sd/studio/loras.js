// @ts-check
// The LoRAs of the form: which of those that the worker has are applied, and how strongly.

import { byId, make, options, say } from "./dom.js";

/** @type {Lora[]} */
let shown = [];

/** @typedef {{name: string, scale: number}} Lora */

/**
 * Show those that are chosen; `change` is called with another choice.
 * @param {import("./offer.js").Offer} offer
 * @param {Lora[]} chosen
 * @param {(chosen: Lora[]) => void} change
 */
export function showLoras({ loras: all, limits }, chosen, change) {
  const list = byId("lora-list");
  byId("loras").hidden = !all.length;
  byId("lora-add").onchange = () => change([...chosen, { name: byId("lora-add").value, scale: 1 }]);
  // Rebuilt only for others: a slider that is being moved stays.
  const names = JSON.stringify(all);
  if (list.dataset.names === names && chosen.length === shown.length && chosen.every((lora, place) => lora === shown[place])) return;
  list.dataset.names = names;
  shown = chosen;
  byId("lora-add").disabled = chosen.length >= limits.max_loras;
  options(byId("lora-add"), "add one …", all.filter((name) => !chosen.some((lora) => lora.name === name)));
  list.replaceChildren(...chosen.map((lora) => {
    const output = make("output", {}, String(lora.scale));
    const reach = Math.max(Math.min(2, limits.max_lora_scale), Math.abs(lora.scale));
    const scale = make("input", { type: "range", min: -reach, max: reach, step: 0.05, value: lora.scale, "aria-label": `Weight of ${lora.name}` });
    scale.addEventListener("input", () => {
      lora.scale = Number(scale.value);
      say(output, scale.value);
      change(chosen);
    });
    const drop = () => change(chosen.filter((each) => each !== lora));
    return make("li", {}, make("span", {}, lora.name, " ", output), scale,
      make("button", { type: "button", className: "quiet", "aria-label": `Remove ${lora.name}`, onclick: drop }, "✕"));
  }));
}
