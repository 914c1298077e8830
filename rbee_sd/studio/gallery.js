// @ts-check
// The gallery: every finished picture, newest first. Only the tiles in sight are in the page, and the worker's list is
// read on as one scrolls: thousands cost no more than a screenful.

import { get, Refused, show } from "./api.js";
import { byId, make, on, say } from "./dom.js";

/** @typedef {{key: string, job: any, index: number, url: string}} Item  one picture; `job` as the worker describes it */

const PAGE = 100;
const AHEAD = 3; // screens of tiles that are known before they are in sight
const AROUND = 2; // rows above and below those in sight whose pictures are fetched already
const GAP = 8;
const NARROWEST = 128;

export class Gallery {
  /** @type {Item[]} */
  #items = [];
  /** @type {string | null} where the worker's list goes on; null at its end */
  #next = "";
  /** @type {string | null | undefined} while the list is read from its beginning again: where it had gone on before */
  #end;
  #loading = false;
  #planned = false;
  #grid = "";
  /** @type {Map<string, any>} the tiles that are in the page */
  #tiles = new Map();
  /** @type {(() => void)[]} how the pictures that did not come are fetched again */
  #missed = [];

  /** @param {(item: Item) => void} open */
  constructor(open) {
    this.open = open;
    this.list = byId("tiles");
    addEventListener("scroll", () => this.#plan(), { passive: true });
    new ResizeObserver(() => this.#plan()).observe(this.list);
    on(this.list, "keydown", (event) => this.#move(event));
  }

  /** Read the list from its beginning, as far as it has news, and the pictures in sight that did not come. */
  async load() {
    for (const again of this.#missed.splice(0)) again();
    if (this.#next !== "" && this.#end === undefined) this.#end = this.#next;
    this.#next = "";
    await this.#more();
  }

  /** A job has ended: show what it made, in its place. */
  async add(/** @type {string} */ id) {
    const job = await get(`/v1/jobs/${id}`).catch(() => null);
    if (!job?.images.length || this.#items.some((item) => item.job.job_id === id)) return;
    // One that is older than all that are known comes with the rest of the list.
    const last = this.#items[this.#items.length - 1];
    if (last && !this.#whole && job.created_at < last.job.created_at) return;
    this.#take([job]);
  }

  /** A job was deleted. */
  drop(/** @type {string} */ id) {
    this.#items = this.#items.filter((item) => item.job.job_id !== id);
    this.#plan();
  }

  /** A picture by its job and number. */
  find(/** @type {string} */ id, /** @type {number} */ index) {
    return this.#items.find((item) => item.job.job_id === id && item.index === index);
  }

  /** The picture so many places behind this one. */
  beside(/** @type {Item} */ item, /** @type {number} */ by) {
    return this.#items[this.#items.findIndex((each) => each.key === item.key) + by];
  }

  /** Whether all is known, or was before the list is read again. */
  get #whole() {
    return this.#next === null || this.#end === null;
  }

  async #more() {
    const from = this.#next;
    if (this.#loading || from === null) return;
    this.#loading = true;
    try {
      const { jobs, next } = await get(`/v1/jobs?state=completed&limit=${PAGE}${from ? `&before=${from}` : ""}`);
      const before = this.#items.length;
      this.#take(jobs);
      // Meanwhile it may have been told to begin again.
      if (this.#next === from) {
        // What follows a page without news is known.
        const met = this.#end !== undefined && next !== null && this.#items.length === before;
        this.#next = met ? this.#end ?? null : next;
        if (met || next === null) this.#end = undefined;
      }
    } catch (error) {
      // The next scroll, or the next connection, tries again; from further up, if the last one seen is forgotten.
      if (!(error instanceof Refused) || ![404, 410].includes(error.status)) return;
      const place = this.#items.findIndex((item) => item.job.job_id === from);
      if (this.#next === from) this.#next = this.#items[(place < 0 ? this.#items.length : place) - PAGE]?.job.job_id ?? "";
    } finally {
      this.#loading = false;
    }
    this.#plan();
  }

  #take(jobs) {
    const known = new Set(this.#items.map((item) => item.job.job_id));
    this.#items.push(...jobs.filter((job) => !known.has(job.job_id)).flatMap(itemsOf));
    this.#items.sort((one, other) => other.job.created_at - one.job.created_at);
    this.#plan();
  }

  #plan() {
    if (this.#planned) return;
    this.#planned = true;
    requestAnimationFrame(() => {
      this.#planned = false;
      this.#lay();
    });
  }

  #lay() {
    const count = this.#items.length;
    byId("gallery-empty").hidden = count > 0 || this.#next !== null;
    say(byId("gallery-count"), count ? `${count}${this.#whole ? "" : " or more"}` : "");
    const { top, width } = this.list.getBoundingClientRect();
    const across = Math.max(2, Math.floor((width + GAP) / (NARROWEST + GAP)));
    const side = (width - GAP * (across - 1)) / across;
    const row = side + GAP;
    this.across = across;
    this.list.style.height = `${Math.ceil(count / across) * row}px`;
    const first = Math.max(0, Math.floor(-top / row) - AROUND) * across;
    // Some are there also when the gallery is out of sight: the Tab key finds its way.
    const last = Math.min(count, Math.max(2, Math.ceil((innerHeight - top) / row) + AROUND) * across);
    const known = this.#whole ? count : -1;
    const grid = `${across} ${side} ${known}`;
    const moved = grid !== this.#grid;
    this.#grid = grid;
    const wanted = new Set();
    for (let place = first; place < last; place++) {
      const item = this.#items[place];
      wanted.add(item.key);
      const tile = this.#tiles.get(item.key) ?? this.#tile(item);
      // Most stay as they are while one scrolls.
      if (!moved && tile.dataset.place === String(place)) continue;
      tile.dataset.place = String(place);
      tile.setAttribute("aria-posinset", String(place + 1));
      tile.setAttribute("aria-setsize", String(known));
      tile.style.width = tile.style.height = `${side}px`;
      tile.style.transform = `translate(${(place % across) * row}px, ${Math.floor(place / across) * row}px)`;
    }
    for (const [key, tile] of this.#tiles) {
      if (wanted.has(key)) continue;
      // What is not there yet gives way to what is in sight.
      tile.querySelector("img").src = "";
      tile.remove();
      this.#tiles.delete(key);
    }
    if (this.#end !== undefined || count - last < across * Math.ceil(innerHeight / row) * AHEAD) void this.#more();
  }

  #tile(item) {
    const title = item.job.request?.prompt ?? "";
    const image = make("img", { alt: title, decoding: "async", draggable: false });
    const fetched = () => void show(image, `${item.url}?thumbnail=true`).catch(() => {
      if (image.isConnected) this.#missed.push(fetched);
    });
    fetched();
    // What is dragged is the picture itself, not what stands for it here.
    const ondragstart = (event) => event.dataTransfer?.setData("text/uri-list", new URL(item.url, location.href).href);
    const tile = make("li", { draggable: true, ondragstart }, make("button", { type: "button", title, onclick: () => this.open(item) }, image));
    this.#tiles.set(item.key, tile);
    this.list.append(tile);
    return tile;
  }

  /** The arrow keys go from tile to tile. */
  #move(event) {
    const across = this.across ?? 1;
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
    const from = event.target.closest("li");
    if (!by || !from) return;
    event.preventDefault();
    const place = Number(from.dataset.place) + by;
    if (place < 0 || place >= this.#items.length) return;
    const wanted = `[data-place="${place}"]`;
    this.list.querySelector(wanted)?.scrollIntoView({ block: "nearest" });
    this.#lay();
    this.list.querySelector(`${wanted} button`)?.focus();
  }
}

/** The pictures of a job. */
export function itemsOf(job) {
  return job.images.map((image) => ({ key: `${job.job_id} ${image.index}`, job, index: image.index, url: image.url }));
}
