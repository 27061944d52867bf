// One picture in, a closer look out: its label, its permanent link, and its kin.

import { begin, between, morph } from "./morph.js";
import { ask, client, element, hang, named, page, rehang, save, say, served } from "./studio.js";
import { chosenFile } from "./take.js";
import { portrait } from "./wall.js";

const TRUNCATIONS = [0.25, 0.5, 0.75, 1, 1.5, null];
const MOST_CLASSES = 24;
const STRANGERS = 3;
const SEEDS = 2n ** 63n;

const part = (selector) => page.viewing.querySelector(selector);
const said = part(".said");
let shown = null; // the picture, its place on the wall, and the wall
let calls = new AbortController();

/** `picture` by itself; with the `wall` that it hangs on, if it does, its neighbours are a step away. */
export function view(picture, wall = []) {
  shown = { picture, wall, place: wall.indexOf(picture) };
  hang(part(".exhibit img"), picture.png);
  part(".exhibit img").classList.toggle("smooth", picture.height >= 64);
  page.viewed.textContent = picture.class ?? "Untitled";
  page.viewed.classList.toggle("untitled", picture.class === null);
  part("dl").replaceChildren(
    ...facts(picture).map(([term, value]) => {
      const row = document.createElement("div");
      row.append(element("dt", term), element("dd", value));
      return row;
    }),
  );
  const file = chosenFile(picture.height, picture.width);
  part(".save").textContent = `Save as ${file.format}`;
  part(".link").href = client.link({ ...asking(picture), ...file });
  part(".before").disabled = shown.place < 1;
  part(".next").disabled = shown.place < 0 || shown.place === wall.length - 1;
  say(said, "");
  if (!page.viewing.open) page.viewing.showModal();
  page.viewing.scrollTop = 0;
  showKin(picture);
}

function facts({ seed, model, version, truncation, height, width }) {
  const { artifact } = served.get(model).find((one) => one.version === version);
  const calm = truncation === null ? [] : [["Truncation", `${truncation} σ`]];
  return [
    ["Seed", seed],
    ...calm,
    ["Model", `${model}, version ${version}`],
    ["Size", `${width} × ${height}`],
    ["Made by", artifact],
  ];
}

/** A picture as /generate is asked for it. */
export function asking({ model, version, class: label, seed, truncation }) {
  return { model, version, label, seed, truncation };
}

function showKin(picture) {
  calls.abort();
  calls = new AbortController();
  const names = served.get(picture.model).find(({ version }) => version === picture.version).class_names;
  const calmer = TRUNCATIONS.map((truncation) => ({
    ...picture,
    truncation: truncation === null ? null : String(truncation),
  }));
  fill(part(".calmer"), calmer, (one) => (one.truncation === null ? "full" : `${one.truncation} σ`), "");
  part(".others").hidden = part(".classes").hidden = names.length < 2;
  part(".others span").textContent = names.length > MOST_CLASSES ? `: ${MOST_CLASSES} of ${names.length}` : "";
  fill(
    part(".classes"),
    names.slice(0, MOST_CLASSES).map((name) => ({ ...picture, class: name })),
    () => "",
  );
  const strangers = Array.from({ length: STRANGERS }, (_, place) => ({
    ...picture,
    seed: String((BigInt(picture.seed) + BigInt(place + 1)) % SEEDS),
  }));
  rehang(part(".ways"), ...strangers.map((stranger) => way(picture, stranger)));
}

/** Frames at once, and pictures in them as they come. `title` instead of the class, if it is given. */
function fill(list, pictures, caption, title) {
  const { signal } = calls;
  rehang(
    list,
    ...pictures.map((picture) => {
      const item = element("li", "", { className: "bare" });
      item.append(element("span", "", { className: "frame" }));
      ask((server, options) => server.generate({ ...asking(picture), format: "png" }, options), { said, signal }).then(
        (answer) => {
          if (!answer) return;
          const found = { ...picture, label: answer.label, png: answer.bytes };
          const hung = portrait(
            { ...found, class: title ?? found.class },
            { caption: caption(found), chosen: () => view(found, shown.wall) },
          );
          const same = found.truncation === shown.picture.truncation && found.class === shown.picture.class;
          if (same) hung.querySelector("button").ariaCurrent = "true";
          item.replaceWith(hung);
        },
      );
      return item;
    }),
  );
}

/** A strip from a picture to a stranger. */
function way(picture, stranger) {
  const { signal } = calls;
  const item = element("li");
  const button = element("button", "", { type: "button", className: "strip" });
  button.append(element("span", `to ${stranger.seed}`, { className: "seed" }));
  item.append(button);
  const asked = { ...between(picture, stranger), frames: 9, format: "png" };
  ask((server, options) => server.interpolate(asked, options), { said, signal }).then((answer) => {
    if (!answer) return;
    const image = element("img", "", { alt: "The way" });
    hang(image, answer.bytes);
    button.prepend(image);
    button.addEventListener("click", () => {
      page.viewing.close();
      morph(picture, stranger);
    });
  });
  return item;
}

function step(by) {
  const next = shown.wall[shown.place + by];
  if (shown.place >= 0 && next) view(next, shown.wall);
}

part(".before").addEventListener("click", () => step(-1));
part(".next").addEventListener("click", () => step(1));
part(".close").addEventListener("click", () => page.viewing.close());
page.viewing.addEventListener("close", () => calls.abort());
page.viewing.addEventListener("click", ({ target }) => target === page.viewing && page.viewing.close());
page.viewing.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") step(event.key === "ArrowLeft" ? -1 : 1);
});

part(".pick").addEventListener("click", () => {
  page.viewing.close();
  begin(shown.picture);
});

part(".save").addEventListener("click", async () => {
  const { picture } = shown;
  const file = chosenFile(picture.height, picture.width);
  const answer = await ask((server, options) => server.generate({ ...asking(picture), ...file }, options), { said });
  if (answer) save(answer.blob, `${named(picture.model, picture.class, picture.seed)}.${file.format}`);
});
