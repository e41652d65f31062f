"""One process of clients: ``python -m torture.clients ENDPOINT DIRECTORY SEED NUMBER BEGAN``, until its input ends.

Owns: the three faces under load (blocking, futures, asyncio), one client to a thread, and trying again what is unknown.
Must not know: faults. What a client was told goes to its recorder; anything but an error of the service ends the
process with a traceback, which fails the run.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from todomq import AsyncClient, Client, errors
from torture.recorder import Asked, Recorder, Wish
from torture.workload import Chooser, ask

AGAIN_MOST = 3
NOTED_S = 30.0
"""A block of a pipeline may be left before the callbacks of its futures have run: what notes their answers here."""
AGAIN = 0.8
"""How likely something whose outcome is unknown is tried again under its number."""


class Asker:
    """One client, whatever its face: chooses, records, decides about trying again."""

    is_pipelined = True

    def __init__(self, chooser: Chooser, recorder: Recorder) -> None:
        self.chooser = chooser
        self.recorder = recorder

    def run(self, endpoint: str, stop: threading.Event) -> None:
        """Ask until told to stop."""
        raise NotImplementedError

    def begin(self, burst: list[Wish], deadline_s: float | None = None) -> list[Asked]:
        """Begin the records of requests that are sent together, in this order."""
        last = len(burst) - 1
        return [
            self.recorder.begin(wish, deadline_s or self.chooser.deadline_s(), may_be_overtaken=place < last)
            for place, wish in enumerate(burst)
        ]

    def is_tried_again(self, asked: Asked) -> bool:
        """Decide whether to send something again whose outcome is unknown."""
        return asked.is_unknown and asked.attempts <= AGAIN_MOST and self.chooser.random.random() < AGAIN

    def keep(self, asked: list[Asked]) -> None:
        """Record a burst that is finished."""
        for each in asked:
            if each.error is None:
                self.chooser.learn(each.wish, each.value)
        self.recorder.keep(asked)


class Single(Asker):
    """One request at a time, with the blocking face."""

    is_pipelined = False

    def run(self, endpoint: str, stop: threading.Event) -> None:
        """Ask until told to stop."""
        with Client(endpoint) as todo:
            while not stop.wait(self.chooser.pause_s()):
                (asked,) = self.begin(self.chooser.burst(self.is_pipelined))
                settle(asked, partial(ask, todo.todo_list(asked.wish.list), asked.wish, asked.deadline_s))
                while self.is_tried_again(asked) and asked.error is not None:
                    settle(asked, asked.error.retry)
                self.keep([asked])


class Pipelining(Asker):
    """Several requests in flight, with the face of futures."""

    def run(self, endpoint: str, stop: threading.Event) -> None:
        """Ask until told to stop."""
        with Client(endpoint) as todo:
            while not stop.wait(self.chooser.pause_s()):
                self.ask_all(todo, self.chooser.burst(self.is_pipelined))

    def ask_all(self, todo: Client, burst: list[Wish], deadline_s: float | None = None) -> list[Asked]:
        """Ask all of a burst at once and wait for the answers; ``deadline_s`` None is one of the chooser's for each."""
        begun = self.begin(burst, deadline_s)
        try:
            with todo.pipeline() as pipeline:
                for asked in begun:
                    self._send(pipeline.todo_list(asked.wish.list), asked)
        except* errors.TodoMQError:
            pass  # each stands in its record
        for asked in begun:
            if asked.wish.kind != "cast" and not asked.is_over.wait(NOTED_S):
                raise RuntimeError(f"the callback of {asked} has not run")
        for asked in begun:
            while self.is_tried_again(asked) and asked.error is not None:
                settle(asked, asked.error.retry)
        self.keep(begun)
        return begun

    def _send(self, todo_list: Any, asked: Asked) -> None:
        asked.sending()
        try:
            future = ask(todo_list, asked.wish, asked.deadline_s)
        except errors.TodoMQError as error:
            asked.ended(None, error)
            return
        future.add_done_callback(
            lambda done: asked.ended(None if done.exception() else done.result(), done.exception())
        )


class Awaiting(Asker):
    """Several requests in flight, with asyncio."""

    def run(self, endpoint: str, stop: threading.Event) -> None:
        """Ask until told to stop."""
        asyncio.run(self._run(endpoint, stop))

    async def _run(self, endpoint: str, stop: threading.Event) -> None:
        async with AsyncClient(endpoint) as todo:
            while not stop.is_set():
                await asyncio.sleep(self.chooser.pause_s())
                burst = self.begin(self.chooser.burst(self.is_pipelined))
                await asyncio.gather(*[self._send(todo.todo_list(asked.wish.list), asked) for asked in burst])
                for asked in burst:
                    while self.is_tried_again(asked) and asked.error is not None:
                        asked.sending()
                        await self._settle(asked, asked.error.retry())
                self.keep(burst)

    def _send(self, todo_list: Any, asked: Asked) -> Any:
        asked.sending()
        return self._settle(asked, ask(todo_list, asked.wish, asked.deadline_s))

    async def _settle(self, asked: Asked, answer: Any) -> None:
        try:
            asked.ended(await answer, None)
        except errors.TodoMQError as error:
            asked.ended(None, error)


def settle(asked: Asked, question: Callable[[], Any]) -> None:
    """Ask and wait."""
    asked.sending()
    try:
        asked.ended(question(), None)
    except errors.TodoMQError as error:
        asked.ended(None, error)


FACES = (Single, Single, Pipelining, Awaiting)


def main(endpoint: str, directory: str, seed: str, number: str, began: str) -> None:
    """Run one client of each face until the standard input ends."""
    stop = threading.Event()
    threading.excepthook = _end_process
    threads = []
    for place, face in enumerate(FACES):
        client = f"c{number}{place}"
        chooser = Chooser(client, Random(f"{seed} {client}"), float(began))
        asker = face(chooser, Recorder(Path(directory), client))
        threads.append(threading.Thread(target=asker.run, args=(endpoint, stop)))
        threads[-1].start()
    sys.stdin.buffer.read()
    stop.set()
    for thread in threads:
        thread.join()


def _end_process(failure: threading.ExceptHookArgs) -> None:
    threading.__excepthook__(failure)
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
