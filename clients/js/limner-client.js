// The address of a limner server in, pictures out. For browsers and Node from 18 on; needs nothing else.

/** @typedef {string | number | bigint} Seed */
/** @typedef {"png" | "jpeg" | "webp" | "json" | "npy" | "zip"} Format */

/**
 * @typedef {object} GenerateParameters
 * What is asked for; what is absent is the server's choice.
 * @property {string | number} [label] a class index (a number) or name (a string; one that names none is an index)
 * @property {number} [n] how many: image i is that of seed + i
 * @property {Seed} [seed] 0 to 2^63 - 1; over 2^53 - 1 not as a number, which would round it
 * @property {number} [truncation] over 0, at most 8 (in σ): less variety, more typical pictures
 * @property {Format} [format] png if absent; a picture of n > 1 is a sheet
 * @property {number} [scale] 1 to 16: each pixel is drawn scale x scale
 * @property {number} [quality] 1 to 100, of jpeg and webp
 * @property {string} [model]
 * @property {number} [version]
 * @property {number} [timeoutMs] milliseconds from the request's arrival to its pixels
 * @property {"normal" | "low"} [priority]
 */

/**
 * @typedef {object} InterpolateParameters
 * Two pictures, as /generate gives them for a seed and a label, and how to go from one to the other.
 * @property {Seed} [fromSeed] both seeds, or neither: then the server draws them
 * @property {Seed} [toSeed]
 * @property {string | number} [fromLabel] both labels, or neither: then each end has the class of its seed
 * @property {string | number} [toLabel] another one: every frame is made of both classes, and cross-faded
 * @property {number} [frames] 2 to 256, both ends included; 16 if absent
 * @property {boolean} [loop] there and back, for ever
 * @property {number} [fps] frames a second, of gif and webp; 12 if absent
 * @property {number} [truncation]
 * @property {"gif" | "webp" | "png" | "zip"} [format] gif if absent; png is a strip, zip a png for each frame
 * @property {number} [scale]
 * @property {number} [quality] of webp
 * @property {string} [model]
 * @property {number} [version]
 * @property {number} [timeoutMs]
 * @property {"normal" | "low"} [priority]
 */

/**
 * @typedef {object} CallOptions
 * @property {AbortSignal} [signal] ends this call, which rejects with the signal's reason
 * @property {number} [retries] instead of the client's
 * @property {(again: {error: ClientError, seconds: number, attempt: number}) => void} [onRetry] told before each wait:
 *   why, how long, and how many tries there were
 */

/**
 * @typedef {object} ClientOptions
 * @property {number} [retries] how many times a call is tried again (3) where nobody answers, the answer breaks off, or
 *   it is 429, 502 or 503; 0 is never
 * @property {AbortSignal} [signal] ends every call of this client
 * @property {typeof globalThis.fetch} [fetch] instead of the global one
 */

/** @typedef {{seed: string, label: number | null, class: string | null, png: Uint8Array<ArrayBuffer>}} Picture */

/**
 * @typedef {object} Artifact a file of a model, and how its pictures compare with the model's own
 * @property {string} engine
 * @property {string} precision
 * @property {string} file
 * @property {string} sha256
 * @property {Record<string, any>} [requirements]
 * @property {Record<string, any>} [gates]
 * @property {number[]} [buckets]
 * @property {{why: string, command: string}} [not_run]
 */

/**
 * @typedef {object} ModelVersion
 * @property {number} version
 * @property {string} kind gan, cgan, vae or cvae
 * @property {string[]} class_names
 * @property {number} latent
 * @property {number} height
 * @property {number} width
 * @property {number} channels
 * @property {string} digest
 * @property {string} artifact what makes the pictures: engine, precision, its version, device
 * @property {Record<string, string>} engine
 * @property {number[]} buckets
 * @property {Record<string, any>} [quality]
 * @property {Record<string, any>} source
 * @property {Artifact[]} artifacts
 */

/** @typedef {{default?: string, models: {name: string, versions: ModelVersion[]}[]}} Models */

const RETRIED = [429, 502, 503]; // not 500, which the server has tried twice, nor 504, whose time ran out there
const FIRST_WAIT = 0.25; // seconds, twice as long each time
const LONGEST_WAIT = 60; // seconds; a server that wants more is not waited for

/** The root of what a call throws, but for an abort's reason and the TypeError or RangeError of a wrong argument. */
export class ClientError extends Error {
  /** @param {string} words @param {ErrorOptions} [options] */
  constructor(words, options) {
    super(words, options);
    this.name = new.target.name;
  }
}

