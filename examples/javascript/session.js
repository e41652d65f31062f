// The numbers of one list: which the next change takes, and the floor. No sockets, no clock.
//
// A change holds its number from its first sending until its fate is known: then the floor passes it. A change of unknown
// outcome keeps its number, so that it can be sent again under it, until the next request to this list gives it up.

export class Session {
  #next = 1;
  #open = new Set(); // ascending, since numbers are taken in order
  #doubtful = new Set();

  /** The lowest number whose answer is still waited for. */
  get floor() {
    return this.#open.values().next().value ?? this.#next;
  }

  /** The number that the next change will have: what a read carries. */
  get next() {
    return this.#next;
  }

  /** Take the number of a new change. */
  take() {
    this.#open.add(this.#next);
    return this.#next++;
  }

  /** The change was answered, or given up where it surely has no effect: its number is done with. */
  settle(number) {
    this.#open.delete(number);
  }

  /** Nobody knows whether the change took effect. */
  doubt(number) {
    this.#doubtful.add(number);
  }

  /** Take up a change again whose outcome is unknown; false where it was given up meanwhile. */
  resume(number) {
    return this.#doubtful.delete(number);
  }

  /** Give up what is of unknown outcome: it will not take effect any more, if it has not. */
  giveUpDoubtful() {
    this.#doubtful.forEach((number) => this.#open.delete(number));
    this.#doubtful.clear();
  }
}
