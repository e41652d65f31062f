// A TodoMQ client, written from docs/protocol.md alone. See README.md beside this file.

import { readFile, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Connection } from "./connection.js";
import { TodoError, packBody } from "./messages.js";
import { Session } from "./session.js";

export { TodoError };

const TIMEOUT_MS = 5000;
const LONGEST_TIMEOUT_MS = 60_000;
const NAME_BYTES = 255;
const PAUSE_MS = 10;
const LONGEST_PAUSE_MS = 500;
const READS_BEGUN_AGAIN = 10;
const NO_SESSION = { numbers: () => [1, 1] };

/** A client of one stack. One per process and endpoint is enough: it keeps many requests in flight. */
export class TodoClient {
  #connection;
  #timeoutMs;
  #lists = new Map();

  /**
   * @param {object} options
   * @param {string} [options.endpoint] the router's address; else TODOMQ_ENDPOINT, else this machine's stack
   * @param {object} [options.credentials] the content of a credentials file, for a stack that is reached by key
   * @param {number} [options.timeoutMs] how long a request may take, retries included; at most 60 s
   */
  constructor({ endpoint, credentials, timeoutMs = TIMEOUT_MS } = {}) {
    this.#timeoutMs = timeoutMs;
    this.#connection = new Connection(endpoint ?? credentials?.endpoint ?? defaultEndpoint(), credentials);
  }

  /** Make a client from a credentials file, which names the endpoint, the server's key and the client's. */
  static async fromFile(path, options = {}) {
    return new TodoClient({ ...options, credentials: await readCredentials(path) });
  }

  /** Return a handle of a list; nothing is sent yet. Numbers count per list, so there is one handle per name. */
  list(name) {
    const bytes = typeof name === "string" && !/\p{Surrogate}/u.test(name) ? Buffer.byteLength(name) : 0;
    if (bytes < 1 || bytes > NAME_BYTES) {
      throw new TodoError("invalid_request", `a list's name is a text of 1 to ${NAME_BYTES} bytes of UTF-8`);
    }
    if (!this.#lists.has(name)) this.#lists.set(name, new List(this, name));
    return this.#lists.get(name);
  }

  /** Return the names of all stored lists that begin with the prefix. */
  async listNames(prefix = "") {
    const names = [];
    for (let after = null; ; ) {
      const [page, next] = await this.request({ target: "", body: packBody("list_names", prefix, after), ...NO_SESSION });
      names.push(...page);
      if (next === null) return names;
      after = next;
    }
  }

  /** Resolve once the router has answered. */
  async ping() {
    return this.request({ target: null, body: packBody("ping") });
  }

  /**
   * Send a request, again where it is refused for the moment, until it is answered or the time is up.
   *
   * @param {object} request `target`, `body` and, for lists, `numbers()`: number and floor of the moment
   */
  async request(request, timeoutMs = this.#timeoutMs, mayRetry = true) {
    if (!(timeoutMs >= 0)) throw new TodoError("invalid_request", `timeoutMs: milliseconds are needed, not ${timeoutMs}`);
    const deadline = Date.now() + Math.min(timeoutMs, LONGEST_TIMEOUT_MS);
    for (let pause = PAUSE_MS; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
      try {
        return await this.#connection.request(request, deadline);
      } catch (error) {
        if (!error.retryable || !mayRetry || Date.now() + pause > deadline) throw error;
      }
      await sleep(pause * (0.5 + Math.random()));
    }
  }

  close() {
    this.#connection.close();
  }
}

/**
 * A list. Its changes are numbered, so one that is sent again, by this client or by `error.again()`, takes effect once.
 *
 * Where a change fails with `outcome` "unknown", `await error.again()` asks again under the same number and gives the answer
 * of the first time if there was one. The next request to the list gives it up instead: what a read then shows is final.
 */
export class List {
  #client;
  #name;
  #session = new Session();

  constructor(client, name) {
    this.#client = client;
    this.#name = name;
  }

  /** Add an entry and return it; it is on disk by then. `date` is "YYYY-MM-DD". */
  async addEntry(title, { date = null, extra = {}, done = false } = {}) {
    const id = await this.#change("add_entry", title, date, extra, done);
    return { id, title, date, done, extra };
  }

