// Two pictures in, the way from one to the other out: a strip, and a film of it to play or to pull by hand.

import { ask, client, element, hang, named, page, rehang, save } from "./studio.js";
import { tell } from "./took.js";

const FRAMES_A_SECOND = 12; // the server's own
const SIDE = 256; // pixels at which a saved animation can be seen

const part = (selector) => page.morph.querySelector(selector);
const [place, loop, frames, format] = ["place", "loop", "frames", "format"].map((name) => part(`[name=${name}]`));
const [film, strip, said, play] = [part(".film"), part(".strip"), part(".said"), part(".play")];

let first = null; // the picture from which a way is looked for, while it is
let ends = null; // the two that it is between
let ticking = 0;
let forwards = true;
let calls = new AbortController();

/** Look for the other end of a way that begins at this picture. */
export function begin(picture) {
  forget();
  first = picture;
  page.pictures.querySelector(`[data-seed="${picture.seed}"]`)?.setAttribute("aria-current", "true");
  page.picking.hidden = false;
  page.picking.firstElementChild.textContent = `From ${title(picture)}: now choose the picture that it turns into.`;
  page.pictures.querySelector("button[tabindex='0']")?.focus();
}

/** Look no longer; where `model` and `version` are given, only if the beginning is not of them. */
export function forget({ model, version } = {}) {
  if (first && first.model === model && first.version === version) return;
  first = null;
  page.pictures.querySelector("[aria-current]")?.removeAttribute("aria-current");
  page.picking.hidden = true;
}

/** Whether this picture was the other end that was looked for; then the way is shown. */
export function found(picture) {
  if (!first) return false;
  const one = first;
  forget();
  morph(one, picture);
  return true;
}

/** The way from one picture of a model to another, both at the truncation of the first. */
export async function morph(one, other) {
  const { truncation } = one;
  ends = [one, { ...other, truncation }];
  page.morph.hidden = false;
  part(".ends").textContent =
    `${title(one)} → ${title(other)}${truncation === null ? "" : `, at truncation ${truncation} σ`}`;
  part(".fades").hidden = one.class === other.class;
  page.morph.scrollIntoView({
    behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth",
    block: "nearest",
  });
  page.morph.focus({ preventScroll: true });
  await draw();
}

export function between(one, other) {
  const { model, version, truncation } = one;
  const [fromLabel, toLabel] = [one.class, other.class];
  return { model, version, truncation, fromSeed: one.seed, toSeed: other.seed, fromLabel, toLabel };
}

async function draw() {
  run(false);
  calls.abort();
  calls = new AbortController();
  const { signal } = calls;
  if (!frames.reportValidity()) return;
  const asked = { ...between(...ends), frames: frames.value };
  page.morph.ariaBusy = "true";
  const answer = await ask((server, options) => server.interpolate({ ...asked, format: "png" }, options), {
    said,
    signal,
  });
  if (signal.aborted) return;
  page.morph.ariaBusy = "false";
  part(".stage").hidden = strip.hidden = !answer;
  if (!answer) return;
  const image = element("img", "", { alt: `Every frame ${part(".ends").textContent}` });
  hang(image, answer.bytes);
  rehang(strip, image);
  tell(answer);
  const { height, width } = ends[0];
  film.style.backgroundImage = `url("${image.src}")`;
  film.style.aspectRatio = `${width} / ${height}`;
  film.style.setProperty("--frames", frames.value);
  film.classList.toggle("smooth", Math.min(height, width) >= 64);
  place.max = String(Number(frames.value) - 1);
  forwards = true;
  go(0);
  link();
  run(!matchMedia("(prefers-reduced-motion: reduce)").matches);
}

/** The file that is offered: repeated there and back if the film is. */
function file() {
  const scale = Math.max(1, Math.min(16, Math.floor(SIDE / Math.max(ends[0].height, ends[0].width))));
  return { ...between(...ends), frames: Number(frames.value), loop: loop.checked, format: format.value, scale };
}

function link() {
  part(".link").href = client.link(file());
}

function go(to) {
  place.value = String(to);
  film.style.setProperty("--at", to / Number(place.max));
  film.ariaLabel = `Frame ${to + 1} of ${Number(place.max) + 1}`;
}

function tick() {
  const [at, last] = [Number(place.value), Number(place.max)];
  if (at === last && forwards) {
    if (!loop.checked) return run(false);
    forwards = false;
  } else if (at === 0) {
    forwards = true;
  }
  go(at + (forwards ? 1 : -1));
}

function run(on) {
  clearInterval(ticking);
  play.textContent = on ? "Pause" : "Play";
  if (!on) return;
  if (Number(place.value) === Number(place.max) && !loop.checked) go(0);
  forwards ||= !loop.checked;
  ticking = setInterval(tick, 1000 / FRAMES_A_SECOND);
}

const title = ({ class: name, seed }) => (name === null ? `seed ${seed}` : `${name} (seed ${seed})`);

play.addEventListener("click", () => run(play.textContent === "Play"));
place.addEventListener("input", () => {
  run(false);
  go(Number(place.value));
});
frames.addEventListener("change", draw);
for (const control of [loop, format]) control.addEventListener("change", link);
page.picking.lastElementChild.addEventListener("click", () => forget());

part(".save").addEventListener("click", async () => {
  if (!frames.reportValidity()) return;
  const answer = await ask((server, options) => server.interpolate(file(), options), { said });
  if (answer) save(answer.blob, `${named(ends[0].model, ends[0].seed, "to", ends[1].seed)}.${format.value}`);
});
