// @ts-check
// How a picture was made, read back out of it: the worker's own JSON, or `parameters` as other tools write them.

import { commentIn } from "./exif.js";
import { parse } from "./seed.js";

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const SAMPLERS = /** @type {Record<string, string>} */ ({
  "ddim": "ddim", "dpm++ 2m": "dpmpp_2m", "dpm++ 2m karras": "dpmpp_2m_karras", "dpm++ sde": "dpmpp_sde", "euler": "euler",
  "euler a": "euler_a", "heun": "heun", "lcm": "lcm", "lms": "lms", "plms": "pndm", "unipc": "unipc",
});

/** The texts of a PNG file by their keys, those that are not compressed; empty for any other file. */
export function textsIn(/** @type {ArrayBuffer} */ file) {
  const bytes = new Uint8Array(file);
  const view = new DataView(file);
  const texts = /** @type {Record<string, string>} */ ({});
  if (!SIGNATURE.every((byte, place) => bytes[place] === byte)) return texts;
  const latin = new TextDecoder("latin1");
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at);
    const kind = latin.decode(bytes.subarray(at + 4, at + 8));
    const body = bytes.subarray(at + 8, at + 8 + length);
    const end = body.indexOf(0);
    const key = latin.decode(body.subarray(0, Math.max(0, end)));
    if (kind === "tEXt") texts[key] = latin.decode(body.subarray(end + 1));
    if (kind === "iTXt" && body[end + 1] === 0) {
      // Two flags, then a language and a translated key, each with a zero behind it.
      const language = body.indexOf(0, end + 3);
      texts[key] = new TextDecoder().decode(body.subarray(body.indexOf(0, language + 1) + 1));
    }
    at += 12 + length;
  }
  return texts;
}

/** The settings that a picture was made with, as the form takes them; null where it does not say. */
export async function settingsIn(/** @type {Blob} */ file) {
  const content = await file.arrayBuffer();
  const texts = textsIn(content);
  try {
    if (texts["rbee-sd"]) return parse(texts["rbee-sd"]);
  } catch { /* somebody else's text under that key */ }
  if (texts.parameters) return parsed(texts.parameters);
  try {
    const comment = commentIn(content);
    // Cameras write comments too.
    if (/^Steps: \d/m.test(comment)) return parsed(comment);
  } catch { /* a file that is cut off */ }
  return null;
}

/** `parameters`: the prompt, the negative prompt, and a last line of `Name: value` pairs. */
function parsed(/** @type {string} */ text) {
  const lines = text.trim().split("\n");
  const pairs = /** @type {Record<string, string>} */ ({});
  if (/^Steps: \d/.test(lines[lines.length - 1])) {
    for (const [, name, value] of (lines.pop() ?? "").matchAll(/\s*([\w ]+):\s*("(?:\\.|[^"])*"|[^,]*)(?:,|$)/g)) pairs[name] = value;
  }
  const negative = lines.findIndex((line) => line.startsWith("Negative prompt:"));
  let prompt = (negative < 0 ? lines : lines.slice(0, negative)).join("\n");
  const loras = [...prompt.matchAll(/<lora:([^:>]+)(?::([-\d.]+))?>/g)].map(([, name, scale]) => ({ name, scale: Number(scale ?? 1) }));
  prompt = prompt.replace(/\s*<lora:[^>]*>/g, "").trim();
  const sampler = [pairs.Sampler, pairs["Schedule type"]].filter((part) => part && part !== "Automatic").join(" ").toLowerCase();
  const [width, height] = (pairs.Size ?? "").split("x").map(Number);
  return {
    prompt,
    negative_prompt: negative < 0 ? "" : lines.slice(negative).join("\n").replace("Negative prompt:", "").trim(),
    loras,
    scheduler: SAMPLERS[sampler] ?? pairs.Sampler,
    seed: pairs.Seed,
    ...(pairs.Steps && { steps: Number(pairs.Steps) }),
    ...(pairs["CFG scale"] && { guidance_scale: Number(pairs["CFG scale"]) }),
    ...(width && height && { width, height }),
    ...(pairs["Denoising strength"] && { strength: Number(pairs["Denoising strength"]) }),
  };
}