/** Nobody answers at that address, or the answer broke off. */
export class ConnectionFailed extends ClientError {}

/** The server refused or failed: its problem details (RFC 9457), as far as there are any. */
export class ApiError extends ClientError {
  /**
   * @param {Response} response
   * @param {Record<string, any>} problem
   */
  constructor(response, problem) {
    super(problem.detail ?? `${response.status} ${response.statusText}: the answer has no problem details`);
    /** @type {number} the HTTP status */
    this.status = response.status;
    /** @type {string} the last part of the problem's type, such as queue-full; empty if there is none */
    this.code =
      String(problem.type ?? "")
        .split(":")
        .at(-1) ?? "";
    /** @type {string} */
    this.title = problem.title ?? "";
    /** @type {string} */
    this.detail = this.message;
    /** @type {string | undefined} the parameter to blame, with its value and what is allowed */
    this.field = problem.field;
    /** @type {string | undefined} */
    this.value = problem.value;
    /** @type {string | undefined} */
    this.allowed = problem.allowed;
    /** @type {number | undefined} seconds until it is worth another try */
    this.retryAfter = seconds(response.headers.get("Retry-After"));
    /** @type {string | null} what the server's log calls the request */
    this.requestId = response.headers.get("X-Request-Id");
  }
}

/** What a request was answered with. */
export class Answer {
  /**
   * @param {LimnerClient} client
   * @param {Record<string, any>} asked
   * @param {Response} response
   * @param {Uint8Array<ArrayBuffer>} bytes
   */
  constructor(client, asked, response, bytes) {
    const { headers } = response;
    const [model, version] = (headers.get("X-Limner-Model") ?? "").split("@");
    const labels = headers.get("X-Limner-Label");
    this.bytes = bytes;
    /** @type {string} the media type of the bytes */
    this.type = headers.get("Content-Type") ?? "";
    /** @type {string[]} of the first image, in decimal digits: 2^63 does not fit a number; of both ends of a way */
    this.seeds = (headers.get("X-Limner-Seed") ?? "").split(", ");
    /** @type {string} the first of them */
    this.seed = this.seeds[0] ?? "";
    /** @type {number[]} index of the class, where one image of a model with classes was asked for; of both ends */
    this.labels = labels === null ? [] : labels.split(", ").map(Number);
    /** @type {number | null} the first of them */
    this.label = this.labels[0] ?? null;
    /** @type {string} */
    this.model = model ?? "";
    /** @type {number} */
    this.version = Number(version);
    /** @type {Record<string, number>} milliseconds: queue, compute and encode */
    this.timing = timing(headers.get("Server-Timing") ?? "");
    /** @type {number | null} pictures of the largest batch that made some of it, whoever asked for the others */
    this.batch = batch(headers.get("Server-Timing") ?? "");
    /** @type {string | null} */
    this.requestId = headers.get("X-Request-Id");
    this.#client = client;
    this.#asked = asked;
  }

  #client;
  #asked;

  /** @returns {Blob} */
  get blob() {
    return new Blob([this.bytes], { type: this.type });
  }

  /**
   * The pictures one by one, of format json.
   * @returns {Picture[]}
   */
  images() {
    if (!this.type.startsWith("application/json"))
      throw new TypeError(`${this.type} has no images(): ask for format json`);
    const { images } = JSON.parse(new TextDecoder().decode(this.bytes));
    return images.map((/** @type {Record<string, any>} */ image) => ({ ...image, png: decoded(image.png) }));
  }

  /**
   * The permanent address of the same pictures: the same request, with the seeds, model and version that answered.
   * @param {GenerateParameters | InterpolateParameters} [other] what shall be otherwise in it
   */
  link(other) {
    const { model, version } = this;
    const [seed, toSeed] = this.seeds;
    const seeds = toSeed === undefined ? { seed } : { fromSeed: seed, toSeed };
    return this.#client.link(/** @type {any} */ ({ ...this.#asked, model, version, ...seeds, ...other }));
  }
}

/**
 * Asks one server; any number of calls at a time.
 *
 *     const client = new LimnerClient("http://127.0.0.1:8000");
 *     const answer = await client.generate({ label: "3", n: 16, seed: 7 });
 *     image.src = URL.createObjectURL(answer.blob);
 *
 * Every call throws ApiError where the server refuses or fails, ConnectionFailed where nobody answers.
 */
