// Pictures in, portraits on a wall out: frames with a label each, walked with the arrow keys like a real wall.

import { hang, page, rehang } from "./studio.js";

const LARGE = 64; // pixels of a side from which on smooth is better than square

/** A list item with a picture and its label. `caption` defaults to the seed; `chosen` hears a click. */
export function portrait(picture, { caption = picture.seed, chosen } = {}) {
  const item = page.portrait.content.cloneNode(true).firstElementChild;
  const [button, image, title, below] = item.querySelectorAll("button, img, b, .seed");
  hang(image, picture.png);
  image.classList.toggle("smooth", Math.min(picture.height, picture.width) >= LARGE);
  title.textContent = picture.class ?? "";
  below.textContent = caption;
  button.dataset.seed = picture.seed;
  button.addEventListener("click", () => chosen(picture));
  return item;
}

/** Every picture of the wall, `chosen` where it is clicked. */
export function show(pictures, chosen) {
  columns(pictures.length);
  rehang(
    page.pictures,
    ...pictures.map((picture, place) => {
      const item = portrait(picture, { chosen });
      item.style.setProperty("--place", Math.min(place, 40));
      item.querySelector("button").tabIndex = place === 0 ? 0 : -1;
      return item;
    }),
  );
}

/** Empty frames, where pictures will be, so that nothing jumps when they come. */
export function prepare(count) {
  columns(count);
  const items = Array.from({ length: Math.min(count, 64) }, () => {
    const item = document.createElement("li");
    item.className = "bare";
    item.append(Object.assign(document.createElement("span"), { className: "frame" }));
    return item;
  });
  page.pictures.replaceChildren(...items);
}

function columns(count) {
  page.pictures.style.setProperty("--columns", Math.max(2, Math.ceil(Math.sqrt(count))));
}

/** One stop for Tab; from there arrows, Home and End. */
page.pictures.addEventListener("keydown", (event) => {
  const buttons = [...page.pictures.querySelectorAll("button")];
  const place = buttons.indexOf(document.activeElement);
  const across = getComputedStyle(page.pictures).gridTemplateColumns.split(" ").length;
  const steps = {
    ArrowLeft: -1,
    ArrowRight: 1,
    ArrowUp: -across,
    ArrowDown: across,
    Home: -place,
    End: buttons.length - 1 - place,
  };
  const target = buttons[place + steps[event.key]];
  if (place < 0 || !target) return;
  event.preventDefault();
  target.focus();
});

page.pictures.addEventListener("focusin", ({ target }) => {
  for (const button of page.pictures.querySelectorAll("button")) button.tabIndex = button === target ? 0 : -1;
});
