#!/usr/bin/env node
// A command line as small as can be: what can be done with todomq.js in a few lines.

import { TodoClient, TodoError } from "./todomq.js";

const USAGE = `Usage: node todo.js add LIST TITLE [YYYY-MM-DD]
       node todo.js ls LIST [YYYY-MM-DD]
       node todo.js done LIST ID
       node todo.js lists [PREFIX]

The stack: the credentials file that TODOMQ_CREDENTIALS names, else TODOMQ_ENDPOINT, else the one of TODOMQ_HOME.`;

// Titles come from others: what a terminal would act on is shown as its escape.
const harmless = (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`;
const line = (value) => JSON.stringify(value).replace(/[\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, harmless);

const commands = {
  add: async (todo, list, title, date) => console.log(line(await todo.list(list).addEntry(title, { date }))),
  ls: async (todo, list, date) => {
    const entries = await (date ? todo.list(list).entriesOn(date) : todo.list(list).entries());
    entries.forEach((entry) => console.log(line(entry)));
  },
  done: async (todo, list, id) => console.log(line(await todo.list(list).updateEntry(Number(id), { done: true }))),
  lists: async (todo, prefix) => (await todo.listNames(prefix)).forEach((name) => console.log(line(name))),
};

const [command, ...args] = process.argv.slice(2);
if (!(command in commands) || (command !== "lists" && !args[0])) {
  console.error(USAGE);
  process.exit(2);
}
const file = process.env.TODOMQ_CREDENTIALS;
let todo;
try {
  todo = file ? await TodoClient.fromFile(file) : new TodoClient();
  await commands[command](todo, ...args);
} catch (error) {
  if (!(error instanceof TodoError)) throw error;
  console.error(`${error.code}: ${line(error.message)} (${error.outcome})`);
  process.exitCode = 1;
} finally {
  todo?.close();
}
