// One DEALER socket to the router: what is in flight, the router's clock, what is sent again after a broken connection.
//
// Every sending has an id of its own. After each connection the router is greeted first; its answer sets the clock and the
// window. What an earlier connection left unanswered is then sent again in its order, under the numbers that it has.

import { randomBytes } from "node:crypto";
import { Dealer } from "zeromq";
import { TodoError, packBody, packCall, readReplies } from "./messages.js";

const HELLO_AGAIN_MS = 1000;
const GRACE_MS = 250; // an answer may leave the service at the deadline itself
const BATCH_BYTES = 524_288;
const TRANSPORT_BYTES = 4_194_304;
const DEADLINE_AHEAD_MS = 60_000;
const CLOCK_SLACK_MS = 50; // how far clocks may drift apart between two greetings
const SAID_OF_THE_NUMBER = ["invalid_request", "entry_not_found", "quota_exceeded"];
const TOO_FAR_AHEAD = `a deadline is at most ${DEADLINE_AHEAD_MS} ms ahead of the router's clock`; // not of the number

export class Connection {
  #sender = randomBytes(16);
  #socket;
  #lastId = 0;
  #inFlight = new Map(); // id -> sending
  #waiting = []; // sendings that are to leave
  #isWriting = false;
  #hello = null; // {id, at, timer} while unanswered
  #isGreeted = false;
  #clockAhead = 0; // of the router, against ours
  #clockDoubt = 0; // by how much that may be wrong
  #window = 1;
  #failure = null;

