"""What makes a function a command, and how every command ends: what it prints, and its exit code.

Owns: ``--json``, which exit code an error has, how it is told. Must not know: what the commands do. A command returns a
``Result`` and leaves standard output to this file; what it says while it works goes to standard error. Two commands
show what goes on until they are ended: ``logs --follow``, and ``probe top`` where it draws.

Exit codes: 0 done, 1 refused or failed, 2 usage (an option, an argument or a setting that can't be used, a path
that is closed to this user), 3 the service can't be reached, or a part of it did not answer in time or says that it
can't do it at the moment (a full disk, say); ended by a signal 128 and its number. With ``--json`` a command that was
understood prints exactly one JSON value on standard output, which is ``{"error": {...}}`` where the exit code comes
from an error.
"""

from __future__ import annotations

import inspect
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn, TextIO, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand
from typer.exceptions import TyperException

from todomq.cli.exit_codes import BY_SIGNAL, DONE, REFUSED, UNREACHABLE, USAGE
from todomq.cli.show import coloured, is_terminal, json_text, safe, say
from todomq.errors import UNKNOWN, DeadlineExceeded, TodoMQError, Unavailable
from todomq.settings import SERVER_ADVICE, SettingsError, read_settings

EPILOG = """Exit codes: 0 done, 1 refused or failed, 2 usage, 3 the service can't be reached, or a part of it is late or
can't do it now.

Environment: TODOMQ_HOME names the stack, for clients also TODOMQ_ENDPOINT or TODOMQ_CREDENTIALS; todomq --help says
more.
"""

INTERRUPTS = (KeyboardInterrupt, SystemExit)
"""What ends a command from outside: Ctrl-C, and the other signals that ask for an end."""

F = TypeVar("F", bound="Callable[..., Result]")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead, for programs.", show_default=False)]


class PlainCommand(TyperCommand):
    """A command whose usage line is written as manual pages write it: ``LIST`` where typer writes ``{LIST}``.

    Its errors say in plain words that something is not a number. If a command line can't be understood and a word in it
    begins with ``-`` but is no option, the error says what to do.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the words behind the command's name."""
        words = args[: args.index("--")] if "--" in args else args[:]
        options = {option: param for param in self.params for option in (*param.opts, *param.secondary_opts)}
        try:
            return super().parse_args(ctx, args)
        except TyperException as error:
            error.message = error.message.replace("a valid int range", "a whole number")
            before = [None, *(options.get(word) for word in words)]
            unknown = [
                word
                for word, option in zip(words, before)
                if word[:1] == "-" and word != "-" and word.partition("=")[0] not in options
                if option is None or getattr(option, "is_flag", True)  # otherwise it is that option's value
            ]
            if any(param.name == "id" for param in self.params) and re.fullmatch(r"[^-].* -\d+", " ".join(words[:2])):
                error.message = f"{words[1]!r} is no id; todomq ls shows the ids"
            elif unknown and any(param.name in ("list_name", "title") for param in self.params):
                error.message += "\nA name or a title that begins with - goes after --, and so does all behind it."
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the pieces of the usage line behind the command's name."""
        pieces: list[str] = super().collect_usage_pieces(ctx)
        return [piece[1:-1] if piece.startswith("{") else piece for piece in pieces]


class Result(NamedTuple):
    """What a command has to say.

    Attributes:
        value: for programs; any value that ``json_text`` takes.
        text: for a person, safe already; or what prints it.
        code: the exit code.
        note: for a person, such as that there is nothing to print; on standard error, so no pipe takes it for data.
    """

    value: Any
    text: str | Callable[[], None]
    code: int = DONE
    note: str = ""


def command(app: typer.Typer, name: str | None = None, **options: Any) -> Callable[[F], F]:
    """Make a function a command of ``app``, with ``--json`` and with errors told as every command tells them.

    Args:
        app: the command line that it becomes a command of.
        name: the command's name, if it is not the function's.
        options: more for ``typer.Typer.command``.
    """

    def register(function: F) -> F:
        @wraps(function)
        def run(as_json: bool, **arguments: Any) -> None:
            raise typer.Exit(_run(partial(function, **arguments), as_json))

        hints = {**get_type_hints(function, include_extras=True), "as_json": Json}
        own = inspect.signature(function, eval_str=True).parameters.values()
        json_option = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json)
        run.__annotations__ = hints
        run.__signature__ = inspect.Signature([*own, json_option])  # type: ignore[attr-defined]
        app.command(name, cls=PlainCommand, epilog=EPILOG, **options)(run)
        return function

    return register