  /** Add entries, all or none. Each is `{title, date, extra, done}`. */
  async addEntries(entries) {
    const rows = entries.map(({ title, date = null, extra = {}, done = false }) => [title, date, extra, done]);
    const ids = await this.#change("add_entries", rows);
    return rows.map(([title, date, extra, done], place) => ({ id: ids[place], title, date, done, extra }));
  }

  /** Change the fields that are given (`title`, `date`, `done`, `extra`) and return the entry. */
  async updateEntry(id, fields) {
    return toEntry(await this.#change("update_entry", id, fields));
  }

  /** Return true, or false where there was no such entry. */
  async deleteEntry(id) {
    return this.#change("delete_entry", id);
  }

  /** Remove all entries; ids start at 1 again. */
  async clear() {
    await this.#change("clear");
  }

  /** Remove the list itself. */
  async delete() {
    await this.#change("delete");
  }

  async size() {
    return this.#read(["size"]);
  }

  async entries() {
    return this.#pages("entries");
  }

  /** Return the entries of a date, or for null those without one. */
  async entriesOn(date) {
    return this.#pages("entries_on", date);
  }

  async #pages(...operation) {
    const number = this.#session.next;
    for (let begun = 1; ; begun++) {
      let [page, cursor] = await this.#read(operation, number);
      const entries = page;
      try {
        while (cursor !== null) {
          [page, cursor] = await this.#read([...operation, cursor], number, false);
          entries.push(...page);
        }
        return entries.map(toEntry);
      } catch (error) {
        // The rest of what the first page began may be gone; the list as it is now is not.
        if (!error.retryable || begun === READS_BEGUN_AGAIN) throw error;
      }
    }
  }

  // The number stays the same however often it is sent, so that it never shows what this client sent after it.
  #read(body, number = this.#session.next, mayRetry = true) {
    this.#session.giveUpDoubtful();
    const numbers = () => [number, Math.min(number, this.#session.floor)];
    return this.#client.request({ target: this.#name, body: packBody(...body), numbers }, undefined, mayRetry);
  }

  #change(...body) {
    const packed = packBody(...body);
    this.#session.giveUpDoubtful();
    return this.#send(packed, this.#session.take());
  }

  async #send(body, number, timeoutMs, isExposed = false) {
    try {
      const numbers = () => [number, this.#session.floor];
      const request = { target: this.#name, body, numbers, isChange: true, isExposed };
      const value = await this.#client.request(request, timeoutMs);
      this.#session.settle(number);
      return value;
    } catch (error) {
      if (error.outcome !== "not applied") {
        this.#session.doubt(number);
        error.again = (againTimeoutMs) => this.#again(body, number, againTimeoutMs);
      } else {
        this.#session.settle(number);
      }
      throw error;
    }
  }

  async #again(body, number, timeoutMs) {
    if (!this.#session.resume(number)) {
      throw new TodoError("invalid_request", "this change was given up already", false, "unknown");
    }
    return this.#send(body, number, timeoutMs, true);
  }
}

/** Read a credentials file, as `todomq keys new` writes it. */
export async function readCredentials(path) {
  const refuse = (why) => {
    throw new TodoError("invalid_request", `${path} ${why}`);
  };
  const text = await readFile(path, "utf8").catch((error) => refuse(`can't be read: ${error.code}`));
  if ((await stat(path)).mode & 0o077) refuse("can be read by others; chmod 600 it");
  let credentials = null;
  try {
    credentials = JSON.parse(text);
  } catch {
    // Its content is a secret, so the parser's message, which quotes it, goes nowhere.
  }
  if (credentials?.format !== "todomq credentials" || credentials.version !== 1) {
    refuse("is no credentials file of version 1");
  }
  return credentials;
}

function defaultEndpoint() {
  const home = process.env.TODOMQ_HOME || join(homedir(), ".todomq");
  return process.env.TODOMQ_ENDPOINT || `ipc://${home}/run/router`;
}

function toEntry([id, title, date, done, extra]) {
  return { id, title, date, done, extra };
}
