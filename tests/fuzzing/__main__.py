"""``make fuzz MINUTES=60 [ONLY=codec,router] [KEEP=1]``: each target for its share of the time, one after the other.

Prints a table of inputs by target, in Markdown; leaves with 1 where something broke, and says with
which input. ``--keep`` adds what went further than the corpus to it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import randrange

from fuzzing import corpus

GUIDED = (
    "codec", "stored", "client", "answers", "registry", "cache", "router", "list_server-1", "database_worker-1",
    "list_server-1.commits", "database_worker-1.writes",
)  # fmt: skip
DAEMONS = "real sockets"
INPUT_BYTES = 300
INPUT_S = 20
MEMORY_MIB = 1_024
SHOWN_LINES = 40


def main() -> int:
    """Fuzz for as long as the command line says."""
    parser = argparse.ArgumentParser(prog="fuzzing", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="in all")
    parser.add_argument("--only", default="", help="targets, comma-separated")
    parser.add_argument("--keep", action="store_true", help="add what was found to the corpus")
    options = parser.parse_args()
    targets = [each for each in options.only.split(",") if each] or [*GUIDED, DAEMONS]
    seconds = 60 * options.minutes / len(targets)
    counts: dict[str, tuple[int, float]] = {}
    broken = False
    for target in targets:
        begun = time.monotonic()
        inputs, found = _daemons(seconds) if target == DAEMONS else _guided(target, seconds, options.keep)
        counts[target] = inputs, time.monotonic() - begun
        print(f"{target}: {inputs:,} inputs" + (f"\n{found}" if found else ""), flush=True)
        broken = broken or bool(found)
    print(_table(counts))
    return broken


def _guided(target: str, seconds: float, is_kept: bool) -> tuple[int, str]:
    with tempfile.TemporaryDirectory(prefix="tq-fuzz-") as temporary:
        directory = Path(temporary)
        found = directory / "found"
        found.mkdir()
        for place, data in enumerate(corpus.load(target)):
            (found / f"known-{place}").write_bytes(data)
        options = [
            f"-max_total_time={max(1, int(seconds))}", f"-artifact_prefix={directory}/broke-",
            f"-max_len={INPUT_BYTES}", f"-timeout={INPUT_S}", f"-rss_limit_mb={MEMORY_MIB}", "-print_final_stats=1",
        ]  # fmt: skip
        ran = _run([target, *options, str(found)])
        inputs = sum(map(int, re.findall(r"number_of_executed_units: (\d+)", ran.stderr)))
        broke = [file.read_bytes().hex() for file in directory.glob("broke-*")]
        if ran.returncode != 0:
            said = "\n".join(line for line in (ran.stdout + ran.stderr).splitlines()[-SHOWN_LINES:])
            return inputs, f"BROKEN by {broke or 'an unknown input'}, to be added to corpus/{target}.hex\n{said}"
        if is_kept:
            corpus.keep(target, (file.read_bytes() for file in found.iterdir()))
        return inputs, ""


def _run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fuzzing.guided", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False,
        text=True, errors="replace",
    )  # fmt: skip


def _daemons(seconds: float) -> tuple[int, str]:
    from fuzzing.daemons import fuzz

    seed = randrange(1 << 31)
    try:
        return fuzz(seconds, seed), ""
    except AssertionError as error:
        return 0, f"BROKEN under seed {seed}: {error}"


def _table(counts: dict[str, tuple[int, float]]) -> str:
    rows = [f"| {target} | {inputs:,} | {seconds / 60:.1f} |" for target, (inputs, seconds) in counts.items()]
    inputs, seconds = (sum(each) for each in zip(*counts.values()))
    return "\n".join(
        ["| target | inputs | minutes |", "| --- | --- | --- |", *rows, f"| all | {inputs:,} | {seconds / 60:.1f} |"]
    )


if __name__ == "__main__":
    sys.exit(main())
