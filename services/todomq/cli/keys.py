"""``todomq keys``: who may come in over TCP, and what each may do.

Owns: the arguments and what a person is told. Must not know: how keys are stored, sockets. It works on the files of the
stack's home, so it runs on the stack's machine, as its user, whether the stack runs or not. It prints no secret.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from todomq.cli.command import Result, command
from todomq.cli.show import counted, safe, size
from todomq.errors import InvalidRequest, TodoMQError
from todomq.settings import read_settings

if TYPE_CHECKING:
    from todomq.keys.store import ClientKey, KeyStore

HELP = """Keys for clients that come over TCP.

They are files in TODOMQ_HOME/keys, so these commands run on the stack's machine. Once there are keys, TODOMQ_TCP lets
in nobody without one.
"""
SUFFIX = ".credentials"
NO_CLIENTS = "No key is let in; make one with: todomq keys new NAME --lists 'NAME/*' --endpoint tcp://HOST:PORT"

LISTS_HELP = "A list's name, or the beginning of names and then *. Repeat it for more."
RIGHTS_HELP = "read, write, both separated by a comma, or admin."
ENDPOINT_HELP = "tcp://HOST:PORT where the client reaches the router. [default: TODOMQ_TCP]"

KeyName = Annotated[str, typer.Argument(metavar="NAME", help="The key's name.")]


def complete_key(incomplete: str) -> list[str]:
    """Return the names of the keys that are let in, for the shell's completion; none if they can't be read."""
    try:
        return [client.name for client in _store().clients()]
    except (TodoMQError, OSError):
        return []


KnownKey = typer.Argument(metavar="NAME", help="The key's name.", show_default=False, autocompletion=complete_key)


def _limit(help: str) -> Any:
    return typer.Option(metavar="N", min=0, help=f"{help} 0: no limit.", show_default=False)


def make_app() -> typer.Typer:
    """Return the commands of ``todomq keys``."""
    app = typer.Typer(
        help=HELP, no_args_is_help=True, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]}
    )
    for function in (init, new, revoke, show):
        command(app)(function)
    command(app, "list")(list_keys)
    return app


def init() -> Result:
    """Make the stack's own pair of keys.

    A router that listens at TODOMQ_TCP asks for keys within a second. Otherwise set TODOMQ_TCP, then run: todomq down;
    todomq up

    Example: todomq keys init
    """
    from todomq.keys.store import KeyPair
    from todomq.runtime.curve import new_pair

    store = _store()
    pair = KeyPair(*new_pair())
    store.init(pair)
    tcp = read_settings().tcp
    text = (
        f"The keys of this stack are in {safe(str(store.directory))}\n"
        f"Next, a key for each client, and the stack started with TODOMQ_TCP{', which is set' if tcp else ''}:\n"
        "  todomq keys new alice --lists 'alice/*' --rights read,write --endpoint tcp://HOST:7447\n"
        f"  todomq down; {'' if tcp else 'TODOMQ_TCP=tcp://HOST:7447 '}todomq up"
    )
    return Result({"directory": str(store.directory), "server_public_key": pair.public}, text)


def new(
    name: KeyName,
    lists: Annotated[list[str] | None, typer.Option("--lists", "-l", metavar="PATTERN", help=LISTS_HELP)] = None,
    rights: Annotated[str, typer.Option("--rights", "-r", metavar="RIGHTS", help=RIGHTS_HELP)] = "read,write",
    endpoint: Annotated[str | None, typer.Option("--endpoint", "-e", metavar="ADDRESS", help=ENDPOINT_HELP)] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="The file to make. [default: NAME.credentials]")
    ] = None,
    in_flight: Annotated[int | None, _limit("Requests in flight.")] = None,
    bytes_in_flight: Annotated[int | None, _limit("Bytes of requests in flight.")] = None,
    per_second: Annotated[int | None, _limit("Requests a second.")] = None,
    connections: Annotated[int | None, _limit("Connections.")] = None,
    most_lists: Annotated[int | None, _limit("Stored lists that its patterns cover.")] = None,
    most_entries: Annotated[int | None, _limit("Entries in each list.")] = None,
) -> Result:
    """Let a client in, and make the file to hand to it.

    A running router lets it in at once. The file holds endpoint, server key, client key, and the only copy of the
    client's secret key.

    Example: todomq keys new alice --lists 'alice/*' --rights read,write --endpoint tcp://HOST:7447
    """
    from todomq.keys.credentials import Credentials, write_credentials
    from todomq.keys.rights import Rights
    from todomq.keys.store import ClientKey, Quota, check_client
    from todomq.runtime.curve import new_pair

    store = _store()
    server = store.server()
    where = _endpoint(endpoint)
    given = {
        "requests_in_flight": in_flight, "bytes_in_flight": bytes_in_flight, "requests_per_s": per_second,
        "connections": connections, "lists": most_lists, "entries_per_list": most_entries,
    }  # fmt: skip
    quota = Quota(**{field: value for field, value in given.items() if value is not None})
    public, secret = new_pair()
    wanted = [right.strip() for right in rights.split(",") if right.strip()]
    client = ClientKey(name, public, Rights(wanted, lists or []), quota)
    try:
        check_client(client)
    except InvalidRequest as error:
        raise typer.BadParameter(safe(error.text)) from None
    path = out or Path(f"{name}{SUFFIX}")
    write_credentials(path, Credentials(name, where, server.public, public, secret))
    try:
        store.add(client)
    except BaseException:  # refused, interrupted, or somebody else holds the lock: nobody would let this key in
        path.unlink()
        raise
    text = f"{_line(client)}\nHand over {safe(str(path))}; it holds the only copy of this key. {_use(path)}"
    return Result({**_value(client), "file": str(path), "endpoint": where}, text)


def list_keys() -> Result:
    """Show the keys that are let in.

    Example: todomq keys list
    """
    clients = _store().clients()
    text = "\n".join(_line(client) for client in clients) or NO_CLIENTS
    return Result([_value(client) for client in clients], text)


def revoke(name: Annotated[str, KnownKey]) -> Result:
    """Stop letting a key in. A running router cuts off its connections within a second.

    Example: todomq keys revoke alice
    """
    client = _store().revoke(name)
    return Result(_value(client), f"{safe(name)} is no longer let in")


def show(name: Annotated[str | None, KnownKey] = None) -> Result:
    """Show what a key may do, or the stack's public key. Without a name it also says where the stack listens.

    Example: todomq keys show alice
    """
    store = _store()
    if name is None:
        pair = store.server()
        tcp = read_settings().tcp
        value = {"directory": str(store.directory), "server_public_key": pair.public, "tcp": tcp or None}
        files = safe(str(store.directory))
        text = f"server key  {pair.public}\nfiles       {files}\nTODOMQ_TCP  {safe(tcp) or 'not set'}"
        return Result(value, text)
    for client in store.clients():
        if client.name == name:
            return Result(_value(client), _described(client))
    raise InvalidRequest(f"there is no key named {name!r:.80}; see: todomq keys list")


def _store() -> KeyStore:
    from todomq.keys.store import KeyStore

    return KeyStore(read_settings().keys)


def _endpoint(given: str | None) -> str:
    from todomq.protocol.addresses import is_address

    where = given or read_settings().tcp
    if not where:
        raise typer.BadParameter("where do clients reach the router? Set TODOMQ_TCP, or say --endpoint tcp://HOST:PORT")
    host = where.removeprefix("tcp://").rpartition(":")[0]
    if not where.startswith("tcp://") or not is_address(where) or host in ("0.0.0.0", "[::]", "*"):
        raise typer.BadParameter(f"{where!r:.100} is no address to connect to; say --endpoint tcp://HOST:PORT")
    return where


def _value(client: ClientKey) -> dict[str, Any]:
    from todomq.keys.store import client_value

    return client_value(client)


def _line(client: ClientKey) -> str:
    rights = ",".join(sorted(client.rights.rights))
    return f"{client.name:<20} {rights:<11} {' '.join(safe(each) for each in client.rights.patterns) or 'every list'}"


def _described(client: ClientKey) -> str:
    quota = client.quota
    return "\n".join(
        (
            f"name        {client.name}",
            f"public key  {client.public_key}",
            f"rights      {', '.join(sorted(client.rights.rights))}",
            f"lists       {'  '.join(safe(each) for each in client.rights.patterns) or 'every list'}",
            f"in flight   {_most(quota.requests_in_flight, 'request')}, "
            f"{size(quota.bytes_in_flight) if quota.bytes_in_flight else 'any number of bytes'}",
            f"per second  {_most(quota.requests_per_s, 'request')}",
            f"connections {_most(quota.connections, 'connection')}",
            f"stored      {_most(quota.lists, 'list')}, {_most(quota.entries_per_list, 'entry', 'entries')} in each",
        )
    )


def _most(count: int, noun: str, plural: str = "") -> str:
    return counted(count, noun, plural) if count else f"any number of {plural or noun + 's'}"


def _use(path: Path) -> str:
    typed = safe(shlex.quote(str(path)))
    return f"The client uses it with TODOMQ_CREDENTIALS={typed} or Client.from_file({str(path)!r})."
