// @ts-check
// How a picture was made, read back out of it: the worker's own JSON, or `parameters` as other tools write them.

import { parse } from "./api.js";

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
/** Where Exif begins in a JPEG or WebP: both have a mark in front of it. */
const BLOCK = /(?<=Exif\0\0|EXIF[^]{4})(II\*\0|MM\0\*)/;
const DIRECTORY = 0x8769;
const COMMENT = 0x9286;

/** The texts of a PNG file by their keys, those that are not compressed; empty for any other file. */
function textsIn(file) {
  const bytes = new Uint8Array(file);
  const view = new DataView(file);
  const texts = {};
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

/**
 * The user comment of a JPEG or WebP, where programs write what a PNG has texts for: Exif 2.32, sections 4.6.2 to 4.6.5.
 * Empty without one. Raises `RangeError` for a file that is cut off.
 */
function commentIn(file) {
  const start = new TextDecoder("latin1").decode(file).search(BLOCK);
  if (start < 0) return "";
  const view = new DataView(file, start);
  const little = view.getUint8(0) === 0x49;
  const entry = (directory, wanted) => {
    for (let left = view.getUint16(directory, little), at = directory + 2; left > 0; left--, at += 12) {
      if (view.getUint16(at, little) === wanted) return { count: view.getUint32(at + 4, little), place: view.getUint32(at + 8, little) };
    }
    return null;
  };
  const directory = entry(view.getUint32(4, little), DIRECTORY);
  const comment = directory && entry(directory.place, COMMENT);
  if (!comment) return "";
  const text = new Uint8Array(file, start + comment.place + 8, comment.count - 8);
  // Programs disagree on the byte order, whatever that of the block: settings are mostly ASCII.
  const zeros = (odd) => text.filter((byte, place) => !byte && place % 2 === odd).length;
  const code = view.getUint8(comment.place) !== 0x55 ? "utf-8" : zeros(1) > zeros(0) ? "utf-16le" : "utf-16be";
  return new TextDecoder(code).decode(text).replace(/\0+$/, "");
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
function parsed(text) {
  const lines = text.trim().split("\n");
  const pairs = {};
  if (/^Steps: \d/.test(lines[lines.length - 1])) {
    for (const [, name, value] of (lines.pop() ?? "").matchAll(/([\w ]+):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)/g)) pairs[name.trim()] = value;
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
    scheduler: sampler === "plms" ? "pndm" : sampler.replaceAll("+", "p").replaceAll(" ", "_"),
    seed: pairs.Seed,
    ...(pairs.Steps && { steps: Number(pairs.Steps) }),
    ...(pairs["CFG scale"] && { guidance_scale: Number(pairs["CFG scale"]) }),
    ...(width && height && { width, height }),
    ...(pairs["Denoising strength"] && { strength: Number(pairs["Denoising strength"]) }),
  };
}
