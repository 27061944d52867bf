// A server's URL in, the same picture twice out, one a line in base64: by /generate, and in OpenAI's words.
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

const client = createClient<paths>({ baseUrl: process.argv[2] ?? "" });

const one = await client.GET("/generate", {
  params: { query: { model: "digits", label: "2", seed: "7", format: "png" } },
  parseAs: "arrayBuffer",
});
if (one.error) throw new Error(one.error.detail);
console.log(Buffer.from(one.data as ArrayBuffer).toString("base64"));

const several = await client.POST("/v1/images/generations", { body: { model: "digits", prompt: "2", seed: 7, n: 2 } });
if (several.error) throw new Error(several.error.error.message);
const [first, second]: { seed: string; b64_json: string }[] = several.data.data;
if (second?.seed !== "8") throw new Error("a second picture was asked for");
console.log(first?.b64_json);

const refused = await client.GET("/generate", { params: { query: { model: "digits", n: 0 } } });
if (refused.error?.field !== "n") throw new Error("a refusal names its parameter");
