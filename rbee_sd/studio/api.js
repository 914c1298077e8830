// @ts-check
// The worker's HTTP interface: requests with the key, errors as objects, pictures as addresses that an <img> can take.

import { keep, kept } from "./dom.js";
import { parse } from "./seed.js";

/** A request that the worker refused. `fields` are the wrong ones: `{field, message}`. */
export class Refused extends Error {
  constructor(/** @type {number} */ status, /** @type {any} */ error) {
    super(error?.message ?? `the worker answered ${status}`);
    this.status = status;
    this.code = error?.code ?? "";
    this.fields = /** @type {{field: string, message: string}[]} */ (error?.errors ?? []);
  }
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
 * `fetch`, with the key; asks for it when the worker does. Raises `Refused`, or `TypeError` without a connection.
 * @param {string} path
 * @param {RequestInit} [options]
 */
export async function request(path, options = {}) {
  for (;;) {
    const sent = key;
    const headers = new Headers(options.headers);
    if (sent) headers.set("Authorization", `Bearer ${sent}`);
    const response = await fetch(path, { ...options, headers, cache: options.cache ?? "no-store" });
    if (response.ok || response.status === 304) return response;
    if (response.status !== 401) {
      const body = await response.json().catch(() => null);
      throw new Refused(response.status, body?.error);
    }
    // Others may have asked for it, and been told, meanwhile.
    if (key === sent) await (asking ??= ask(Boolean(sent)).finally(() => { asking = null; }));
  }
}

async function ask(/** @type {boolean} */ wrong) {
  const { text, remember } = await askForKey(wrong);
  key = text;
  keep("sessionStorage", "key", text);
  keep("localStorage", "key", remember ? text : undefined);
}

/** GET, as JSON. */
export async function get(/** @type {string} */ path) {
  return parse(await (await request(path)).text());
}

/** Submit an operation; returns `{job_id, state, position, seed}`. */
export async function submit(/** @type {object} */ body) {
  const headers = { "Content-Type": "application/json" };
  return parse(await (await request("/v1/jobs", { method: "POST", headers, body: JSON.stringify(body) })).text());
}

/** Cancel a job; with `forget` remove one that has ended, with its pictures. */
export async function remove(/** @type {string} */ id, forget = false) {
  return (await request(`/v1/jobs/${id}${forget ? "?forget=true" : ""}`, { method: "DELETE" })).json();
}

/** A picture's file. */
export async function pictureFile(/** @type {string} */ url) {
  return (await request(url, { cache: "default" })).blob();
}

/**
 * Show a picture of the worker in an <img>; with a key it has to be fetched first, since an <img> cannot send one.
 * @param {HTMLImageElement} image
 * @param {string} url
 */
export async function show(image, url) {
  if (!key) {
    image.src = url;
    return;
  }
  const address = URL.createObjectURL(await pictureFile(url));
  image.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
  image.src = address;
}
