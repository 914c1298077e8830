// @ts-check
// The worker's HTTP interface: requests with the key, errors as objects, pictures as addresses that an <img> can take.

import { keep, kept } from "./dom.js";

const PATIENCE = 20_000; // ms

/**
 * What a JSON text says, with the seeds in it as BigInts: they go to 2^63, further than JavaScript's numbers are exact. A
 * browser without the means for that rounds the largest.
 */
export function parse(/** @type {string} */ text) {
  return JSON.parse(text, (name, value, context = {}) => {
    if (name !== "seed" || !Number.isInteger(value)) return value;
    return BigInt(Number.isSafeInteger(value) ? value : context.source ?? value);
  });
}

/** A seed as a person wrote it, for `JSON.stringify`; what is none is the worker's to refuse. */
export function written(/** @type {string} */ text) {
  if (!/^\d{1,19}$/.test(text)) return text;
  return /** @type {any} */ (JSON).rawJSON?.(String(BigInt(text))) ?? Number(text);
}

/** A request that the worker refused. `fields` are the wrong ones: `{field, message}`. */
export class Refused extends Error {
  constructor(/** @type {number} */ status, error) {
    super(error?.message ?? `the worker answered ${status}`);
    this.status = status;
    this.code = error?.code ?? "";
    this.fields = /** @type {{field: string, message: string}[]} */ (error?.errors ?? []);
  }
}

/** What went wrong, as a sentence for people. */
export function sentence(error) {
  if (!(error instanceof Refused)) return "The worker cannot be reached; try again in a moment.";
  if (/^(image|job)_(expired|gone|not_found)$/.test(error.code)) return "It is gone: deleted, or too old to be kept.";
  return error.message;
}

let key = kept("sessionStorage", "key", "") || kept("localStorage", "key", "");
/** @type {Promise<void> | null} */
let asking = null;
/** @type {(wrong: boolean) => Promise<{text: string, remember: boolean}>} */
let askForKey = async () => ({ text: "", remember: false });

/** Say how a person is asked for the key: `ask(wrong)` is given whether the last one was wrong. */
export function onKeyNeeded(/** @type {typeof askForKey} */ ask) {
  askForKey = ask;
}

/**
 * `fetch`, with the key; asks for it when the worker does. Raises `Refused`, `TypeError` without a connection, or after
 * `patience` ms, where that is given, `DOMException`.
 */
export async function request(/** @type {string} */ path, /** @type {RequestInit} */ options = {}, patience = 0) {
  for (;;) {
    const sent = key;
    const headers = new Headers(options.headers);
    if (sent) headers.set("Authorization", `Bearer ${sent}`);
    const signal = patience ? AbortSignal.timeout(patience) : options.signal;
    const response = await fetch(path, { ...options, headers, signal, cache: options.cache ?? "no-store" });
    if (response.ok || response.status === 304) return response;
    if (response.status !== 401) {
      const body = await response.json().catch(() => null);
      throw new Refused(response.status, body?.error);
    }
    // Others may have asked for it, and been told, meanwhile.
    if (key === sent) await (asking ??= ask(Boolean(sent)).finally(() => { asking = null; }));
  }
}

async function ask(wrong) {
  const { text, remember } = await askForKey(wrong);
  key = text;
  keep("sessionStorage", "key", text);
  keep("localStorage", "key", remember ? text : undefined);
}

/** Like `request`; what the worker says in JSON. Where nothing comes for long, the connection is dead. */
export async function requestJSON(/** @type {string} */ path, /** @type {RequestInit} */ options = {}, patience = PATIENCE) {
  return parse(await (await request(path, options, patience)).text());
}

/** GET, as JSON. */
export const get = (/** @type {string} */ path) => requestJSON(path);

/** Cancel a job; with `forget` remove one that has ended, with its pictures. */
export const remove = (/** @type {string} */ id, forget = false) =>
  requestJSON(`/v1/jobs/${id}${forget ? "?forget=true" : ""}`, { method: "DELETE" });

/** A picture's file. */
export async function pictureFile(/** @type {string} */ url) {
  return (await request(url, { cache: "default" })).blob();
}

/** @type {WeakMap<HTMLImageElement, object>} what each image is to show: others that come later were overtaken */
const newest = new WeakMap();

/**
 * Show a picture of the worker in an <img>; with a key it has to be fetched first, since an <img> cannot send one.
 * Raises when it cannot be shown, unless another is to be shown there meanwhile.
 */
export async function show(/** @type {HTMLImageElement} */ image, /** @type {string} */ url) {
  const turn = {};
  newest.set(image, turn);
  let address = "";
  try {
    if (key) {
      const file = await pictureFile(url);
      if (newest.get(image) !== turn) return;
      address = URL.createObjectURL(file);
    }
    await new Promise((done, fail) => {
      image.addEventListener("load", done, { once: true });
      image.addEventListener("error", () => fail(new Error("no picture")), { once: true });
      image.src = address || url;
    });
  } catch (error) {
    if (newest.get(image) === turn) throw error;
  } finally {
    if (address) URL.revokeObjectURL(address);
  }
}
