"""``PYTHONPATH=tests:tests/system python -m torture --minutes 30 --seed 7``: leaves with 1 where anything was wrong."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from random import randrange

from torture.interrupt import Interrupted, raise_on_signals
from torture.provoke import PROVOCATIONS
from torture.report import as_markdown
from torture.torture import torture


def main() -> int:
    """Torture a stack and print the report; the record of a bad run is kept.

    SIGINT and SIGTERM end the run: its stack, its clients and its disk are removed, nothing is judged.
    """
    parser = argparse.ArgumentParser(prog="torture", description=torture.__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=None, help="decides what is asked and done (default: any)")
    parser.add_argument("--flips", type=int, default=3, help="bytes to flip at the end, each in another shard")
    parser.add_argument("--provoke", default=",".join(PROVOCATIONS), help="what to try at the end, comma-separated")
    parser.add_argument("--table", type=Path, help="write the figures here as tables in Markdown")
    options = parser.parse_args()
    seed = randrange(1 << 31) if options.seed is None else options.seed
    directory = Path(tempfile.mkdtemp(prefix="tq-torture-"))
    raise_on_signals()
    try:
        report = torture(
            directory, 60 * options.minutes, seed, lambda line: print(line, flush=True),
            flips=options.flips, fills_disk=True, provocations=[name for name in options.provoke.split(",") if name],
        )  # fmt: skip
    except Interrupted as interrupted:
        shutil.rmtree(directory)
        print(f"ended by {interrupted.signal.name}: the stack is removed, nothing was judged")
        return interrupted.status
    print(report)
    if options.table is not None:
        command = f"make torture MINUTES={options.minutes:g} SEED={seed} FLIPS={options.flips}"
        options.table.write_text(as_markdown(report, command))
    if report.passed:
        shutil.rmtree(directory)
    else:
        print(f"the record is in {directory}")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
