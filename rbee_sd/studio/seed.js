// @ts-check
// Seeds, which go to 2^63: further than JavaScript's numbers are exact. Read from JSON they are BigInts, and they are
// written back digit by digit; a browser without the means for that rounds the largest.

/** What a JSON text says, with the seeds in it as BigInts. */
export function parse(/** @type {string} */ text) {
  return JSON.parse(text, (name, value, /** @type {any} */ context = {}) => {
    if (name !== "seed" || !Number.isInteger(value)) return value;
    return BigInt(Number.isSafeInteger(value) ? value : context.source ?? value);
  });
}

/** A seed as a person wrote it, for `JSON.stringify`; what is none is the worker's to refuse. */
export function written(/** @type {string} */ text) {
  if (!/^\d{1,19}$/.test(text)) return text;
  return /** @type {any} */ (JSON).rawJSON?.(String(BigInt(text))) ?? Number(text);
}
