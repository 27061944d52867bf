// A failed call in, what it means for somebody who wanted pictures out.

import { ApiError, ClientError } from "../js/limner-client.js";

const NAMES = {
  model: "The model",
  version: "The version",
  label: "The class",
  n: "Pictures",
  seed: "The seed",
  truncation: "Truncation",
  format: "The format",
  scale: "The scale",
  quality: "The quality",
  frames: "Frames",
};
const MEANT = { "an integer from 0 to 2^63 - 1": "a whole number from 0 to 9,223,372,036,854,775,807" };

/** Throws what no server has caused. */
export function inWords(error) {
  if (!(error instanceof ClientError)) throw error;
  if (!(error instanceof ApiError)) return "The server does not answer. Is it running, and is the network there?";
  const { status, field } = error;
  if (status === 429) return "Too many are asking just now. Try again in a moment, or ask for fewer pictures.";
  if (status === 503) return "The server is closing, or not ready yet. Try again in a moment.";
  if (status === 504) return "It took too long, and the server gave up. Ask for fewer pictures, or later.";
  if (field && error.allowed) return refused(field, error);
  if (status === 404) return "The server does not have that. It may serve other models now: load the page again.";
  if (status >= 500)
    return `Something broke in the server. Its log says what, under request ${error.requestId ?? "?"}.`;
  return `The server did not understand the page. ${sentence(error.detail)}`;
}

function refused(field, { value, allowed }) {
  const name = NAMES[field] ?? field;
  if (allowed === "none" || value === null || value === undefined) return `${name} cannot be given here.`;
  const shown = value === "" ? "nothing" : `“${value}”`;
  return `${name} cannot be ${shown}. Allowed: ${sentence(MEANT[allowed] ?? allowed)}`;
}

export function waiting(error, seconds) {
  const moment = seconds < 1.5 ? "a second" : `${Math.round(seconds)} seconds`;
  if (!(error instanceof ApiError)) return `The server does not answer. Trying again in ${moment} …`;
  if (error.status === 429) return `Many are being painted just now. Your turn comes: trying again in ${moment} …`;
  return `The server is not ready. Trying again in ${moment} …`;
}

const sentence = (text) => (/[.!?]$/.test(text) ? text : `${text}.`);
