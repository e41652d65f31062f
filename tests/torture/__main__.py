"""``PYTHONPATH=tests:tests/system python -m torture --minutes 30 --seed 7``: leaves with 1 where anything was wrong."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from random import randrange

from torture.report import as_markdown
from torture.torture import torture


def main() -> int:
    """Torture a stack and print the report; the record of a bad run is kept."""
    parser = argparse.ArgumentParser(prog="torture", description=torture.__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=None, help="decides what is asked and done (default: any)")
    parser.add_argument("--flips", type=int, default=0, help="bytes to flip at the end, each in another shard")
    parser.add_argument("--table", type=Path, help="write the figures here as docs/reliability.md has them")
    options = parser.parse_args()
    seed = randrange(1 << 31) if options.seed is None else options.seed
    directory = Path(tempfile.mkdtemp(prefix="tq-torture-"))
    report = torture(
        directory, 60 * options.minutes, seed, lambda line: print(line, flush=True),
        flips=options.flips, fills_disk=True,
    )  # fmt: skip
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
