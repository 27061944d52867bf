// The form in, or the page's address; a wall of pictures out, and the address that gives the same wall again.

import { describe } from "./card.js";
import { found, forget } from "./morph.js";
import { ask, page, say, served } from "./studio.js";
import { offer } from "./take.js";
import { tell } from "./took.js";
import { view } from "./viewing.js";
import { prepare, show } from "./wall.js";

const fields = page.request.elements;
const NAMES = ["model", "version", "label", "n", "seed", "truncation"];
const NAMES_SHOWN = { label: "class", n: "pictures" };
const { said } = page;
let calls = new AbortController();

async function offerModels() {
  const answer = await ask((server, options) => server.models(options), { said });
  if (!answer) return false;
  for (const { name, versions } of answer.models) served.set(name, versions);
  page.empty.hidden = served.size > 0;
  page.request.hidden = served.size === 0;
  if (served.size === 0) return false;
  fields.model.replaceChildren(...[...served.keys()].map((name) => new Option(name)));
  fields.model.value = answer.default ?? answer.models[0].name;
  fields.model.parentElement.hidden = served.size === 1;
  offerVersions();
  return true;
}

function offerVersions() {
  const versions = served
    .get(fields.model.value)
    .map(({ version }) => version)
    .reverse();
  fields.version.replaceChildren(...versions.map((version) => new Option(version)));
  fields.version.parentElement.hidden = versions.length === 1;
  offerClasses();
}

function offerClasses() {
  const before = fields.label.value;
  const names = model(fields.model.value, fields.version.value).class_names;
  fields.label.replaceChildren(new Option("any", ""), ...names.map((name) => new Option(name, name)));
  fields.label.value = names.includes(before) ? before : "";
  fields.label.parentElement.hidden = names.length === 0;
  describe(fields.model.value, model(fields.model.value, fields.version.value));
}

const model = (name, version) => served.get(name).find((one) => one.version === Number(version));

/** What the form asks for; what is empty is left to the server. */
function asked() {
  const given = NAMES.map((name) => [name, fields[name].value.trim()]).filter(([, value]) => value !== "");
  return Object.fromEntries(given);
}

/** The form as the page's address has it; whether it can ask for that. */
function restore() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of NAMES) {
    const value = given.get(name);
    if (value === null && ["model", "version"].includes(name)) continue;
    fields[name].value = value ?? (name === "n" ? "16" : "");
    if (fields[name].value !== (value ?? fields[name].value)) {
      if (fields[name].options) fields[name].selectedIndex = 0;
      say(
        said,
        `This page's address asks for ${NAMES_SHOWN[name] ?? name} “${value}”, which there is not.`,
        true,
        name,
      );
      return false;
    }
    if (name === "model") offerVersions();
    if (name === "version") offerClasses();
  }
  return true;
}

/** Ask for pictures, and hang them. What has not come yet is called off. A refusal leaves the wall as it is. */
async function draw(parameters, remember) {
  calls.abort();
  calls = new AbortController();
  const { signal } = calls;
  if (!page.pictures.querySelector("button")) prepare(Number(parameters.n) || 1);
  page.pictures.ariaBusy = "true";
  const answer = await ask((server, options) => server.generate({ ...parameters, format: "json" }, options), {
    said,
    signal,
  });
  if (signal.aborted) return;
  page.pictures.ariaBusy = "false";
  if (!answer) return void page.pictures.querySelector(".bare")?.parentElement.replaceChildren();
  const { height, width } = model(answer.model, answer.version);
  const shared = {
    model: answer.model,
    version: answer.version,
    truncation: parameters.truncation ?? null,
    height,
    width,
  };
  const pictures = answer.images().map((image) => ({ ...image, ...shared }));
  forget(shared);
  show(pictures, (picture) => found(picture) || view(picture, pictures));
  const exact = { ...parameters, model: answer.model, version: String(answer.version), seed: answer.seed };
  remember.call(
    history,
    null,
    "",
    `#${new URLSearchParams(NAMES.filter((name) => name in exact).map((name) => [name, exact[name]]))}`,
  );
  tell(answer);
  offer(exact, { height, width });
}

/** The first time, and where somebody goes back or changes the address. */
async function begin() {
  const able = (served.size > 0 || (await offerModels())) && restore();
  if (able) await draw(asked(), history.replaceState);
  else page.pictures.replaceChildren();
}

page.request.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (served.size === 0) return begin();
  await draw(asked(), history.pushState);
});
page.newSeed.addEventListener("click", () => {
  const [bits] = crypto.getRandomValues(new BigUint64Array(1));
  fields.seed.value = String(bits >> 11n); // 53 bits, as many as the server draws itself
  page.request.requestSubmit();
});
fields.model.addEventListener("change", offerVersions);
fields.version.addEventListener("change", offerClasses);
addEventListener("popstate", begin);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is the pictures'
  page.wall.focus();
});
prepare(Number(fields.n.value));
begin();
