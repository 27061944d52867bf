// What the server knows of a model in, its museum label out: what it is, how good it is, what was checked.

import { element, page } from "./studio.js";

const KINDS = { gan: "GAN", cgan: "Conditional GAN", vae: "VAE", cvae: "Conditional VAE" };
const ENGINES = {
  onnxruntime: "ONNX Runtime",
  "onnxruntime-cuda": "ONNX Runtime CUDA",
  openvino: "OpenVINO",
  tensorrt: "TensorRT",
  "tensorrt-rtx": "TensorRT-RTX",
};
const percent = (value) => `${(value * 100).toFixed(1)} %`;
const number = (value) => value.toFixed(2);
/** Of the manifest's quality: title, how it is written, and what it tells. */
const FIGURES = {
  fid: ["Domain FID", number, "distance from real pictures; less is nearer"],
  agreement: ["Agreement", percent, "judged to be of the class asked for"],
  precision: ["Precision", percent, "that lie among real ones"],
  recall: ["Recall", percent, "of real ones that it can reach"],
  density: ["Density", number, "how thickly they lie among real ones"],
  coverage: ["Coverage", percent, "of real ones that have one near"],
  within_class_variance_ratio: ["Variety", number, "within classes; 1 is that of real ones"],
};

export function describe(name, model) {
  page.card.replaceChildren(
    element("h2", `${name}, version ${model.version}`, { id: "cardTitle" }),
    element("p", sentence(model)),
    ...quality(model.quality),
    element("h3", "Engines and their gates"),
    gates(model),
    element("p", `Digest ${model.digest}`, { className: "hint digest" }),
  );
  page.card.hidden = false;
}

function sentence({ kind, source, class_names, height, width, channels }) {
  const colours = channels === 1 ? "grey" : "colour";
  const classes = class_names.length ? ` in ${class_names.length} classes` : "";
  const seen = source.images_seen.toLocaleString("en");
  const draws = `Draws ${width} × ${height} pixels, ${colours}${classes}.`;
  return `${KINDS[kind] ?? kind}, trained on ${source.data} (${seen} pictures seen). ${draws}`;
}

function quality(found) {
  if (!found) return [element("p", "Nobody has judged its pictures.", { className: "hint" })];
  const table = document.createElement("table");
  table.append(
    element(
      "caption",
      `${found.protocol.samples.toLocaleString("en")} of its pictures, seen by a classifier trained on the same data`,
    ),
  );
  table.createTHead().append(row("th", "", "drawn", "real"));
  const body = table.createTBody();
  for (const [key, [title, written, tells]] of Object.entries(FIGURES)) {
    if (found[key] === undefined) continue;
    const floor = found.floor?.[key];
    const line = row("td", "", written(found[key]), floor === undefined ? "–" : written(floor));
    const head = element("th", title, { scope: "row" });
    head.append(element("span", tells));
    line.firstElementChild.replaceWith(head);
    body.append(line);
  }
  return [table];
}

function row(kind, ...cells) {
  const line = document.createElement("tr");
  line.append(
    ...cells.map((cell) => element(cell === "" ? "td" : kind, cell, kind === "th" && cell ? { scope: "col" } : {})),
  );
  return line;
}

function gates({ artifacts, artifact, engine, buckets }) {
  const list = document.createElement("ul");
  for (const one of artifacts) {
    const serves = one.engine === engine.engine && one.precision === engine.precision;
    const item = element("li", "", { className: serves ? "serves" : "" });
    item.append(element("b", `${ENGINES[one.engine] ?? one.engine} ${one.precision}`), ` ${serves ? "serves" : ""}`);
    item.append(element("span", verdict(one)));
    if (serves)
      item.append(element("span", `${artifact}, in batches of ${buckets.join(", ")}`, { className: "digest" }));
    list.append(item);
  }
  return list;
}

function verdict({ gates, not_run, buckets }) {
  if (not_run) return `Gates not run: ${not_run.why}`;
  if (!gates) return "No gates are recorded.";
  if (gates.failed?.length) return `Forced past its gates: ${gates.failed.join(", ")}`;
  const { parity, drift } = gates;
  const [whose, pictures] = [parity.reference.split("-")[0], parity.pictures.toLocaleString("en")];
  const apart = `at most ${parity.most_levels} of 255 grey levels from ${whose}'s over ${pictures} pictures`;
  const batches = buckets?.length ? ", the same bits in every batch" : "";
  return `Passed: ${apart}${batches}${drift ? ", no drift that its judge can see" : ""}.`;
}
