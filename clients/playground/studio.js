// The server as the parts of the page ask it: an answer, or words about why there is none, said where they asked.

import { LimnerClient } from "../js/limner-client.js";
import { inWords, waiting } from "./words.js";

const PATIENCE = 6; // times that a busy server is asked again

export const client = new LimnerClient(new URL(".", document.baseURI));
export const served = new Map(); // name of a model -> its versions, oldest first
export const page = Object.fromEntries(
  Array.from(document.querySelectorAll("[id]"), (element) => [element.id, element]),
);

/**
 * The answer to a question, or null: then `said` says why, unless it was called off. While the server is busy, `said`
 * says that it is asked again. Several that ask at once share one `said`: what another one said is not wiped away.
 */
export async function ask(question, { said, signal } = {}) {
  say(said, "");
  let began = performance.now();
  let waited = false;
  const onRetry = ({ error, seconds }) => {
    waited = true;
    began = performance.now() + seconds * 1e3; // what is waited here is not on the way
    say(said, waiting(error, seconds));
  };
  try {
    const answer = await question(client, { signal, onRetry, retries: PATIENCE });
    if (waited) say(said, "");
    return Object.assign(answer, { elapsed: performance.now() - began });
  } catch (error) {
    if (signal?.aborted) return null;
    const words = inWords(error); // what is no refusal is thrown again: a fault of this page
    say(said, words, true, error.field);
    return null;
  }
}

export function say(said, words, refused = false, field = "") {
  said.textContent = words;
  said.classList.toggle("refused", refused);
  if (said !== page.said) return;
  for (const control of page.request.elements) {
    if (!control.name) continue;
    control.ariaInvalid = String(refused && control.name === field);
    control.setAttribute("aria-errormessage", "said");
  }
}

/** A picture's address for as long as `picture` shows it. */
export function hang(picture, bytes, type = "image/png") {
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(new Blob([bytes], { type }));
}

/** Take what hangs in a place away, or put something else there. */
export function rehang(place, ...items) {
  for (const image of place.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  place.replaceChildren(...items);
}

export function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Onto the clipboard; the button says whether that worked. navigator.clipboard is missing over plain HTTP. */
export async function copy(element, button) {
  let copied = true;
  try {
    await navigator.clipboard.writeText(element.textContent);
  } catch {
    getSelection().selectAllChildren(element);
    copied = document.execCommand("copy");
  }
  const before = button.textContent;
  button.textContent = copied ? "Copied" : "Press Ctrl+C";
  button.disabled = true;
  setTimeout(() => {
    button.textContent = before;
    button.disabled = false;
  }, 2000);
}

/** digits, 3, 7 -> digits-3-7: what any file system takes. */
export const named = (...parts) =>
  parts
    .filter((part) => part !== null && part !== "")
    .join("-")
    .replace(/[^\p{L}\p{N}._-]+/gu, "_");

export function element(name, text = "", properties = {}) {
  return Object.assign(document.createElement(name), { textContent: text }, properties);
}
