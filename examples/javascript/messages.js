// Messages of the protocol, as values and as frames. No sockets, no clock.

import { Decoder, Encoder } from "@msgpack/msgpack";

const VERSION = 1;
const REQUEST_BYTES = 1_048_576;
const encoder = new Encoder({ ignoreUndefined: true, useBigInt64: true });
const decoder = new Decoder({ useBigInt64: true });

/**
 * A request that failed.
 *
 * - `code`: one of docs/protocol.md, for example `entry_not_found`
 * - `retryable`: whether the same request may succeed later
 * - `outcome`: `"not applied"`, or `"unknown"` where only the same number again can tell
 * - `again(timeoutMs)`: for a change of unknown outcome, sends it again under its number (see `List`); else undefined
 */
export class TodoError extends Error {
  constructor(code, text, retryable = false, outcome = "not applied") {
    super(text);
    this.name = "TodoError";
    this.code = code;
    this.retryable = retryable;
    this.outcome = outcome;
  }
}

/** Pack any value. Dates and whatever else msgpack has no type for are refused, since extension types are. */
export function pack(value) {
  return encoder.encode(prepared(value));
}

/** Unpack any value; integers beyond what a number holds exactly come as BigInt. */
export function unpack(bytes) {
  return withNumbers(decoder.decode(bytes));
}

/** Pack a body: `[operation, argument, ...]`. One that is too large is refused here: in a message it spoils the others. */
export function packBody(operation, ...args) {
  const body = pack([operation, ...args]);
  if (body.length > REQUEST_BYTES) {
    throw new TodoError("invalid_request", `a request of ${body.length} bytes where ${REQUEST_BYTES} are allowed`);
  }
  return body;
}

/** Pack one call; every request is an array of 4 or 6 fields whose body is packed already. */
export function packCall(sender, requests) {
  return pack([VERSION, "call", sender, requests]);
}

/**
 * Return the answers in a frame as `{id, value}` or `{id, error}`; a frame that is none of ours gives none.
 *
 * One that has no place in JavaScript (a map with the key `__proto__`) is an error of that request alone.
 */
export function readReplies(frame) {
  const [version, kind, replies] = unpack(frame);
  if (version !== VERSION || kind !== "reply") return [];
  return replies.map(([id, status, packed]) => {
    try {
      const value = unpack(packed);
      return status === 0 ? { id, value } : { id, error: new TodoError(...value) };
    } catch (error) {
      return { id, error: new TodoError("protocol_error", `unreadable answer: ${error.message}`, false, "unknown") };
    }
  });
}

// The encoder writes integers that need 64 bits as floats unless they are BigInts.
function prepared(value) {
  if (Number.isSafeInteger(value) && Math.abs(value) > 0x7fff_ffff) return BigInt(value);
  if (typeof value === "bigint" && (value < -(2n ** 63n) || value >= 2n ** 64n)) {
    throw new TodoError("invalid_request", `${value} does not fit into 64 bits`);
  }
  if (value === null || typeof value !== "object" || value instanceof Uint8Array) return value;
  if (Array.isArray(value)) return value.map(prepared);
  if (Object.getPrototypeOf(value) !== Object.prototype) {
    throw new TodoError("invalid_request", `a ${value.constructor?.name ?? "value"} can't be stored`);
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, prepared(item)]));
}

function withNumbers(value) {
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  if (Array.isArray(value)) return value.map(withNumbers);
  if (value === null || typeof value !== "object" || value instanceof Uint8Array) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withNumbers(item)]));
}
