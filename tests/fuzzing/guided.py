"""One target under atheris: ``python -m fuzzing.guided TARGET [libFuzzer's options and directories]``.

Owns: the instrumentation of the package, which must be in place before it is imported. Ends as libFuzzer ends: with 0
where nothing was found, else with the input that broke the target in a file.
"""

import sys

import atheris

with atheris.instrument_imports(include=["todomq"]):
    from fuzzing.targets import TARGETS


def main() -> None:
    """Fuzz the target that the command line names."""
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
