"""One run of torture: a stack of its own, processes of clients, the nemesis, the final reading, the judgement.

Owns: the order of these. Must not know: what clients ask, how faults are done. ``__main__`` and a test start it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

from stacks import NO_SETTINGS, RunningStack

from todomq import Client
from torture.clients import Pipelining
from torture.damage import Flip, flip_bytes
from torture.disk import Disk
from torture.nemesis import Harm, Nemesis, filling
from torture.probe import Probe
from torture.provoke import PROVOCATIONS, Provoked, provoke
from torture.recorder import Recorder, Wish, read_round, rounds
from torture.report import Report
from torture.workload import Chooser

PROCESSES = 4
TESTS = Path(__file__).parents[1]
END_S = 120.0
"""The clients' last requests have deadlines and are tried again a few times."""
READ_S = 30.0
READ_AT_ONCE = 20
DISK_FULL = 6
"""How often the disk is filled, in the weights of the nemesis."""


def torture(
    directory: Path,
    seconds: float,
    seed: int,
    say: Callable[[str], None] = lambda line: None,
    further: Mapping[str, tuple[float, Harm]] | None = None,
    settings: Mapping[str, str] = NO_SETTINGS,
    *,
    flips: int = 0,
    fills_disk: bool = False,
    provocations: Sequence[str] = tuple(PROVOCATIONS),
) -> Report:
    """Torture a stack of its own and judge it.

    Args:
        directory: where the record goes; empty.
        seconds: how long faults go on.
        seed: decides what is asked and what harm is done; not how these meet.
        say: is told each fault.
        further: more kinds of faults with their weights.
        settings: more of the stack's environment.
        flips: bytes to flip at the end, each in another shard.
        fills_disk: put the stack on a disk of its own that is filled now and then, where this user may mount one.
        provocations: what is tried at the end, while clients still ask, up to the first that finds something.
    """
    stack = RunningStack(TODOMQ_MAX_RESTARTS="1000000", **settings)
    troubles: list[str] = []
    damaged: list[Flip] = []
    provoked: list[Provoked] = []
    disk = Disk(stack.home)
    try:
        if fills_disk and (refused := disk.mount()):
            say(f"the disk is never filled: {refused}")
        elif fills_disk:
            further = {"disk full": (DISK_FULL, filling(disk)), **(further or {})}
        stack.start()
        began = time.monotonic()
        probe = Probe(stack.control.settings, directory, seed, began)
        nemesis = Nemesis(stack, probe, Random(f"{seed} nemesis"), further)
        clients = [_start_clients(stack.endpoint, directory, seed, number, began) for number in range(PROCESSES)]
        try:
            while time.monotonic() < began + seconds and all(client.poll() is None for client in clients):
                time.sleep(nemesis.rest_s())
                fault = nemesis.strike()
                took = "never" if fault.served_s is None else f"{fault.served_s * 1000:.0f} ms"
                say(f"{time.monotonic() - began:7.1f} s  {fault.kind} {fault.target}: {took} {fault.trouble or ''}")
            provoked = provoke(stack, Random(f"{seed} provocations"), say, provocations)
        except BaseException:  # an interrupt among others: nobody waits for their last answers
            for client in clients:
                client.kill()
            raise
        finally:
            probe.close()
            troubles += _end_clients(clients)
        lasted_s = time.monotonic() - began
        stack.wait_healthy()
        say("reading everything back")
        troubles += _read_back(stack.endpoint, directory)
        if flips:
            damaged = flip_bytes(stack, Random(f"{seed} flips"), flips, say)
        stack.stop()
        troubles += [f"left behind: {command}" for command in stack.living().values()]
        troubles += [f"left behind: the socket {name}" for name in stack.sockets()]
    finally:
        stack.discard()
        disk.end()
    say("judging")
    report = Report(seed, lasted_s, nemesis.faults, troubles=troubles, flips=damaged, provoked=provoked)
    report.judge(directory)
    return report


def _start_clients(endpoint: str, directory: Path, seed: int, number: int, began: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torture.clients", endpoint, str(directory), str(seed), str(number), str(began)]
    paths = filter(None, (str(TESTS), os.environ.get("PYTHONPATH")))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def _end_clients(clients: list[subprocess.Popen[bytes]]) -> list[str]:
    """End the clients' processes; return what is wrong with them."""
    troubles = []
    for client in clients:
        if client.stdin is not None:
            client.stdin.close()
            client.stdin = None
    for client in clients:
        try:
            _, said = client.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            client.kill()
            _, said = client.communicate()
            troubles.append("a process of clients did not end")
        if client.returncode != 0 or said:
            troubles.append(f"a process of clients ended with {client.returncode}: {said.decode()[-2000:]}")
    return troubles


def _read_back(endpoint: str, directory: Path) -> list[str]:
    """Read every list once more, into the record; return what could not be read."""
    troubles = []
    reader = Pipelining(Chooser("reader", Random(0), 0.0), Recorder(directory, "reader"))
    with Client(endpoint) as todo:
        for number, each in ((int(path.name.removeprefix("round-")), path) for path in rounds(directory)):
            lists = sorted({operation.list for operation in read_round(each)})
            for start in range(0, len(lists), READ_AT_ONCE):
                wishes = [Wish(number, name, "entries") for name in lists[start : start + READ_AT_ONCE]]
                asked = reader.ask_all(todo, wishes, READ_S)
                troubles += [f"{item.wish.list} can't be read: {item.error}" for item in asked if item.error]
    return troubles
