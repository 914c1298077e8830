// @ts-check
// Files that a person gives to the page: dropped on it, pasted, or chosen.

import { byId } from "./dom.js";
import { settingsIn } from "./png.js";

/**
 * Listen for them.
 * @param {{startFrom: (file: Blob) => void, readSettings: (file: Blob) => void, none: () => void}} page
 *   `none` is called for what was dropped and is no picture
 */
export function takeFiles({ startFrom, readSettings, none }) {
  chosen("input", startFrom);
  chosen("read", readSettings);
  document.addEventListener("paste", (event) => {
    const file = pictureIn(event.clipboardData);
    if (file) startFrom(file);
  });
  const zones = byId("dropping");
  document.addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.some((type) => type === "Files" || type === "text/uri-list")) return;
    event.preventDefault();
    zones.hidden = false;
    for (const zone of zones.children) zone.classList.toggle("over", zone === zoneOf(event));
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) zones.hidden = true;
  });
  document.addEventListener("drop", async (event) => {
    if (zones.hidden) return;
    event.preventDefault();
    zones.hidden = true;
    const where = zoneOf(event)?.dataset.drop;
    const link = event.dataTransfer?.getData("text/uri-list") ?? "";
    const file = pictureIn(event.dataTransfer) ?? (link.startsWith(`${location.origin}/`) ? await (await fetch(link)).blob() : undefined);
    if (!file) none();
    // Outside of both zones: a picture that says how it was made is taken for its settings.
    else if (where === "settings" || (!where && await settingsIn(file))) readSettings(file);
    else startFrom(file);
  });
}

/** A button that opens the browser's dialog for a file. */
function chosen(/** @type {string} */ name, /** @type {(file: Blob) => void} */ take) {
  const input = byId(`${name}-file`);
  byId(`${name}-choose`).addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    const [file] = input.files;
    if (file) take(file);
    input.value = "";
  });
}

const pictureIn = (/** @type {DataTransfer | null} */ data) => [...(data?.files ?? [])].find((file) => file.type.startsWith("image/"));
const zoneOf = (/** @type {DragEvent} */ event) => /** @type {HTMLElement | null} */ (/** @type {Element} */ (event.target).closest?.("[data-drop]"));
