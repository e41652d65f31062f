"""Judges a history that was kept: ``PYTHONPATH=tests python -m checking FILE``. Leaves with 1 where it is not good."""

import sys
from pathlib import Path

from checking.checker import check
from checking.history import load

if __name__ == "__main__":
    report = check(load(Path(sys.argv[1])))
    print(report)
    sys.exit(0 if report.passed else 1)
