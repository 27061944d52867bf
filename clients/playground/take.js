// What hangs on the wall in, ways to take it along out: a file, an address, code.

import { RECIPES } from "./recipes.js";
import { ask, client, copy, named, page, save } from "./studio.js";

const FORMATS = { png: "png", jpeg: "jpeg", webp: "webp", zip: "zip of png", npy: "npy: the pixels", json: "json" };
const SCALES = [1, 2, 4, 8, 16];
const MOST_PIXELS = 1 << 24; // of an answer that is scaled up, if the server is not set otherwise
const NOT_SCALED = "npy";

const part = (selector) => page.take.querySelector(selector);
const [format, scale, said] = [part("[name=format]"), part("[name=scale]"), part(".said")];
format.replaceChildren(...Object.entries(FORMATS).map(([value, text]) => new Option(text, value)));
scale.replaceChildren(
  ...SCALES.map((factor) => new Option(factor === 1 ? "as drawn" : `${factor} ×`, factor, factor === 4, factor === 4)),
);

let wall = null; // { asked, height, width }

/** `asked`: the parameters of all the pictures, by their names on the wire. */
export function offer(asked, { height, width }) {
  wall = { asked, height, width };
  page.take.hidden = false;
  write();
}

/** Format and scale as they are chosen, the scale as far as so many pixels can have it. */
export function chosenFile(height, width, n = 1) {
  const most = SCALES.findLast((factor) => n * height * width * factor ** 2 <= MOST_PIXELS) ?? 1;
  const factor = Math.min(Number(scale.value), most);
  return format.value === NOT_SCALED ? { format: format.value } : { format: format.value, scale: factor };
}

function file() {
  const { asked, height, width } = wall;
  const { format, scale } = chosenFile(height, width, Number(asked.n));
  return { ...asked, format, ...(scale > 1 ? { scale } : {}) };
}

function write() {
  const asked = file();
  scale.disabled = format.value === NOT_SCALED;
  part(".link").href = client.link(asked);
  const language = part("[name=language]:checked").value;
  const server = new URL(".", document.baseURI).href.replace(/\/$/, "");
  page.code.textContent = RECIPES[language]({ asked, link: client.link(asked), name: name(asked), server });
}

const name = ({ model, label, seed, format }) => `${named(model, label ?? "", seed)}.${format}`;

page.take.addEventListener("change", write);
part(".copy").addEventListener("click", () => copy(page.code, part(".copy")));
part(".save").addEventListener("click", async () => {
  const asked = file();
  const answer = await ask((server, options) => server.generate(asked, options), { said });
  if (answer) save(answer.blob, name(asked));
});