export class LimnerClient {
  #url;
  #options;

  /**
   * @param {string | URL} url of the server, with the folder that a proxy has put it in, if any
   * @param {ClientOptions} [options]
   */
  constructor(url, options = {}) {
    this.#url = new URL(url);
    this.#url.search = this.#url.hash = "";
    if (!this.#url.pathname.endsWith("/")) this.#url.pathname += "/";
    this.#options = options;
  }

  /**
   * Images of a class, or of all classes, from a seed.
   * @param {GenerateParameters} [parameters]
   * @param {CallOptions} [options]
   */
  async generate(parameters = {}, options = {}) {
    return this.#pictures("generate", parameters, options);
  }

  /**
   * The way from one picture to another: an animation, a strip, or the frames one by one.
   * @param {InterpolateParameters} [parameters]
   * @param {CallOptions} [options]
   */
  async interpolate(parameters = {}, options = {}) {
    return this.#pictures("interpolate", parameters, options);
  }

  /**
   * The address of pictures, or of the way between two, for `<img>` and for others. With seeds, model and version it is
   * permanent: the same bytes from every server of that model. An address is text, where a label is a class name before
   * it is an index: so a number is refused, which would mean the index alone.
   * @param {(GenerateParameters & {seed: Seed}) | (InterpolateParameters & {fromSeed: Seed, toSeed: Seed})} parameters
   * @returns {string}
   */
  link(parameters) {
    const way = "fromSeed" in parameters;
    for (const name of way ? ["fromSeed", "toSeed"] : ["seed"]) {
      if (!(name in given(parameters))) throw new TypeError(`without ${name} each visit would be another picture`);
    }
    for (const [name, value] of Object.entries(parameters)) {
      if (typeof value === "number" && name.toLowerCase().endsWith("label")) {
        throw new TypeError(`in an address a label is a class name before it is an index: give ${name} as "${value}"`);
      }
    }
    return this.#address(way ? "interpolate" : "generate", { format: way ? "gif" : "png", ...parameters });
  }

  /**
   * What is served, and which model answers where none is named.
   * @param {CallOptions} [options]
   * @returns {Promise<Models>}
   */
  async models(options = {}) {
    const { response, bytes } = await this.#ask("models", {}, options);
    try {
      return JSON.parse(new TextDecoder().decode(bytes));
    } catch {
      throw new ApiError(response, { detail: `no limner server gave the answer at ${this.#url}` });
    }
  }

  /**
   * Whether the server takes work now: not while it drains, and not where nobody answers.
   * @param {CallOptions} [options]
   */
  async ready(options = {}) {
    try {
      await this.#ask("readyz", {}, { retries: 0, ...options });
      return true;
    } catch (error) {
      if (error instanceof ClientError) return false;
      throw error;
    }
  }

  /**
   * @param {string} path
   * @param {Record<string, any>} parameters
   * @param {CallOptions} options
   */
  async #pictures(path, parameters, options) {
    const body = JSON.stringify(written(parameters));
    const request = { method: "POST", headers: { "Content-Type": "application/json", Accept: "*/*" }, body };
    const { response, bytes } = await this.#ask(path, request, options);
    if (!response.headers.has("X-Limner-Model")) {
      throw new ApiError(response, { detail: `no limner server gave the answer at ${this.#url}` });
    }
    return new Answer(this, parameters, response, bytes);
  }

  /**
   * @param {string} path
   * @param {Record<string, any>} parameters
   */
  #address(path, parameters) {
    const address = new URL(path, this.#url);
    for (const [name, value] of Object.entries(written(parameters))) address.searchParams.set(name, String(value));
    return address.href;
  }

  /**
   * @param {string} path
   * @param {RequestInit} request
   * @param {CallOptions} options
   */
  async #ask(path, request, { signal, retries = this.#options.retries ?? 3, onRetry }) {
    const watch = joined(this.#options.signal, signal);
    try {
      for (let attempt = 1; ; attempt++) {
        try {
          return await this.#once(path, { ...request, signal: watch.signal });
        } catch (error) {
          const wait = error instanceof ClientError && attempt <= retries ? pause(error, attempt) : null;
          if (wait === null) throw error;
          onRetry?.({ error: /** @type {ClientError} */ (error), seconds: wait, attempt });
          await asleep(wait, watch.signal);
        }
      }
    } finally {
      watch.release();
    }
  }

