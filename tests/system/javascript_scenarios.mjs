// What tests/system/test_javascript.py has the JavaScript client do: node javascript_scenarios.mjs SCENARIO ARGUMENT...
// Every step prints one line of JSON. A line on standard input lets a scenario go on.

import { once } from "node:events";
import { createInterface } from "node:readline";
import { TodoClient } from "../../examples/javascript/todomq.js";

const say = (value) => console.log(JSON.stringify(value, (_, item) => (typeof item === "bigint" ? String(item) : item)));
const told = (error) => ({ code: error.code, text: error.message, retryable: error.retryable, outcome: error.outcome });
const failure = (promise) => promise.then((value) => ({ value }), told);

// The error of what is asked by a client that waits for this answer alone no longer than so many milliseconds.
const failureSoon = async (todo, timeoutMs, ask) => {
  const { request } = todo;
  todo.request = (what, given = timeoutMs, ...rest) => request.call(todo, what, given, ...rest);
  try {
    return await ask().then(() => { throw new Error("it was answered"); }, (error) => error);
  } finally {
    delete todo.request;
  }
};

const scenarios = {
  async everything(todo, name) {
    const list = todo.list(name);
    say(await list.addEntry("dentist", { date: "2026-12-01", extra: { room: 4, tags: ["a", null, 2.5] } }));
    say(await list.addEntries([{ title: "milk" }, { title: "bröd 🍞", date: "2026-12-01", done: true }]));
    say(await list.updateEntry(2, { title: "oat milk", date: "2026-12-02", done: true, extra: { shop: "corner" } }));
    say(await list.deleteEntry(1));
    say(await list.deleteEntry(1));
    say(await list.size());
    say(await list.entries());
    say(await list.entriesOn("2026-12-01"));
    say(await list.entriesOn(null));
    say(await todo.listNames(name));
  },

  async erase(todo, name) {
    const list = todo.list(name);
    await list.addEntry("one");
    await list.clear();
    say(await list.addEntry("first again"));
    await list.delete();
    say([await list.size(), await todo.listNames(name)]);
  },

  async errors(todo, name) {
    const list = todo.list(name);
    await list.addEntry("one");
    say(await failure(list.updateEntry(99, { done: true })));
    say(await failure(list.addEntry("")));
    say(await failure(list.addEntry("x", { date: "tomorrow" })));
    say(await failure(Promise.resolve().then(() => list.addEntry("x", { extra: { when: new Date() } }))));
    say(await failure(list.addEntry("x".repeat(1_100_000))));
    say(await list.addEntry("two")); // none of these has stopped the numbers
  },

  // What goes wrong with one request is the matter of that one.
  async alone(todo, name) {
    say(await failure(todo.list(name).entries())); // with a key that no object may have
    const wrong = ["\ud800", "x".repeat(256), "", null, undefined, ["registry"]];
    say(await Promise.all(wrong.map((bad) => failure(Promise.resolve().then(() => todo.list(bad).size())))));
    const list = todo.list(`${name} goes on`);
    const numbers = [2n ** 64n, -(2n ** 63n) - 1n];
    say(await Promise.all(numbers.map((big) => failure(Promise.resolve().then(() => list.addEntry("x", { extra: { big } }))))));
    say(await failure(todo.request({ target: null }, Number.NaN)));
    say(await failure(Promise.resolve().then(() => new TodoClient({ endpoint: "nowhere" }))));
    say(await list.addEntry("milk"));
  },

  // One call each for very many entries: pages, batches and the window are met on the way.
  async pages(todo, name, count) {
    const list = todo.list(name);
    const added = await Promise.all(Array.from({ length: Number(count) }, (_, place) => list.addEntry(`entry ${place}`)));
    const entries = await list.entries();
    say([added.map((entry) => entry.id), entries.map((entry) => entry.title)]);
  },

  async integers(todo, name) {
    const list = todo.list(name);
    await list.addEntry("big", { extra: { least: -(2n ** 63n), most: 2n ** 64n - 1n, small: 7n, float: 0.5 } });
    say((await list.entries())[0].extra);
  },

  async again(todo, name, lines) {
    const list = todo.list(name);
    say(await list.addEntry("before"));
    await lines();
    const error = await failureSoon(todo, 700, () => list.addEntry("in flight"));
    say(told(error));
    await lines();
    say(await error.again(30_000));
    say((await list.entries()).map((entry) => [entry.id, entry.title]));
    say(await failure(error.again(1000)));
  },

  async unnoticed(todo, name, lines) {
    const list = todo.list(name);
    say(await list.addEntry("before"));
    await lines();
    say((await list.addEntry("in flight")).id);
    say((await list.entries()).map((entry) => [entry.id, entry.title]));
  },

  async givenUp(todo, name, lines) {
    const list = todo.list(name);
    say(await list.addEntry("before"));
    await lines();
    const error = await failureSoon(todo, 700, () => list.addEntry("in flight"));
    say(told(error));
    await lines();
    const entries = await todo.list(name).entries();
    say(await failure(error.again(1000)));
    say([entries.length, (await list.addEntry("after")).id, (await list.entries()).length]);
  },

  async refused(todo, name) {
    say(await failure(todo.list(name).addEntry("x")));
  },

  // A read, and once a line comes a change behind it.
  async overtaken(todo, name, lines) {
    const list = todo.list(name);
    const read = failure(list.entries());
    await lines();
    await list.addEntry("x");
    say(await read);
  },

  // Adds until it is refused.
  async revoked(todo, name) {
    say(await todo.list(name).addEntry("allowed"));
    for (;;) {
      const answer = await failure(todo.list(name).addEntry("x"));
      if (answer.code) return say(answer);
    }
  },

  // Adds that go on whatever is killed meanwhile; every id is printed when its answer comes.
  async steady(todo, name, count) {
    const list = todo.list(name);
    const add = async (place) => {
      for (let attempt = () => list.addEntry(`entry ${place}`); ; ) {
        try {
          return say([place, (await attempt()).id]);
        } catch (error) {
          if (!error.again) throw error;
          attempt = async () => ({ id: await error.again(30_000) });
        }
      }
    };
    const places = Array.from({ length: Number(count) }, (_, place) => place);
    const next = async () => {
      for (let place = places.shift(); place !== undefined; place = places.shift()) await add(place);
    };
    await Promise.all(Array.from({ length: 20 }, next));
    say((await list.entries()).map((entry) => [entry.id, entry.title]));
  },
};

const [scenario, name, ...args] = process.argv.slice(2);
const file = process.env.TODOMQ_CREDENTIALS;
const options = { timeoutMs: Number(process.env.TIMEOUT_MS ?? 20_000) };
const todo = file ? await TodoClient.fromFile(file, options) : new TodoClient(options);
const input = createInterface({ input: process.stdin });
const lines = () => once(input, "line");
try {
  await scenarios[scenario](todo, name, ...args, lines);
} catch (error) {
  say(told(error));
  process.exitCode = 1;
}
todo.close();
input.close();
