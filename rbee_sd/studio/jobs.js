// @ts-check
// The jobs that this page knows of: from the feed, from the worker's lists, and which of them are this tab's own.
// Whoever shows them is told once a frame of all that has changed.

import { get, Refused } from "./api.js";
import { keep, kept } from "./dom.js";

/**
 * @typedef {{id: string, state: string, operation: string, request: any, settled: any, position: number | null, step: number,
 *   total: number | null, eta: number | null, attempt: number, seed: bigint | null, images: any[], error: any, narration: string,
 *   previews: Map<number, string>, known: boolean}} Job
 *   `previews`: `data:` addresses, by the number of the image. `known`: whether its request has been asked for.
 */

const LIVE = new Set(["queued", "running"]);
const ENDS = { complete: "completed", error: "failed", cancelled: "cancelled" };
const REMEMBERED = 100;

export class Jobs {
  /** @type {Map<string, Job>} */
  #jobs = new Map();
  #own = new Set(/** @type {string[]} */ (kept("sessionStorage", "own", [])));
  /** @type {Set<string>} */
  #changed = new Set();
  /** @type {((changed: Set<string>) => void)[]} */
  #shows = [];
  /** @type {((job: Job) => void)[]} */
  #ends = [];

  /** Have `show` called with the ids of what has changed, once a frame at most. */
  onChange(/** @type {(changed: Set<string>) => void} */ show) {
    this.#shows.push(show);
  }

  /** Have `act` called with each job that comes to its end. */
  onEnd(/** @type {(job: Job) => void} */ act) {
    this.#ends.push(act);
  }

  /** A job, if it is known. */
  find(/** @type {string} */ id) {
    return this.#jobs.get(id);
  }

  /** All that are known, in the order in which they became so. */
  all() {
    return [...this.#jobs.values()];
  }

  /** Those that wait or run. */
  live() {
    return this.all().filter((job) => LIVE.has(job.state));
  }

  /** Ids of this tab's own jobs that have not ended. */
  own() {
    return [...this.#own];
  }

  /** A job of ours was accepted. */
  submitted(answer, request) {
    const job = this.#job(answer.job_id);
    job.request ??= request;
    job.operation = request.operation;
    job.seed = answer.seed;
    job.position ??= answer.position;
    job.known = true;
    if (LIVE.has(job.state)) this.#mine((own) => own.add(job.id));
    // Where the first answer was lost, the job may have ended since.
    if (!LIVE.has(answer.state)) void this.look(job.id);
    this.#touch(job);
    return job;
  }

  /** An event of the feed. */
  heard(data) {
    const job = this.#job(data.job_id);
    if (!LIVE.has(job.state)) return;
    if (data.event === "queued") Object.assign(job, { state: "queued", position: data.position, seed: data.seed });
    else if (data.event === "started") {
      const { total, attempt, seed, width, height, guidance_scale, scheduler } = data;
      Object.assign(job, { state: "running", position: null, step: 0, eta: null, total, attempt, seed });
      job.settled = { width, height, guidance_scale, scheduler };
    } else if (data.event === "narration") job.narration = data.text;
    else if (data.event === "progress") {
      Object.assign(job, { state: "running", position: null, step: data.step, total: data.total, eta: data.eta_s, narration: "" });
    } else if (data.event === "preview") {
      job.previews.set(data.index, `data:image/${data.format};base64,${data.image_base64}`);
    } else if (data.event in ENDS) {
      job.images = data.images ?? [];
      job.error = data.event === "error" ? { code: data.code, message: data.message } : null;
      this.#end(job, ENDS[data.event]);
    }
    if (!job.known) void this.look(job.id);
    this.#touch(job);
  }

  /** Ask the worker for one job, and take over what it says. */
  async look(/** @type {string} */ id) {
    const known = this.#jobs.get(id);
    if (known) known.known = true;
    try {
      return this.told(await get(`/v1/jobs/${id}`));
    } catch (error) {
      // Only the worker can say that there is no such job; without a connection it is still this page's.
      if (error instanceof Refused && [404, 410].includes(error.status)) this.#gone(id);
      else if (known) known.known = false;
      return undefined;
    }
  }

  /** A job as the worker describes it. It may be older than what the feed has told meanwhile. */
  told(view) {
    const job = this.#job(view.job_id);
    const { operation, request, seed, position } = view;
    Object.assign(job, { operation, request, seed, known: true });
    if (!LIVE.has(job.state)) {
      if (!LIVE.has(view.state)) Object.assign(job, { settled: view.settled, images: view.images });
      return job;
    }
    if (view.attempt > job.attempt || (view.attempt === job.attempt && view.step >= job.step)) {
      Object.assign(job, { state: view.state, step: view.step, total: view.total, attempt: view.attempt, position });
      if (Object.keys(view.settled).length) job.settled = view.settled;
    }
    if (!LIVE.has(view.state)) {
      Object.assign(job, { images: view.images, error: view.error });
      this.#end(job, view.state);
    }
    this.#touch(job);
    return job;
  }

  /** Learn what happened while nothing was heard: what lives, and what became of that which we thought did. */
  async catchUp() {
    const before = new Set([...this.live().map((job) => job.id), ...this.#own]);
    for (const state of ["running", "queued"]) {
      for (const id of await this.#list(state)) before.delete(id);
    }
    await Promise.all([...before].map((id) => this.look(id)));
  }

  /** Ask where those that wait stand. */
  async positions() {
    await this.#list("queued");
  }

  async #list(state) {
    const { jobs } = await get(`/v1/jobs?state=${state}&limit=200`);
    return jobs.map((view) => this.told(view).id);
  }

  #job(id) {
    let job = this.#jobs.get(id);
    if (!job) {
      job = {
        id, state: "queued", operation: "", request: null, settled: {}, position: null, step: 0, total: null, eta: null,
        attempt: 0, seed: null, images: [], error: null, narration: "", previews: new Map(), known: false,
      };
      this.#jobs.set(id, job);
    }
    return job;
  }

  #end(job, state) {
    job.state = state;
    job.previews.clear();
    this.#mine((own) => own.delete(job.id));
    for (const act of this.#ends) act(job);
    // The oldest that ended is of no interest any more.
    const ended = this.all().filter((each) => !LIVE.has(each.state));
    if (ended.length > REMEMBERED) this.#jobs.delete(ended[0].id);
  }

  #gone(id) {
    this.#mine((own) => own.delete(id));
    const job = this.#jobs.get(id);
    if (!job || !LIVE.has(job.state)) return;
    job.error = { code: "gone", message: "the worker does not know this job any more" };
    this.#end(job, "failed");
    this.#touch(job);
  }

  #mine(/** @type {(own: Set<string>) => void} */ change) {
    change(this.#own);
    keep("sessionStorage", "own", this.own());
  }

  #touch(job) {
    if (!this.#changed.size) {
      const tell = () => {
        const changed = this.#changed;
        this.#changed = new Set();
        for (const show of this.#shows) show(changed);
      };
      // Frames are not made for a tab that nobody sees, or that is hidden just now; its title goes on.
      const frame = requestAnimationFrame(() => { clearTimeout(later); tell(); });
      const later = setTimeout(() => { cancelAnimationFrame(frame); tell(); }, 250);
    }
    this.#changed.add(job.id);
  }
}
