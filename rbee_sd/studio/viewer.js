// @ts-check
// One picture in full: how it was made, what can be done with it, and another one beside it to compare.

import { pictureFile, remove, sentence, show } from "./api.js";
import { button, byId, make, on, say, seconds } from "./dom.js";

/** @typedef {import("./gallery.js").Item} Item */

const LABELS = {
  prompt: "Prompt", negative_prompt: "Without", seed: "Seed", size: "Size", steps: "Steps", guidance_scale: "Guidance",
  scheduler: "Scheduler", model: "Model", loras: "LoRAs", strength: "Strength", image: "Started from", mask: "Mask",
  run_s: "Took", made: "Made",
};

/** The settings that make this picture again. */
export function settingsOf(/** @type {Item} */ { job, index }) {
  const { operation, preview, on_disconnect, count, image, mask, ...asked } = job.request;
  // Of an input image only a part of the steps is done.
  const steps = asked.steps ?? (job.request.image ? undefined : job.total);
  return { ...asked, ...job.settled, steps, seed: job.seed === null ? null : job.seed + BigInt(index) };
}

export class Viewer {
  /** @type {Item | null} */
  #item = null;
  /** @type {Item | null} the one to compare with */
  #pinned = null;

  /**
   * @param {import("./gallery.js").Gallery} gallery
   * @param {{reuse: (settings: any) => void, useSeed: (seed: bigint) => void, useAsInput: (file: Blob) => void, deleted: (id: string) => void}} page
   */
  constructor(gallery, page) {
    this.gallery = gallery;
    this.page = page;
    this.dialog = byId("viewer");
    on(this.dialog, "keydown", ({ key }) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[/** @type {string} */ (key)];
      const next = by && this.#item && this.gallery.beside(this.#item, by);
      if (next) this.open(next);
    });
    on(this.dialog, "click", ({ target }) => {
      if (target === this.dialog) this.dialog.close();
    });
  }

  /** Show a picture. */
  open(/** @type {Item} */ item) {
    this.#item = item;
    const pair = this.#pinned && this.#pinned.key !== item.key ? [this.#pinned, item] : [item];
    this.dialog.classList.toggle("pair", pair.length > 1);
    this.dialog.replaceChildren(this.#bar(item), make("div", { className: "sheets" }, ...pair.map((each) => this.#sheet(each))));
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.querySelector(".close")?.focus();
  }

  #bar(item) {
    const { job, index } = item;
    const leave = (act) => () => {
      this.dialog.close();
      act();
    };
    // The page behind the dialog is out of reach: what goes wrong is said in here.
    const attempt = (act) => () => void act().catch((error) => {
      if (this.#item === item) this.#say(sentence(error));
    });
    const input = async () => {
      const file = await pictureFile(item.url);
      if (this.#item !== item || !this.dialog.open) return;
      this.dialog.close();
      this.page.useAsInput(file);
    };
    const forget = attempt(() => this.#delete(item));
    return make("div", { className: "row actions" },
      button("Reuse settings", leave(() => this.page.reuse(settingsOf(item)))),
      button("Reuse seed", leave(() => this.page.useSeed(job.seed + BigInt(index)))),
      button("Start from it", attempt(input)),
      button("Download", attempt(() => download(item))),
      this.#pinned
        ? button(this.#pinned.key === item.key ? "Now open another …" : "End comparing", () => { this.#pinned = null; this.open(item); })
        : button("Compare with …", () => { this.#pinned = item; this.dialog.close(); }),
      button("Delete", (event) => {
        if (event.target.dataset.sure) forget();
        else Object.assign(event.target, { textContent: sureOf(job) }).dataset.sure = "yes";
      }, { className: "danger" }),
      button("Close", () => this.dialog.close(), { className: "quiet close" }),
      make("p", { className: "error", role: "alert" }),
    );
  }

  #say(text) {
    say(this.dialog.querySelector("[role=alert]"), text);
  }

  #sheet(item) {
    const { job } = item;
    const made = { ...settingsOf(item), image: job.request.image, mask: job.request.mask };
    const facts = {
      ...made,
      size: made.width && `${made.width} × ${made.height}`,
      loras: made.loras?.map((lora) => `${lora.name} (${lora.scale ?? 1})`).join(", "),
      run_s: job.run_s !== null && seconds(job.run_s),
      made: new Date(job.created_at * 1000).toLocaleString(),
    };
    const image = make("img", { alt: made.prompt ?? "", width: made.width ?? 512, height: made.height ?? 512 });
    show(image, item.url).catch(() => {
      if (image.isConnected) this.#say("This picture cannot be shown: it is gone, or the worker cannot be reached.");
    });
    const list = Object.entries(LABELS).filter(([name]) => facts[name] != null && facts[name] !== "" && facts[name] !== false)
      .map(([name, label]) => make("div", {}, make("dt", {}, label), make("dd", {}, String(facts[name]))));
    return make("figure", {}, image, make("figcaption", {}, make("dl", {}, ...list)));
  }

  async #delete(item) {
    const next = this.gallery.beside(item, 1) ?? this.gallery.beside(item, -1);
    // 404, 410: somebody else was quicker.
    await remove(item.job.job_id, true).catch((error) => { if (![404, 410].includes(error.status)) throw error; });
    if (this.#pinned?.job.job_id === item.job.job_id) this.#pinned = null;
    this.page.deleted(item.job.job_id);
    if (this.#item !== item || !this.dialog.open) return;
    if (next && next.job.job_id !== item.job.job_id) this.open(next);
    else this.dialog.close();
  }
}

/** What is asked before a job is deleted, with all that it made. */
function sureOf(job) {
  return job.images.length > 1 ? `Delete all ${job.images.length} pictures of this job for good?` : "Delete for good?";
}

async function download(/** @type {Item} */ item) {
  const file = await pictureFile(item.url);
  const address = URL.createObjectURL(file);
  make("a", { href: address, download: `${item.job.job_id}-${item.index}.${file.type.split("/")[1]}` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
