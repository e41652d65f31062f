"""The shape of the source tree: who may import what, where the laws stand."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from todomq.daemons import KINDS

PACKAGE = Path(__file__).parents[2] / "services" / "todomq"
MODULES = sorted(PACKAGE.rglob("*.py"))
DAEMONS = [*KINDS, "supervision"]
IMPURE = {
    *(f"{daemon}/{module}.py" for daemon in DAEMONS for module in ("__main__", "service")),
    "registry/processes.py",
    "database_worker/checkpoints.py",
    "database_worker/shard.py",
    "database_worker/storage/rocksdb.py",
    "database_worker/words.py",
    "list_server/list_calls.py",
    "list_server/listing_queue.py",
    "list_server/ownership.py",
    "list_server/reading.py",
    "list_server/remains.py",
    "list_server/words.py",
    "list_server/worker_link.py",
    "router/answers.py",
    "router/door_keeper.py",
    "router/keyed_clients.py",
    "router/list_count.py",
    "router/named_links.py",
    "supervision/foreground.py",
    "supervision/manager.py",
    "supervision/stack.py",
}
"""The daemons' modules that deal with sockets, clocks, threads or what the runtime hands them; the others are pure."""
PURE_CORES = sorted(
    {
        *(str(module.relative_to(PACKAGE)) for daemon in DAEMONS for module in (PACKAGE / daemon).rglob("*.py")),
        "keys/rights.py", "client/session.py", "client/numbers.py", "client/greeting.py",
    } - IMPURE
)  # fmt: skip
MAPPED = [
    "list_server", "router", "database_worker", "registry", "runtime", "client", "cli", "supervision", "protocol",
    "keys", "backup",
]  # fmt: skip


def imports_of(module: Path) -> set[str]:
    """Return the dotted names of all modules that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def imports_any(module: Path, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for name in imports_of(module) for package in packages)


def test_only_the_runtime_and_the_client_import_zmq() -> None:
    importers = {module.relative_to(PACKAGE).parts[0] for module in MODULES if imports_any(module, "zmq")}
    assert importers == {"runtime", "client"}


def test_the_client_needs_no_daemon() -> None:
    daemons = [f"todomq.{daemon}" for daemon in DAEMONS]
    assert not [module for module in (PACKAGE / "client").glob("*.py") if imports_any(module, *daemons)]


@pytest.mark.parametrize("core", PURE_CORES)
def test_a_pure_core_has_no_sockets_no_clock_and_no_threads(core: str) -> None:
    impure = ("zmq", "socket", "time", "threading", "asyncio", "select", "todomq.runtime")
    assert not imports_any(PACKAGE / core, *impure)


@pytest.mark.parametrize("folder", MAPPED)
def test_a_folder_of_many_files_says_in_its_beginning_what_each_is_for(folder: str) -> None:
    beginning = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text()), clean=False) or ""
    named = {line.split()[0] for line in beginning.splitlines() if line.startswith("    ")}
    there = {path.stem for path in (PACKAGE / folder).iterdir() if path.suffix == ".py" or path.name == "storage"}
    assert named == there - {"__init__", "__main__"}


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_starts_without_what_it_does_not_need(daemon: str) -> None:
    heavy = ("typer", "rich", "asyncio", "todomq.client", "todomq.cli")
    program = f"import todomq.{daemon}.__main__, sys; print(*(name for name in {heavy!r} if name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


@pytest.mark.parametrize("law", range(1, 10))
def test_each_law_stands_at_the_top_of_a_file_that_keeps_it(law: int) -> None:
    tops = (ast.get_docstring(ast.parse(module.read_text())) or "" for module in MODULES)
    assert any(f"law {law}" in top.lower() for top in tops)


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(module) for module in MODULES if not ast.get_docstring(ast.parse(module.read_text()))]
    assert silent == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert not {module.stem for module in MODULES} & {"utils", "core", "common", "helpers", "misc"}


def supervisord_conf() -> configparser.RawConfigParser:
    written = configparser.RawConfigParser(inline_comment_prefixes=None)
    written.read(PACKAGE / "supervision" / "supervisord.conf")
    return written


def test_every_log_is_bounded_in_size_and_in_number() -> None:
    written = supervisord_conf()
    logs = [(section, key) for section in written.sections() for key in written[section] if key.endswith("logfile")]
    files = [(section, key) for section, key in logs if written[section][key] != "NONE"]
    assert {section.partition(":")[2] for section, _ in files} == {"", "supervision", *KINDS}
    for section, key in files:
        assert (written[section][f"{key}_maxbytes"], written[section][f"{key}_backups"]) == ("1MB", "2"), section


def test_supervisord_has_the_groups_of_the_table_in_the_order_of_the_start() -> None:
    written = supervisord_conf()
    groups = [section for section in written.sections() if section.startswith("group:")]
    groups.sort(key=lambda section: written.getint(section, "priority"))
    assert {written[group]["programs"]: group.removeprefix("group:") for group in groups} == {
        name: kind.group for name, kind in KINDS.items()
    }
    assert [written[group]["programs"] for group in groups] == list(KINDS)
    pooled = [name for name in KINDS if "numprocs" in written[f"program:{name}"]]
    assert pooled == [name for name, kind in KINDS.items() if kind.is_pooled]
