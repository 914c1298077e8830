// @ts-check
// The feed: one stream of all jobs' events for this tab, which comes back by itself and goes on where it was.
// An EventSource can send no key and gives up on some errors, so the stream is read with fetch.

import { parse, request } from "./api.js";

const SILENCE = 25_000; // ms without even a heartbeat, of which one comes each ten seconds: the connection is dead
const FIRST_WAIT = 300;
const LONGEST_WAIT = 8_000;

/**
 * The events in a stream of bytes, by the HTML standard, section 9.2, as far as the worker makes use of it. `heard` is
 * called with whatever comes.
 */
async function* eventsIn(/** @type {ReadableStream<Uint8Array>} */ body, /** @type {() => void} */ heard) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
    const blocks = (text + decoder.decode(value, { stream: true })).split("\n\n");
    text = blocks.pop() ?? "";
    for (const block of blocks) {
      const event = { id: 0, data: "" };
      for (const line of block.split("\n")) {
        if (line.startsWith("id: ")) event.id = Number(line.slice(4));
        else if (line.startsWith("data: ")) event.data = line.slice(6);
      }
      if (event.id && event.data) yield { id: event.id, data: parse(event.data) };
    }
  }
}

/** Calls `heard(data)` with each event, `opened()` when the stream (again) stands, `lost()` when it does not. */
export class Feed {
  #last = 0;
  #failures = 0;
  #timer = 0;
  /** @type {AbortController | null} the stream that was asked for last: being opened, where it is not the next */
  #newest = null;
  /** @type {AbortController | null} the stream that events come from */
  #standing = null;
  /** @type {Set<string>} */
  #named = new Set();

  /**
   * @param {{jobs: () => string[], heard: (data: any) => void, opened: () => void, lost: () => void}} page
   *   `jobs` are those that this tab wants finished: with the tab they are left.
   */
  constructor(page) {
    this.page = page;
    addEventListener("online", () => this.open());
    // A browser may keep a page that was left, connections included, to come back to it: for the worker it has gone.
    addEventListener("pagehide", () => this.#close());
    addEventListener("pageshow", (event) => { if (event.persisted) this.open(); });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && !this.#standing) this.open();
    });
  }

  get #opening() {
    return this.#newest !== this.#standing;
  }

  /** There is a new job of ours: have the worker know that somebody waits for it. */
  listen() {
    // To one that is being opened the worker may listen already: if it were given up, its jobs would be left.
    if (!this.#opening && this.page.jobs().some((id) => !this.#named.has(id))) this.open();
  }

  /** Open the stream, or another one in its place: that one goes on until this one stands, so nobody seems to leave. */
  open() {
    clearTimeout(this.#timer);
    const controller = new AbortController();
    if (this.#opening) this.#newest?.abort();
    this.#newest = controller;
    void this.#follow(controller);
  }

  #close() {
    clearTimeout(this.#timer);
    const streams = [this.#newest, this.#standing];
    this.#newest = this.#standing = null;
    for (const stream of streams) stream?.abort();
  }

  async #follow(controller) {
    const from = this.#last;
    const jobs = this.page.jobs();
    let watchdog = 0;
    const heard = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => controller.abort(), SILENCE);
    };
    try {
      heard();
      const headers = /** @type {Record<string, string>} */ (from ? { "Last-Event-ID": String(from) } : {});
      const response = await request(`/v1/events?jobs=${jobs.join()}`, { headers, signal: controller.signal });
      const again = this.#standing === null;
      this.#standing?.abort();
      this.#standing = controller;
      this.#named = new Set(jobs);
      this.#failures = 0;
      if (again) this.page.opened();
      // Others may have come while it was opened.
      this.listen();
      for await (const event of eventsIn(/** @type {any} */ (response.body), heard)) {
        // The stream before this one may have told it while this one was opened.
        if (event.id > from && event.id <= this.#last) continue;
        this.#last = event.id;
        this.page.heard(event.data);
      }
    } catch (error) {
      if (!(error instanceof Error)) throw error;
    } finally {
      clearTimeout(watchdog);
    }
    if (this.#standing === controller) {
      this.#standing = null;
      this.page.lost();
    }
    if (this.#newest === controller) {
      this.#newest = this.#standing;
      const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#failures++) * (0.75 + Math.random() / 2);
      this.#timer = setTimeout(() => this.open(), wait);
    }
  }
}
