// @ts-check
// The stage: the job that this tab looks at, its pictures growing in place, how far it is, and Stop. Also the title.

import { remove, sentence, show } from "./api.js";
import { button, byId, keep, kept, make, on, say, seconds } from "./dom.js";

/** @typedef {import("./jobs.js").Job} Job */

const TITLE = document.title;

/** One line about where a job is. */
export function stateOf(/** @type {Job} */ job) {
  if (job.state === "queued") return job.position ? `waiting, ${job.position} before it` : "waiting, next in turn";
  if (job.state === "running") {
    if (!job.step) return "starting …";
    const left = job.eta === null || job.step === job.total ? "" : ` · ${seconds(job.eta)} left`;
    return job.step === job.total ? "finishing …" : `step ${job.step} of ${job.total}${left}`;
  }
  if (job.state === "failed") return job.error?.message ?? "failed";
  return { completed: "done", cancelled: "stopped" }[job.state] ?? job.state;
}

/** How far a job is, from 0 to 100. */
export function percentOf(/** @type {Job} */ job) {
  return job.state === "completed" ? 100 : job.total ? (100 * job.step) / job.total : 0;
}

export class Stage {
  #id = kept("sessionStorage", "stage", "");
  #shown = "";
  #state = "";
  #trouble = "";
  /** @type {HTMLImageElement[]} */
  #images = [];

  /**
   * @param {import("./jobs.js").Jobs} jobs
   * @param {{open: (id: string, index: number) => void, useSeed: (seed: bigint) => void, size: () => {width: number, height: number}}} page
   */
  constructor(jobs, page) {
    this.jobs = jobs;
    this.page = page;
    jobs.onChange((changed) => {
      if (changed.has(this.#id)) this.#show();
      this.#title();
    });
    on("stop", "click", () => void this.#stop());
    document.addEventListener("visibilitychange", () => this.#title());
  }

  /** The job that was looked at before a reload, if there is one: the page begins with it. */
  async resume() {
    if (this.#id && !this.jobs.find(this.#id)) await this.jobs.look(this.#id);
    this.#show();
  }

  /** Look at this job. */
  look(/** @type {string} */ id) {
    this.#id = id;
    keep("sessionStorage", "stage", id);
    this.#show();
  }

  /** The seed of the job that is looked at. */
  seed() {
    return this.jobs.find(this.#id)?.seed ?? null;
  }

  async #stop() {
    const id = this.#id;
    byId("stop").hidden = true;
    this.#trouble = "";
    await remove(id).catch((error) => {
      if (id !== this.#id) return;
      this.#trouble = `Not stopped. ${sentence(error)}`;
      say(byId("said"), this.#trouble);
      this.#show();
    });
  }

  #show() {
    const job = this.jobs.find(this.#id);
    if (!job) return;
    const live = job.state === "queued" || job.state === "running";
    this.#frame(job);
    byId("progress").value = percentOf(job);
    byId("stage").dataset.state = job.state;
    say(byId("state"), stateOf(job));
    say(byId("narration"), live ? this.#trouble || job.narration : "");
    byId("stop").hidden = !live;
    if (job.state !== this.#state) {
      this.#state = job.state;
      // Each step would be too much for those who listen to the page.
      say(byId("said"), stateOf(job));
      const { seed } = job;
      byId("stage-actions").replaceChildren(...(job.state !== "completed" || seed === null ? [] : [
        button("Use this seed again", () => this.page.useSeed(seed)),
      ]));
    }
    this.#images.forEach((image, index) => {
      const done = job.images[index];
      const source = done ? done.url : job.previews.get(index);
      if (!source || image.dataset.source === source) return;
      image.dataset.source = source;
      image.classList.toggle("rough", !done);
      // Where it fails for want of a connection, the next one tries again.
      if (done) show(image, source).catch(() => { image.dataset.source = ""; });
      else image.src = source;
    });
  }

  /** A place for each picture, of its final size from the beginning: nothing moves while they come. */
  #frame(job) {
    const { settled, request } = job;
    const { width, height } = settled?.width ? settled : request?.width && request.height ? request : this.page.size();
    const count = job.images.length || request?.count || 1;
    const shown = `${job.id} ${width} ${height} ${count}`;
    if (shown === this.#shown) return;
    const other = !this.#shown.startsWith(job.id);
    this.#shown = shown;
    if (other) this.#state = this.#trouble = "";
    if (other || this.#images.length !== count) {
      this.#images = Array.from({ length: count }, () => make("img", { alt: "" }));
      byId("pictures").replaceChildren(...this.#images.map((image, index) =>
        make("div", { className: "place" }, make("button", {
          type: "button", className: "picture", "aria-label": `Picture ${index + 1} of ${count}`, onclick: () => this.page.open(this.#id, index),
        }, image))));
    }
    for (const image of this.#images) {
      image.width = width;
      image.height = height;
      image.parentElement?.style.setProperty("--ratio", String(width / height));
    }
    byId("pictures").style.setProperty("--across", String(Math.ceil(Math.sqrt(count))));
  }

  #title() {
    const own = this.jobs.own().map((id) => this.jobs.find(id)).filter((job) => job !== undefined);
    const job = own.find((each) => each.state === "running") ?? own[0];
    let title = TITLE;
    if (job?.state === "running") title = `${Math.round(percentOf(job))} % · ${TITLE}`;
    else if (job) title = `waiting · ${TITLE}`;
    else if (document.hidden && this.jobs.find(this.#id)?.state === "completed") title = `done · ${TITLE}`;
    if (document.title !== title) document.title = title;
  }
}