  constructor(endpoint, credentials = null) {
    const keys = credentials && {
      curveServerKey: credentials.server_public_key,
      curvePublicKey: credentials.public_key,
      curveSecretKey: credentials.secret_key,
    };
    this.#socket = new Dealer({
      immediate: true, linger: 0, reconnectInterval: 20, reconnectMaxInterval: 500, maxMessageSize: TRANSPORT_BYTES,
      heartbeatInterval: 2000, heartbeatTimeout: 6000, ...keys,
    });
    this.#watch();
    this.#receive();
    try {
      this.#socket.connect(endpoint);
    } catch (error) {
      this.#socket.close();
      throw new TodoError("invalid_request", `endpoint ${endpoint}: ${error.message}`);
    }
  }

  /**
   * Send a request and wait for its answer until `deadline`, a reading of our clock in milliseconds.
   *
   * `request` has `target`, `body` and, for lists and keys, `numbers()`, which is asked anew for each sending. Of a change
   * (`isChange`) it is noted there once an answer is lost (`isExposed`): what is said later is said of a later sending.
   * Resolves to the value; rejects with the service's error, or `deadline_exceeded` where there was no answer.
   */
  request(request, deadline) {
    if (this.#failure) return Promise.reject(new TodoError(...this.#failure));
    return new Promise((resolve, reject) => {
      const sending = { request, deadline, resolve, reject, id: null, wasSent: false };
      sending.timer = setTimeout(() => this.#giveUp(sending), deadline - Date.now() + GRACE_MS);
      this.#waiting.push(sending);
      this.#flush();
    });
  }

  /** Close the socket; what is in flight is rejected. */
  close() {
    this.#fail("unavailable", "the client is closed");
  }

  async #watch() {
    for await (const event of this.#socket.events) {
      if (event.type === "handshake") this.#greet();
      else if (event.type === "disconnect") this.#isGreeted = false;
      else if (event.type === "handshake:error:auth") {
        this.#fail("unauthorized", "the stack does not know this key");
      } else if (event.type === "handshake:error:protocol") {
        this.#fail("unauthorized", "the stack asks for a key and none is given, or the other way round");
      }
    }
  }

  async #receive() {
    try {
      for await (const [, frame] of this.#socket) readReplies(frame).forEach((reply) => this.#take(reply));
    } catch (error) {
      this.#fail("protocol_error", error.message);
    }
  }

  #greet() {
    clearTimeout(this.#hello?.timer);
    this.#isGreeted = false;
    this.#hello = { id: ++this.#lastId, at: Date.now(), timer: setTimeout(() => this.#greet(), HELLO_AGAIN_MS) };
    this.#flush();
  }

  #greeted([, nowMs, , window]) {
    clearTimeout(this.#hello.timer);
    this.#clockDoubt = Math.ceil((Date.now() - this.#hello.at) / 2) + 1;
    this.#clockAhead = nowMs - Math.round((this.#hello.at + Date.now()) / 2);
    this.#window = window;
    this.#hello = null;
    this.#isGreeted = true;
    for (const { request } of this.#inFlight.values()) request.isExposed = request.isChange;
    this.#waiting.unshift(...this.#inFlight.values());
    this.#inFlight.clear();
    this.#flush();
  }

  #take({ id, value, error }) {
    if (id === this.#hello?.id && value) return this.#greeted(value);
    if (id === null) return this.#fail(error.code, error.message); // a whole message was not understood: a fault of ours
    const sending = this.#inFlight.get(id);
    if (!sending) return undefined; // the answer to a sending that was given up or repeated
    this.#inFlight.delete(id);
    clearTimeout(sending.timer);
    error ? sending.reject(ofAllSendings(error, sending.request)) : sending.resolve(value);
    return this.#flush();
  }

  // A zeromq.js socket takes one send at a time; what comes meanwhile leaves together in the next message.
  async #flush() {
    if (this.#isWriting) return;
    this.#isWriting = true;
    try {
      await null; // what is asked for in this turn leaves together
      for (let requests = this.#nextBatch(); requests.length; requests = this.#nextBatch()) {
        await this.#socket.send(["", packCall(this.#sender, requests)]);
      }
    } catch (error) {
      this.#fail("unavailable", error.message);
    } finally {
      this.#isWriting = false;
    }
  }

  #nextBatch() {
    if (this.#failure) return [];
    if (this.#hello && !this.#hello.wasSent) {
      this.#hello.wasSent = true;
      return [[this.#hello.id, null, 0, packBody("hello")]];
    }
    const requests = [];
    const latest = Date.now() + DEADLINE_AHEAD_MS - CLOCK_SLACK_MS - this.#clockDoubt;
    let bytes = 0;
    while (this.#isGreeted && this.#waiting.length && this.#inFlight.size < this.#window && bytes < BATCH_BYTES) {
      const sending = this.#waiting.shift();
      sending.id = ++this.#lastId;
      sending.wasSent = true;
      this.#inFlight.set(sending.id, sending);
      const { target, body, numbers } = sending.request;
      const deadline = Math.floor(Math.min(sending.deadline, latest)) + this.#clockAhead;
      requests.push([sending.id, target, deadline, body, ...(numbers?.() ?? [])]);
      bytes += body.length + 512;
    }
    return requests;
  }

  #giveUp(sending) {
    this.#inFlight.delete(sending.id);
    this.#waiting = this.#waiting.filter((other) => other !== sending);
    sending.reject(new TodoError("deadline_exceeded", "no answer before the deadline", false, outcomeOf(sending)));
    this.#flush();
  }

  #fail(code, text) {
    if (this.#failure) return;
    this.#failure = [code, text];
    clearTimeout(this.#hello?.timer);
    for (const sending of [...this.#inFlight.values(), ...this.#waiting]) {
      clearTimeout(sending.timer);
      sending.reject(new TodoError(code, text, false, outcomeOf(sending)));
    }
    this.#inFlight.clear();
    this.#waiting = [];
    this.#socket.close();
  }
}

function outcomeOf({ request, wasSent }) {
  return request.isChange && (wasSent || request.isExposed) ? "unknown" : "not applied";
}

// An answer is about its own sending. Of one before, whose answer was lost, only what is said of the number tells.
function ofAllSendings(error, request) {
  if (!request.isChange) error.outcome = "not applied";
  else if (error.outcome !== "not applied") request.isExposed = true;
  else if (request.isExposed && !isSaidOfTheNumber(error)) error.outcome = "unknown";
  return error;
}

function isSaidOfTheNumber({ code, message }) {
  return SAID_OF_THE_NUMBER.includes(code) && message !== TOO_FAR_AHEAD;
}