def exit_code(error: TodoMQError) -> int:
    """Return the exit code that stands for an error."""
    if isinstance(error, SettingsError):
        return USAGE
    return UNREACHABLE if isinstance(error, Unavailable | DeadlineExceeded) else REFUSED


def error_value(error: TodoMQError) -> dict[str, Any]:
    """Return an error as a value for programs."""
    return {"code": error.code, "text": error.text, "retryable": error.retryable, "outcome": error.outcome}


def _run(function: Callable[[], Result], as_json: bool) -> int:
    with _ending_in_order():
        return _run_to_its_end(function, as_json)


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Have SIGTERM, or the closing of the terminal, end the command as Ctrl-C does: it removes what is half done."""

    def end(number: int, _: Any) -> NoReturn:
        if number == signal.SIGHUP:
            _send_nowhere(*(stream for stream in (sys.stdout, sys.stderr) if stream and is_terminal(stream)))
        sys.exit(BY_SIGNAL + number)

    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    for number in numbers:  # a signal that is ignored, as under nohup, stays ignored
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _run_to_its_end(function: Callable[[], Result], as_json: bool) -> int:
    try:
        result = function()
    except TodoMQError as error:
        return _tell_error(error, as_json)
    except ModuleNotFoundError as error:
        if (error.name or "todomq").partition(".")[0] == "todomq":
            raise
        return _tell_error(SettingsError(f"this needs {error.name}; {SERVER_ADVICE}"), as_json)
    except BrokenPipeError:
        raise  # the reader has had enough; typer ends the command quietly
    except OSError as error:
        return _tell_error(_of_the_system(error), as_json)
    try:
        _print(result, as_json)
    except TodoMQError as error:
        return _tell_error(error, as_json)
    except BrokenPipeError:
        raise
    except OSError as error:
        _send_nowhere(sys.stdout)
        return _tell_error(TodoMQError(f"standard output: {error.strerror or error}"), as_json=False)
    return result.code


def _print(result: Result, as_json: bool) -> None:
    if as_json:
        say(json_text(result.value))
    elif callable(result.text):
        result.text()
    elif result.text:
        say(result.text)
    if result.note and not as_json:
        typer.echo(result.note, err=True)
    if sys.stdout is not None:
        sys.stdout.flush()


def _send_nowhere(*streams: TextIO | None) -> None:
    """Discard what can't be written, or the interpreter would try to write it again as it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        if stream is not None:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _of_the_system(error: OSError) -> TodoMQError:
    text = f"{error.filename or 'the system'}: {error.strerror or error}"
    try:
        home, path = read_settings().home, Path(str(error.filename))
    except SettingsError as unusable:
        return unusable
    is_above = home.is_relative_to(path)
    is_unusable = isinstance(error, PermissionError | NotADirectoryError) and (is_above or path.is_relative_to(home))
    if not is_unusable and not (is_above and isinstance(error, FileNotFoundError)):  # nothing can be made there
        return SettingsError(text) if isinstance(error, PermissionError | NotADirectoryError) else TodoMQError(text)
    advice = "run this as the stack's user, or set TODOMQ_HOME to a directory that you own"
    return SettingsError(f"{text}; {advice}")


def _tell_error(error: TodoMQError, as_json: bool) -> int:
    code = exit_code(error)
    if as_json:
        say(json_text({"error": error_value(error)}))
        return code
    typer.echo(f"{coloured('Error:', False)} {safe(error.text)}", err=True)
    if error.outcome == UNKNOWN:
        typer.echo("Whether the change has taken effect is not known; look before you try again.", err=True)
    if isinstance(error, DeadlineExceeded):
        typer.echo("todomq probe health names the part that does not answer.", err=True)
    sys.stderr.flush()
    return code
