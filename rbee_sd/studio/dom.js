// @ts-check
// Elements: finding them, making them, and words for numbers. Text is always set as text, never as markup.

/** The element with this id; the page has it. @type {(id: string) => any} */
export const byId = (id) => document.getElementById(id);

/**
 * A new element. Properties with a hyphen are attributes, the others are set as they are.
 * @type {(tag: string, properties?: Record<string, any>, ...children: (Node | string)[]) => any}
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) element.setAttribute(name, value);
    else /** @type {any} */ (element)[name] = value;
  }
  element.append(...children);
  return element;
}

/** A small button. */
export function button(/** @type {string} */ text, /** @type {(event: any) => void} */ onclick, properties = {}) {
  return make("button", { type: "button", className: "quiet", onclick, ...properties }, text);
}

/** Listen to an element, or to the one with this id. */
export function on(target, /** @type {string} */ kind, /** @type {(event: any) => void} */ act) {
  (typeof target === "string" ? byId(target) : target).addEventListener(kind, act);
}

/** Set an element's text only when it is another one: what does not change is not painted again. */
export function say(/** @type {Element} */ element, /** @type {string} */ text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Make these the choices of a <select>, behind one for none unless that is null. What was chosen stays so. */
export function options(/** @type {HTMLSelectElement} */ select, /** @type {string | null} */ none, /** @type {string[]} */ values) {
  const { value } = select;
  select.replaceChildren(
    ...(none === null ? [] : [make("option", { value: "" }, none)]),
    ...values.map((each) => make("option", { value: each }, each)),
  );
  if (values.includes(value)) select.value = value;
}

/** Seconds in words for people. */
export function seconds(/** @type {number} */ s) {
  if (s < 0.0995) return `${Math.max(1, Math.round(s * 1000))} ms`;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 100) return `${Math.round(s)} s`;
  return `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
}

/** Bytes in words for people. */
export function bytes(/** @type {number} */ n) {
  return n < 2 ** 20 ? `${Math.ceil(n / 1024)} KB` : n < 2 ** 30 ? `${(n / 2 ** 20).toFixed(1)} MB` : `${(n / 2 ** 30).toFixed(1)} GB`;
}

/** @typedef {"localStorage" | "sessionStorage"} Where */

/** Keep a value for the next visit, undefined: no more. A browser that keeps nothing is no error. */
export function keep(/** @type {Where} */ where, /** @type {string} */ name, value) {
  try {
    if (value === undefined) window[where].removeItem(`rbee-sd.${name}`);
    else window[where].setItem(`rbee-sd.${name}`, JSON.stringify(value));
  } catch { /* private windows */ }
}

/** What was kept, or `otherwise`. */
export function kept(/** @type {Where} */ where, /** @type {string} */ name, otherwise) {
  try {
    return JSON.parse(window[where].getItem(`rbee-sd.${name}`) ?? "null") ?? otherwise;
  } catch {
    return otherwise;
  }
}