  /**
   * One try. A body that is shorter than its head says has broken off.
   * @param {string} path
   * @param {RequestInit & {signal: AbortSignal}} request
   */
  async #once(path, request) {
    const send = this.#options.fetch ?? globalThis.fetch;
    let response, bytes;
    try {
      response = await send(new URL(path, this.#url), request);
      bytes = new Uint8Array(await response.arrayBuffer());
    } catch (error) {
      if (request.signal.aborted) throw request.signal.reason;
      const what = response ? "the answer broke off" : "no limner server answers";
      throw new ConnectionFailed(`${what} at ${this.#url}`, { cause: error });
    }
    const length = response.headers.has("Content-Encoding") ? null : response.headers.get("Content-Length");
    if (length !== null && bytes.length !== Number(length)) {
      throw new ConnectionFailed(`the answer at ${this.#url} broke off after ${bytes.length} of ${length} bytes`);
    }
    if (!response.ok) throw new ApiError(response, problem(bytes));
    return { response, bytes };
  }
}

/**
 * As the server names and writes them: timeoutMs -> timeout_ms, seeds as digits; what is undefined or null is left out.
 * @param {Record<string, any>} parameters
 * @returns {Record<string, string | number>}
 */
function written(parameters) {
  return Object.fromEntries(
    Object.entries(given(parameters)).map(([name, value]) => [snake(name), exact(name, value)]),
  );
}

/**
 * @param {Record<string, any>} parameters
 * @returns {Record<string, any>}
 */
function given(parameters) {
  return Object.fromEntries(Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null));
}

/** @param {string} name */
const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/**
 * @param {string} name
 * @param {any} value
 */
function exact(name, value) {
  if (!name.toLowerCase().endsWith("seed")) return value;
  if (typeof value === "number" && !Number.isSafeInteger(value)) {
    throw new RangeError(`${name} ${value} is no exact integer: give a BigInt or a string`);
  }
  return String(value);
}

/**
 * Seconds until the next try; null where none is worth it. Those that were refused together do not come back together.
 * @param {ClientError} error
 * @param {number} attempt
 */
function pause(error, attempt) {
  if (error instanceof ApiError && !RETRIED.includes(error.status)) return null;
  const after = error instanceof ApiError ? error.retryAfter : undefined;
  const wait = Math.max(after ?? 0, FIRST_WAIT * 2 ** (attempt - 1) * (0.5 + Math.random() / 2));
  return wait > LONGEST_WAIT ? null : wait * (after ? 1 + Math.random() / 10 : 1);
}

/**
 * Retry-After, in seconds or as a date.
 * @param {string | null} header
 */
function seconds(header) {
  if (!header) return undefined;
  const value = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1e3;
  return Number.isNaN(value) ? undefined : Math.max(0, value);
}

/**
 * `queue;dur=0.097, compute;dur=0.889` -> { queue: 0.097, compute: 0.889 }
 * @param {string} header
 * @returns {Record<string, number>}
 */
function timing(header) {
  const stages = header.matchAll(/([\w-]+)[^,]*?;\s*dur=([\d.]+)/g);
  return Object.fromEntries(Array.from(stages, ([, stage, milliseconds]) => [stage, Number(milliseconds)]));
}

/** @param {string} header */
const batch = (header) => Number(/\bbatch\s*;\s*desc="?(\d+)/.exec(header)?.[1]) || null;

/**
 * Problem details where there are any; a proxy on the way may answer with anything.
 * @param {Uint8Array} bytes
 * @returns {Record<string, any>}
 */
function problem(bytes) {
  try {
    const found = JSON.parse(new TextDecoder().decode(bytes));
    return typeof found?.detail === "string" ? found : {};
  } catch {
    return {};
  }
}

/** @param {string} base64 */
const decoded = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

/**
 * Several signals as one; AbortSignal.any is younger than Node 18.
 * @param {(AbortSignal | undefined)[]} signals
 */
function joined(...signals) {
  const [all, done] = [new AbortController(), new AbortController()];
  for (const signal of signals) {
    if (signal?.aborted) all.abort(signal.reason);
    signal?.addEventListener("abort", () => all.abort(signal.reason), { signal: done.signal });
  }
  return { signal: all.signal, release: () => done.abort() };
}

/**
 * @param {number} wait seconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
function asleep(wait, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => (clearTimeout(timer), reject(signal.reason));
    const timer = setTimeout(() => (signal.removeEventListener("abort", stop), resolve()), wait * 1e3);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
  });
}
