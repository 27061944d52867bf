// What an answer says of its making in, a bar and four figures out.

import { page } from "./studio.js";

const STAGES = ["queue", "compute", "encode"];

export function tell({ timing, batch, elapsed }) {
  const stages = STAGES.map((stage) => [stage, timing[stage] ?? 0]);
  const inside = stages.reduce((sum, [, milliseconds]) => sum + milliseconds, 0);
  const all = [...stages, ["way", Math.max(0, elapsed - inside)]];
  for (const [stage, milliseconds] of all) {
    page.took.querySelector(`i.${stage}`).style.flexGrow = milliseconds;
    page.took.querySelector(`.${stage} dd`).textContent = `${shown(milliseconds)} ms`;
  }
  const size = page.took.querySelector(".batch");
  size.hidden = batch === null;
  size.lastElementChild.textContent = batch === 1 ? "1 picture" : `${batch} pictures`;
  page.took.hidden = false;
}

const shown = (milliseconds) =>
  milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds).toLocaleString("en");
