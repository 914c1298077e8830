// @ts-check
// Files that a person gives to the page: dropped on it, pasted, or chosen.

import { pictureFile } from "./api.js";
import { byId, on } from "./dom.js";
import { settingsIn } from "./recipe.js";

/**
 * Listen for them.
 * @param {{startFrom: (file: Promise<Blob | null>) => void, readSettings: (file: Promise<Blob>) => void}} page
 *   They are told at once of a file that may have to be fetched: what was given last counts, not what comes last.
 */
export function takeFiles({ startFrom, readSettings }) {
  chosen("input", startFrom);
  chosen("read", readSettings);
  document.addEventListener("paste", (event) => {
    const file = pictureIn(event.clipboardData);
    if (!file || covered() || isForText(event)) return;
    event.preventDefault();
    startFrom(Promise.resolve(file));
  });
  const zones = byId("dropping");
  document.addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.some((type) => type === "Files" || type === "text/uri-list")) return;
    event.preventDefault();
    zones.hidden = covered();
    if (zones.hidden) event.dataTransfer.dropEffect = "none";
    for (const zone of zones.children) zone.classList.toggle("over", zone === zoneOf(event));
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) zones.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    // Else the browser would leave the page, to show the file.
    if (event.dataTransfer?.files.length) event.preventDefault();
    if (zones.hidden) return;
    event.preventDefault();
    zones.hidden = true;
    if (covered()) return;
    const where = zoneOf(event)?.dataset.drop;
    const file = fileIn(event.dataTransfer);
    if (where === "settings") readSettings(file);
    else if (where) startFrom(file);
    else startFrom(file.then(async (each) => {
      // Outside of both zones: a picture that says how it was made is taken for its settings.
      if (!await settingsIn(each)) return each;
      readSettings(file);
      return null;
    }));
  });
}

/** The picture in what was dropped: a file, or one of the worker's own; nothing in it where there is none. */
async function fileIn(data) {
  const link = data?.getData("text/uri-list") ?? "";
  return pictureIn(data) ?? (link.startsWith(`${location.origin}/`) ? pictureFile(link) : new Blob());
}

/** A button that opens the browser's dialog for a file. */
function chosen(name, /** @type {(file: Promise<Blob>) => void} */ take) {
  const input = byId(`${name}-file`);
  on(`${name}-choose`, "click", () => input.click());
  on(input, "change", () => {
    const [file] = input.files;
    if (file) take(Promise.resolve(file));
    input.value = "";
  });
}

/** Whether a dialog covers the page: what is behind it does not change. */
const covered = () => document.querySelector("dialog[open]") !== null;

/** Whether text is pasted where one writes. Word processors add a picture of it; a copied picture, its name or address. */
function isForText(event) {
  const text = event.clipboardData?.getData("text/plain").trim() ?? "";
  return event.target.matches?.("textarea, [type=text], [type=number]") && /^(?!\w+:\S+$|.*\.(png|jpe?g|webp|gif|avif)$)./i.test(text);
}

const pictureIn = (data) => [...(data?.files ?? [])].find((file) => file.type.startsWith("image/"));
const zoneOf = (event) => event.target.closest?.("[data-drop]");
