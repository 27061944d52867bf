// The blind test: a person's answers in, how many were right and what guessing would have given out.
"use strict";
{
  const part = (id) => document.getElementById(id);
  const test = part("blind");
  const { count, columns, answers } = JSON.parse(part("answers").textContent);
  const MASK = 0x5a; // of training/evaluation/report/page.py
  const bytes = Uint8Array.from(atob(answers), (letter) => letter.charCodeAt(0) ^ MASK);
  const isReal = (picture) => ((bytes[picture >> 3] >> (7 - (picture & 7))) & 1) === 1;

  let order = Array.from({ length: count }, (_, picture) => picture);
  let said = []; // whether each picture so far was taken for real

  const show = (id) => {
    for (const each of ["begin", "asking", "result"]) part(each).hidden = each !== id;
  };

  const place = (tile, picture) => {
    tile.style.setProperty("--x", picture % columns);
    tile.style.setProperty("--y", Math.floor(picture / columns));
  };

  function ask() {
    const text = `Picture ${said.length + 1} of ${count}`;
    place(part("shown"), order[said.length]);
    part("shown").setAttribute("aria-label", text);
    part("count").textContent = text;
    part("progress").value = said.length;
    part("stop").hidden = said.length === 0;
  }

  function begin() {
    said = [];
    show("asking");
    ask();
    part("is-real").focus({ preventScroll: true });
  }

  function answer(real) {
    said.push(real);
    if (said.length < count) ask();
    else end();
  }

  // The middle of the binomial distribution of so many guesses that at least 95 of 100 guessers reach.
  function guessers(answered) {
    let chance = 0.5 ** answered, below = 0, low = 0;
    while (below + chance <= 0.025) {
      below += chance;
      chance *= (answered - low) / (low + 1);
      low += 1;
    }
    return [low, answered - low];
  }

  function verdict(right, low, high) {
    if (low === 0) return "Too few pictures to tell: even all of them right may be luck.";
    if (right > high) return "You could tell them apart.";
    if (right < low) return "You saw a difference, and took it the wrong way round.";
    return "You could not tell them apart.";
  }

  function gallery(title, pictures) {
    const heading = document.createElement("h4");
    heading.textContent = title;
    const list = document.createElement("ul");
    list.setAttribute("role", "list");
    for (const picture of pictures) {
      const item = document.createElement("li");
      const tile = document.createElement("div");
      tile.className = "tile blind";
      tile.setAttribute("role", "img");
      tile.setAttribute("aria-label", `Picture ${order.indexOf(picture) + 1}`);
      place(tile, picture);
      item.append(tile);
      list.append(item);
    }
    part("fooled").append(heading, list);
  }

  function end() {
    const asked = order.slice(0, said.length);
    const wrong = asked.filter((picture, turn) => said[turn] !== isReal(picture));
    const right = asked.length - wrong.length;
    const [low, high] = guessers(asked.length);
    const fakes = wrong.filter((picture) => !isReal(picture));
    const reals = wrong.filter(isReal);
    part("score").textContent = `${right} of ${asked.length} right`;
    part("verdict").textContent = verdict(right, low, high);
    part("guessing").textContent =
      `The band: of 100 people who only guess, at least 95 end between ${low} and ${high} right.`;
    const result = part("result");
    for (const [name, value] of Object.entries({ value: right, low, high })) {
      result.style.setProperty(`--${name}`, value / asked.length);
    }
    part("fooled").replaceChildren();
    if (fakes.length) gallery(`Generated, and you took ${fakes.length === 1 ? "it" : "them"} for real`, fakes);
    if (reals.length) gallery(`Real, and you took ${reals.length === 1 ? "it" : "them"} for generated`, reals);
    show("result");
    part("score").focus({ preventScroll: true });
    test.scrollIntoView({ block: "nearest" });
  }

  function again() {
    for (let last = count - 1; last > 0; last -= 1) {
      const other = Math.floor(Math.random() * (last + 1));
      [order[last], order[other]] = [order[other], order[last]];
    }
    begin();
  }

  part("begin").querySelector("button").addEventListener("click", begin);
  part("is-real").addEventListener("click", () => answer(true));
  part("is-fake").addEventListener("click", () => answer(false));
  part("stop").addEventListener("click", end);
  part("again").addEventListener("click", again);
  // Keys count while the focus is in the test, so that they surprise nobody elsewhere on the page.
  test.addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase();
    if (part("asking").hidden || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (key === "r" || key === "f") {
      event.preventDefault();
      answer(key === "r");
    }
  });
  show("begin");
}
