// @ts-check
// The page as a whole: builds its parts and tells each what it needs of the others.

import { get, onKeyNeeded, Refused, sentence } from "./api.js";
import { byId, on, say } from "./dom.js";
import { Feed } from "./events.js";
import { accept, refuse } from "./fields.js";
import { takeFiles } from "./files.js";
import { Form } from "./form.js";
import { Gallery, itemsOf } from "./gallery.js";
import { Input } from "./input.js";
import { Jobs } from "./jobs.js";
import { Machine } from "./machine.js";
import { paintMask } from "./mask.js";
import { settingsIn } from "./recipe.js";
import { submit } from "./submit.js";
import { Viewer } from "./viewer.js";
import { Stage } from "./watch.js";

const jobs = new Jobs();
const input = new Input(paintMask);
const form = new Form({ submit: generate, input, seed: /** @returns {bigint | null} */ () => stage.seed(), lost });
const gallery = new Gallery((item) => viewer.open(item));
const viewer = new Viewer(gallery, {
  reuse,
  useSeed,
  useAsInput: (file) => startFrom(Promise.resolve(file)),
  deleted: (id) => gallery.drop(id),
});
const stage = new Stage(jobs, { open, useSeed, size: () => form.size() });
const machine = new Machine(jobs, { look: (id) => stage.look(id), changed: offer });
const feed = new Feed({
  // As many as an address may well hold: the oldest, since the newest have hardly begun.
  jobs: () => jobs.own().slice(0, 200),
  heard: (data) => jobs.heard(data),
  opened: arrived,
  lost: () => machine.reached(false),
});

jobs.onEnd((job) => {
  if (job.state === "completed" && job.images.length) void gallery.add(job.id);
});

/** What the worker says to people, in one line. */
function notice(text) {
  say(byId("notice"), text);
}

function lost(/** @type {string[]} */ what) {
  if (what.length) notice(`Not to be had with this model: ${what.join(", ")}.`);
}

let sending = false;

/** Until a request is answered there is no second one. */
function busy(now, text = "Generate") {
  sending = now;
  byId("generate").setAttribute("aria-disabled", String(now));
  say(byId("generate-text"), text);
}

async function generate() {
  if (sending) return;
  const body = form.request();
  busy(true);
  try {
    const answer = await submit(body, () => {
      busy(true, "Sending it again …");
      notice("There was no answer; the worker may be starting again.");
    });
    accept();
    notice("");
    const { image, mask, ...request } = body;
    stage.look(jobs.submitted(answer, request).id);
    feed.listen();
    if (innerWidth < 800) byId("stage").scrollIntoView({ behavior: "smooth" });
  } catch (error) {
    const fields = error instanceof Refused ? error.fields : [];
    if (fields.length) refuse(fields);
    notice(fields.length ? "" : sentence(error));
  } finally {
    busy(false);
  }
}

/** The feed stands, for the first time or again. */
async function arrived() {
  machine.reached(true);
  await jobs.catchUp().catch(() => {});
  await stage.resume();
  feed.listen();
  void gallery.load();
  void offer();
}

async function offer() {
  const capabilities = await get("/v1/capabilities").catch(() => null);
  if (capabilities) form.offer(capabilities);
}

/** What a person asked for; where it fails, that is said. */
async function attempt(/** @type {() => Promise<void>} */ act) {
  await act().catch((error) => notice(sentence(error)));
}

function open(id, /** @type {number} */ index) {
  void attempt(async () => {
    const view = await get(`/v1/jobs/${id}`);
    if (view.images[index]) viewer.open(gallery.find(id, index) ?? itemsOf(view)[index]);
  });
}

function useSeed(/** @type {bigint} */ seed) {
  form.lock(String(seed));
  notice(`Seed ${seed} is used until you unlock it.`);
}

function reuse(settings) {
  const lost = form.apply(settings);
  byId("prompt").focus();
  notice(`The settings are taken over.${lost.length ? ` Not to be had here: ${lost.join(", ")}.` : ""}`);
}

function startFrom(/** @type {Promise<Blob | null>} */ file) {
  void attempt(async () => {
    const taken = await input.take(file);
    if (taken === undefined) return;
    notice(!taken ? "That is no picture that can be read; take a PNG, JPEG or WebP." : input.size() ? "" : "The chosen model starts from no picture.");
    if (taken) byId("input").scrollIntoView({ block: "nearest" });
  });
}

function readSettings(/** @type {Promise<Blob>} */ file) {
  void attempt(async () => {
    const settings = await settingsIn(await file);
    if (settings) reuse(settings);
    else notice("That file does not say how it was made.");
  });
}

takeFiles({ startFrom, readSettings });

on("key", "cancel", (event) => event.preventDefault());
onKeyNeeded((wrong) => new Promise((done) => {
  const dialog = byId("key");
  say(byId("key-wrong"), wrong ? "That key is not right." : "");
  dialog.onclose = () => done({ text: byId("key-text").value.trim(), remember: byId("key-keep").checked });
  dialog.showModal();
}));

if (innerWidth < 800) byId("settings").open = byId("machine-details").open = false;
void offer();
feed.open();
