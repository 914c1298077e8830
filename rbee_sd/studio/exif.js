// @ts-check
// The user comment of a JPEG or WebP, where programs write what a PNG has texts for: Exif 2.32, sections 4.6.2 to 4.6.5.

/** Where the block begins: both formats have a mark in front of it. */
const BLOCK = /(?<=Exif\0\0|EXIF[^]{4})(II\*\0|MM\0\*)/;
const DIRECTORY = 0x8769;
const COMMENT = 0x9286;

/** The comment, empty without one. Raises `RangeError` for a file that is cut off. */
export function commentIn(/** @type {ArrayBuffer} */ file) {
  const start = new TextDecoder("latin1").decode(file).search(BLOCK);
  if (start < 0) return "";
  const view = new DataView(file, start);
  const little = view.getUint8(0) === 0x49;
  const entry = (/** @type {number} */ directory, /** @type {number} */ wanted) => {
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
  const zeros = (/** @type {number} */ odd) => text.filter((byte, place) => !byte && place % 2 === odd).length;
  const code = view.getUint8(comment.place) !== 0x55 ? "utf-8" : zeros(1) > zeros(0) ? "utf-16le" : "utf-16be";
  return new TextDecoder(code).decode(text).replace(/\0+$/, "");
}
