// @ts-check
// Submitting: one job comes of each request, also where its answer is lost or the worker is started again meanwhile.

import { Refused, requestJSON } from "./api.js";

const PATIENCE = 12_000; // ms from the first failure on
const LONGEST = 60_000; // ms of one request, its pictures included: then the connection is dead
const FIRST_WAIT = 300;
const LONGEST_WAIT = 2_000;

/** The last request, if it was never answered. */
let last = { body: "", key: "" };

/**
 * Submit an operation; returns `{job_id, state, position, seed}`. `again` is called whenever it has to be sent again,
 * with the same key, by which the worker knows it; so has the same request after one that was never answered. Raises
 * `Refused`, or `TypeError` or `DOMException` when the worker stays away.
 * @type {(operation: object, again: () => void) => Promise<any>}
 */
export async function submit(operation, again) {
  const body = JSON.stringify(operation);
  if (last.body !== body) last = { body, key: newKey() };
  const headers = { "Content-Type": "application/json", "Idempotency-Key": last.key };
  let end = Infinity;
  for (let wait = FIRST_WAIT; ; wait = Math.min(LONGEST_WAIT, 2 * wait)) {
    try {
      const answer = await requestJSON("/v1/jobs", { method: "POST", headers, body }, LONGEST);
      last.body = "";
      return answer;
    } catch (error) {
      end = Math.min(end, performance.now() + PATIENCE);
      if (!mayPass(error) || performance.now() + wait > end) throw error;
    }
    again();
    await new Promise((done) => setTimeout(done, wait));
  }
}

/** No connection, or half an answer; a worker that is leaving; a proxy before one that has left. */
function mayPass(/** @type {unknown} */ error) {
  if (error instanceof Refused) return error.code === "draining" || [502, 504].includes(error.status);
  return error instanceof TypeError;
}

/** `crypto.randomUUID` is not there on a page that came over plain HTTP from another machine. */
function newKey() {
  return crypto.getRandomValues(new BigUint64Array(2)).join("-");
}
