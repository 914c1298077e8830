// @ts-check
// The machine: all jobs that wait, run or ended lately, with Cancel at each, and how the engine is.

import { get, remove, sentence } from "./api.js";
import { button, byId, bytes, make, say, seconds } from "./dom.js";
import { percentOf, stateOf } from "./watch.js";

/** @typedef {import("./jobs.js").Job} Job */

const EVERY = 2_000; // ms
const ENDED = 8; // that are listed
const STATES = { running: 0, queued: 1 };
const WORK = /^(image|model)_/;

export class Machine {
  /** @type {Map<string, ReturnType<typeof row>>} */
  #rows = new Map();
  /** @type {any} */
  #before = null;
  #up = true;
  #was = "";

  /**
   * @param {import("./jobs.js").Jobs} jobs
   * @param {{look: (id: string) => void, changed: () => void}} page  `changed`: the engine has other models, or none
   */
  constructor(jobs, page) {
    this.jobs = jobs;
    this.page = page;
    jobs.onChange(() => this.#list());
    const poll = async () => {
      if (!document.hidden) await this.ask();
      setTimeout(poll, EVERY);
    };
    setTimeout(poll, EVERY);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) void this.ask(); });
  }

  /** Whether the worker is reached. */
  reached(/** @type {boolean} */ up) {
    this.#up = up;
    if (up) void this.ask();
    else this.#pill("lost", "no connection; trying again …");
  }

  /** Ask the worker how it is. */
  async ask() {
    if (!this.#up) return;
    const status = await get("/v1/status").catch(() => null);
    if (!status || !this.#up) return;
    const { engine } = status;
    this.#pill(status.ready ? "ready" : "busy", status.detail || (status.ready ? `${status.model} · ${status.device}` : status.reason));
    byId("engine").title = `rbee-sd ${status.version}`;
    const was = this.#before?.pid === engine.pid ? this.#before : null;
    const forwards = engine.forwards - (was?.forwards ?? 0);
    if (forwards > 0) {
      this.rows = (engine.rows - (was?.rows ?? 0)) / forwards;
      this.step = (engine.worked - (was?.worked ?? 0)) / forwards;
    }
    this.#before = engine;
    this.#figures([
      ["Engine", status.ready ? "ready" : status.reason],
      ["Model", `${status.model}${status.dtype ? `, ${status.dtype}` : ""}`],
      ["Jobs in it", String(engine.jobs)],
      ["Rows a step", this.rows ? this.rows.toFixed(1) : "–"],
      ["Time a step", this.step ? seconds(this.step) : "–"],
      ["Memory", engine.memory ? bytes(engine.memory) : "–"],
      ["Starts", String(engine.starts)],
      ["Listeners", String(status.listeners)],
    ]);
    const now = `${status.model} ${status.loaded} ${engine.pid} ${status.ready}`;
    if (this.#was && now !== this.#was) this.page.changed();
    this.#was = now;
    if (this.jobs.live().some((job) => job.state === "queued")) await this.jobs.positions().catch(() => {});
  }

  #pill(state, text) {
    byId("engine").dataset.state = state;
    say(byId("engine"), text);
  }

  #figures(figures) {
    const list = byId("figures");
    if (!list.children.length) {
      list.replaceChildren(...figures.map(([name]) => make("div", {}, make("dt", {}, name), make("dd", {}))));
    }
    figures.forEach(([, value], place) => say(list.children[place].lastChild, value));
  }

  #list() {
    const made = this.jobs.all().filter((job) => !job.operation || WORK.test(job.operation));
    const ended = made.filter((job) => !(job.state in STATES)).reverse().slice(0, ENDED);
    const live = made.filter((job) => job.state in STATES)
      .sort((one, other) => STATES[one.state] - STATES[other.state] || (one.position ?? 0) - (other.position ?? 0));
    const list = [...live, ...ended];
    const places = byId("queue");
    for (const [id, shown] of this.#rows) {
      if (list.some((job) => job.id === id)) continue;
      shown.element.remove();
      this.#rows.delete(id);
    }
    list.forEach((job, place) => {
      let shown = this.#rows.get(job.id);
      if (!shown) this.#rows.set(job.id, shown = row(job, this.page.look));
      if (places.children[place] !== shown.element) places.insertBefore(shown.element, places.children[place]);
      shown.show(job);
    });
    byId("queue-empty").hidden = list.length > 0;
    say(byId("queue-count"), live.length ? String(live.length) : "");
  }
}

function row({ id }, look) {
  const title = make("button", { type: "button", className: "what", onclick: () => look(id) });
  const state = make("small", {});
  const bar = make("progress", { max: 100, value: 0, "aria-label": "Progress" });
  let trouble = "";
  const cancel = button("✕", () => {
    trouble = "";
    void remove(id).catch((error) => {
      trouble = `Not cancelled. ${sentence(error)}`;
      say(state, trouble);
      say(byId("said"), trouble);
    });
  });
  const element = make("li", {}, title, cancel, bar, state);
  return {
    element,
    show(/** @type {Job} */ job) {
      const prompt = job.request?.prompt || job.request?.model || "a picture";
      element.dataset.state = job.state;
      say(title, prompt);
      cancel.setAttribute("aria-label", `Cancel: ${prompt.slice(0, 60)}`);
      cancel.hidden = !(job.state in STATES);
      bar.value = percentOf(job);
      say(state, (job.state in STATES && trouble) || stateOf(job));
    },
  };
}
