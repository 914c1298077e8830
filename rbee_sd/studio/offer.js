// @ts-check
// The offer: what the chosen model can do, of what the worker says of itself, and settings brought within that, so that
// nothing is asked for which would be refused. Touches no element.

/**
 * @typedef {{operations: string[], schedulers: string[], models: string[], loras: string[], negative: boolean, defaults: any,
 *   strengths: Record<string, number>, limits: Record<string, any>}} Offer
 *   `negative`: whether a negative prompt counts. `defaults`: null of a model that was not loaded yet.
 */

/** @type {Offer} before the worker has said anything */
export const NONE = {
  operations: [], schedulers: [], models: [], loras: [], negative: true, defaults: null, strengths: {},
  limits: {
    min_side: 64, max_side: 2048, multiple_of: 8, max_prompt: 10_000, max_steps: Infinity, max_count: Infinity,
    max_megapixel_steps: Infinity,
  },
};
const MADE = ["image_generation", "image_transform", "image_inpaint"];
const STEPS = 20; // that the worker reckons with, of a model that was not loaded yet

/**
 * What there is for a model, or without one for the default. Of one that was not loaded yet every operation is taken,
 * as by the worker, and of the rest what the default model has.
 * @returns {Offer}
 */
export function offerFor(/** @type {any} */ { model_details, batching, limits, ...all }, /** @type {string | undefined} */ model) {
  const own = model_details.find((each) => (model ? each.name === model : each.default)) ?? {};
  return {
    ...all,
    operations: own.operations ?? MADE,
    schedulers: own.schedulers ?? all.schedulers,
    negative: own.negative_prompt ?? true,
    defaults: own.defaults ?? null,
    limits: { ...limits, multiple_of: own.multiple_of ?? limits.multiple_of },
  };
}

/** The offer for the model that settings name, those of them that are within it, and in words those that are not. */
export function settle(capabilities, /** @type {Record<string, any>} */ settings) {
  const kept = { ...settings };
  const lost = /** @type {string[]} */ ([]);
  const among = (name, there) => {
    if (kept[name] === undefined || there.includes(kept[name])) return;
    lost.push(`${name} ${kept[name]}`);
    delete kept[name];
  };
  const within = (what, value, range) => {
    const found = nearest(value, range);
    if (found !== value) lost.push(`${what} ${value}`);
    return found;
  };
  among("model", capabilities.models);
  const offer = offerFor(capabilities, kept.model);
  among("scheduler", offer.schedulers);
  const { limits, loras } = offer;
  const side = [limits.min_side, limits.max_side, limits.multiple_of];
  const ranges = {
    width: side, height: side, steps: [1, limits.max_steps, 1], guidance_scale: [0, limits.max_guidance_scale],
    count: [1, limits.max_count, 1], strength: [0.05, limits.max_strength],
  };
  for (const [name, range] of Object.entries(ranges)) {
    if (kept[name] !== undefined) kept[name] = within(name.split("_")[0], kept[name], range);
  }
  const chosen = new Map();
  for (const { name, scale } of settings.loras ?? []) {
    if (!loras.includes(name) || chosen.size === limits.max_loras) lost.push(`LoRA ${name}`);
    else if (!chosen.has(name)) chosen.set(name, within(`LoRA ${name} at`, scale, [-limits.max_lora_scale, limits.max_lora_scale]));
  }
  kept.loras = [...chosen].map(([name, scale]) => ({ name, scale }));
  return { offer, kept, lost };
}

/**
 * The bounds of the numbers that depend on others: one step must be left to do, and the work of all is limited. The
 * strength is 1 without a picture.
 */
export function boundsOf(/** @type {Offer} */ { limits, defaults }, { width, height, steps, strength }) {
  const room = (limits.max_megapixel_steps * 1e6) / (width * height * strength);
  const within = (most, fit) => Math.max(1, Math.min(most, Math.floor(fit)));
  const most = within(limits.max_steps, room);
  const done = Math.min(steps ?? defaults?.steps ?? STEPS, most);
  return { steps: most, count: within(limits.max_count, room / done), strength: Math.ceil(20 / done) / 20 };
}

/** Width and height of about the model's own area, or less; `ratio` is the one by the other. */
export function shaped(/** @type {Offer} */ { defaults, limits }, /** @type {number} */ ratio) {
  const side = [limits.min_side, limits.max_side, limits.multiple_of];
  const area = (defaults?.width ?? 512) * (defaults?.height ?? 512);
  const height = Math.min(Math.sqrt(area / ratio), limits.max_side, limits.max_side / ratio);
  return { width: nearest(height * ratio, side), height: nearest(height, side) };
}

/** The size of what is made from a picture: its own, or where that cannot be made, the model's own in its shape. */
export function sizeFrom(/** @type {Offer} */ offer, /** @type {{width: number, height: number}} */ { width, height }) {
  const { min_side, max_side, multiple_of } = offer.limits;
  const sides = [width, height].map((side) => side - side % multiple_of);
  if (sides.some((side) => side < min_side || side > max_side)) return shaped(offer, width / height);
  return { width: sides[0], height: sides[1] };
}

function nearest(value, /** @type {number[]} */ [least, most, multiple]) {
  if (!multiple) return Math.max(least, Math.min(most, value));
  return Math.max(least, Math.min(most - most % multiple, Math.round(value / multiple) * multiple));
}
