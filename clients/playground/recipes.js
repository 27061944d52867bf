// A request in, the same request as a line of curl, a few of Python or of JavaScript out.

/**
 * `asked`: the parameters by their names on the wire, as strings; `link`: its address; `name`: of the file;
 * `server`: where it runs.
 */
export const RECIPES = {
  curl: ({ link, name }) => `curl -fo ${name} "${link}"`,

  python: ({ asked, name, server }) => `from limner_client import Client

with Client(${JSON.stringify(server)}) as client:
    answer = client.generate(${listed(asked, (key, value) => `${key}=${value}`)})
    answer.save("${name}")`,

  js: ({ asked, name, server }) => `import { writeFile } from "node:fs/promises";
import { LimnerClient } from "limner-client";

const client = new LimnerClient(${JSON.stringify(server)});
const answer = await client.generate({ ${listed(asked, (key, value) => `${key}: ${exact(key, value)}`)} });
await writeFile("${name}", answer.bytes);`,
};

const exact = (key, value) => (key === "seed" ? `"${value}"` : value); // 2^63 does not fit a number
const TEXT = ["label", "model", "format"];

function listed(asked, written) {
  return Object.entries(asked)
    .map(([key, value]) => written(key, TEXT.includes(key) ? JSON.stringify(String(value)) : String(value)))
    .join(", ");
}
