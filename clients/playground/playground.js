// The form's values in, a grid of pictures out: a request is a query, and each picture links to a query of its own.
// Seeds stay decimal strings: 2^63 - 1 does not fit a JavaScript number.

const page = Object.fromEntries(Array.from(document.querySelectorAll("[id]"), (element) => [element.id, element]));
const fields = page.request.elements;

let newest = null; // name of a model -> its newest version; null until the server has said what it serves

/** Why there is no picture, in words for the visitor; `field` is the parameter to blame, if one is. */
class Refusal extends Error {
  constructor(words, field) {
    super(words);
    this.field = field;
  }
}

/** The JSON at an address, with its headers. Throws Refusal where there is none. */
async function ask(address, options) {
  const response = await fetch(address, options).catch(() => {
    throw new Refusal("The server does not answer. Is it running?");
  });
  const body = await response.json().catch(() => null);
  if (response.ok && body) return { body, headers: response.headers };
  throw new Refusal(body?.detail ?? `The server's answer (${response.status}) is not understood.`, body?.field);
}

/** The relative address of pictures; parameters that are empty are left out. */
function generate(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null);
  return `generate?${new URLSearchParams(given)}`;
}

async function offerModels() {
  const { body } = await ask("models");
  newest = new Map(body.models.map(({ name, versions }) => [name, versions.at(-1)]));
  fields.model.replaceChildren(...body.models.map(({ name }) => new Option(name)));
  fields.model.value = body.default ?? body.models[0].name;
  fields.model.parentElement.hidden = newest.size === 1;
  offerClasses();
}

function offerClasses() {
  const names = newest.get(fields.model.value).class_names;
  fields.label.replaceChildren(new Option("any", ""), ...names.map((name) => new Option(name, name)));
  fields.label.disabled = fields.label.parentElement.hidden = names.length === 0;
}

/** Asks for the pictures of the form, unless some are under way. A refusal leaves those of before in place. */
async function draw() {
  if (page.pictures.ariaBusy === "true") return;
  page.pictures.ariaBusy = "true";
  explain(null);
  try {
    if (!newest) await offerModels();
    const asked = { ...Object.fromEntries(new FormData(page.request)), seed: fields.seed.value.trim() };
    show(asked, await ask(generate({ ...asked, format: "json" }), { method: "POST" }));
  } catch (problem) {
    if (!(problem instanceof Refusal)) throw problem;
    explain(problem);
  } finally {
    page.pictures.ariaBusy = "false";
  }
}

function explain(refusal) {
  page.refusal.textContent = refusal?.message ?? "";
  for (const field of fields) field.ariaInvalid = field.name === refusal?.field;
}

function show(asked, { body, headers }) {
  const { images, version } = body;
  page.pictures.style.setProperty("--columns", Math.max(2, Math.ceil(Math.sqrt(images.length))));
  page.pictures.replaceChildren(...images.map((image, place) => framed(image, place, body)));
  page.summary.textContent = `${headers.get("X-Limner-Model")} · ${timings(headers.get("Server-Timing") ?? "")}`;
  const sheet = new URL(generate({ ...asked, version, seed: images[0].seed }), document.baseURI);
  page.curl.textContent = `curl -fo limner.png "${sheet}"`;
  page.terminal.hidden = false;
}

/** `queue;dur=0.097, compute;dur=0.889` -> `queue 0.1, compute 0.9 ms` */
function timings(header) {
  const stages = header.matchAll(/(\w+);dur=([\d.]+)/g);
  return Array.from(stages, ([, stage, ms]) => `${stage} ${Number(ms).toFixed(1)}`).join(", ") + " ms";
}

function framed(image, place, { model, version }) {
  const item = page.picture.content.cloneNode(true).firstElementChild;
  const [link, picture, title, number] = item.querySelectorAll("a, img, b, span");
  item.style.setProperty("--place", place);
  link.href = generate({ model, version, label: image.class, seed: image.seed });
  picture.src = `data:image/png;base64,${image.png}`;
  title.textContent = image.class;
  number.textContent = image.seed;
  return item;
}

/** 53 random bits, as many as the server draws itself. */
function randomSeed() {
  const [bits] = crypto.getRandomValues(new BigUint64Array(1));
  return String(bits >> 11n);
}

function copyCurl() {
  getSelection().selectAllChildren(page.curl);
  const copied = document.execCommand("copy"); // navigator.clipboard is missing where the page comes over plain HTTP
  page.copy.textContent = copied ? "Copied" : "Press Ctrl+C";
  setTimeout(() => (page.copy.textContent = "Copy"), 2000);
}

page.request.addEventListener("submit", (event) => {
  event.preventDefault();
  draw();
});
page.newSeed.addEventListener("click", () => {
  fields.seed.value = randomSeed();
  page.request.requestSubmit();
});
page.copy.addEventListener("click", copyCurl);
fields.model.addEventListener("change", offerClasses);
draw();
