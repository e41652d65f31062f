"""What a user gets: the built packages, installed where there is no checkout."""

from __future__ import annotations

import email
import json
import os
import re
import select
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import todomq

ROOT = Path(__file__).parents[2]
IN_CI = bool(os.environ.get("CI"))
TIMEOUT_S = 120
CLIENT_ONLY = {"todomq", "pyzmq", "msgpack", "msgspec"}
BROUGHT_BY_PYTHON = {"pip", "setuptools"}

Finished = subprocess.CompletedProcess[str]


class Installation:
    """An empty environment outside the checkout, with a home for a stack."""

    def __init__(self, wheel: Path) -> None:
        self.wheel = wheel
        self.directory = Path(tempfile.mkdtemp(prefix="tq-", dir="/tmp"))  # short: socket paths have 107 bytes
        venv.create(self.directory / "venv", with_pip=False, symlinks=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TODOMQ_", "PYTHON"))}
        self.environment = {**kept, "TODOMQ_HOME": str(self.directory / "home"), "PATH": "/usr/bin:/bin"}

    def install(self, extra: str = "") -> None:
        """Install the wheel with an extra, such as ``[server]``, from wherever pip is configured to look."""
        command = [sys.executable, "-m", "pip", "--python", str(self.program("python")), "install", "--quiet"]
        constraints = ["--disable-pip-version-check", "--constraint", str(ROOT / "constraints.txt")]
        without_python_path = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        installed = subprocess.run(
            [*command, *constraints, f"{self.wheel}{extra}"],
            env=without_python_path,  # what lies there, pip would not install
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert installed.returncode == 0, installed.stderr

    def program(self, name: str) -> Path:
        """Return the path of a program of the environment."""
        return self.directory / "venv" / "bin" / name

    def run(self, name: str, *arguments: str, **variables: str) -> Finished:
        """Run a program of the environment to its end."""
        return subprocess.run(
            [str(self.program(name)), *arguments], cwd=self.directory, env={**self.environment, **variables},
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip

    def discard(self) -> None:
        """Stop its stack and remove it."""
        if (self.directory / "home").exists():
            self.run("todomq", "down")
        shutil.rmtree(self.directory)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the source distribution and the wheel that was built from it."""
    if IN_CI:
        return ROOT / "dist"
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(directory), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return directory


@pytest.fixture(scope="module")
def wheel(packages: Path) -> Path:
    (path,) = packages.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def client_only(wheel: Path) -> Iterator[Installation]:
    made = Installation(wheel)
    try:
        made.install()
        yield made
    finally:
        made.discard()


@pytest.fixture(scope="module")
def server(wheel: Path) -> Iterator[Installation]:
    made = Installation(wheel)
    try:
        made.install("[server]")
        yield made
    finally:
        made.discard()


@pytest.mark.skipif(not IN_CI, reason="the source tree is tested; make test CI=1 tests the wheel")
def test_what_is_tested_is_the_installed_wheel(wheel: Path) -> None:
    origin = json.loads(metadata.distribution("todomq").read_text("direct_url.json") or "{}")
    assert "archive_info" in origin and origin["url"].endswith(wheel.name), origin
    installed = Path(sysconfig.get_path("purelib")) / "todomq"
    assert Path(todomq.__file__) == installed / "__init__.py"
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("todomq/"):
                assert (installed.parent / name).read_bytes() == archive.read(name), name


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    source = ROOT / "services"
    wanted = {str(path.relative_to(source)) for path in (source / "todomq").rglob("*.py")}
    wanted |= {"todomq/py.typed", "todomq/supervision/supervisord.conf"}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert held == wanted
        assert all(archive.read(name) == (source / name).read_bytes() for name in held), "dist is not of this source"
        (about,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        said = email.message_from_bytes(archive.read(about))
        assert archive.read(f"{Path(about).parent}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert said["License-Expression"] == "MIT" and said["License-File"] == "LICENSE"
    needed = {Requirement(text).name for text in said.get_all("Requires-Dist", []) if "extra ==" not in text}
    assert needed | {"todomq"} == CLIENT_ONLY


def test_the_source_distribution_holds_what_building_and_testing_need(packages: Path) -> None:
    (path,) = packages.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert held >= {"LICENSE", "CHANGELOG.md", "README.md", "Makefile", "constraints.txt", "pyproject.toml", ".ci/run"}
    assert held >= {"docs/protocol.md", "examples/plain_req.py", "tests/system/test_package.py"}
    assert not [name for name in held if "node_modules" in name or name.endswith(".pyc")]


def test_the_client_is_installed_with_nothing_but_what_it_needs(client_only: Installation) -> None:
    program = "from importlib.metadata import distributions as d; print(*sorted(x.name for x in d()))"
    assert set(client_only.run("python", "-c", program).stdout.split()) == CLIENT_ONLY


def test_the_client_imports_neither_storage_nor_supervisor_nor_command_line(client_only: Installation) -> None:
    told = client_only.run("python", "-c", "from todomq import Client, errors; import sys; print(*sys.modules)")
    assert told.returncode == 0, told.stderr
    packages = {name.partition(".")[0] for name in told.stdout.split()}
    assert {"todomq", "zmq"} <= packages
    assert not packages & {"rocksdict", "supervisor", "typer", "rich"}


def test_the_command_says_what_to_install_where_only_the_client_is(client_only: Installation) -> None:
    for told in (client_only.run("todomq", "ls", "x"), client_only.run("python", "-m", "todomq")):
        assert (told.returncode, told.stdout) == (2, "")
        assert "pip install 'todomq[cli]'" in told.stderr and "pip install 'todomq[server]'" in told.stderr
        assert "Traceback" not in told.stderr


def test_a_server_from_the_wheel_serves_a_client_from_the_wheel(
    server: Installation, client_only: Installation
) -> None:
    assert server.run("todomq", "status").returncode == 3
    up = server.run("todomq", "up")
    assert up.returncode == 0, up.stderr
    assert f"{server.program('todomq')} add" in up.stdout  # it is not on PATH

    added = server.run("todomq", "add", "Bob's list", "dentist", "--date", "2026-12-01")
    assert added.returncode == 0, added.stderr
    program = "from todomq import Client\nwith Client() as todo: print(todo.todo_list(\"Bob's list\").entries())"
    read = client_only.run("python", "-c", program, TODOMQ_HOME=server.environment["TODOMQ_HOME"])
    assert "dentist" in read.stdout, read.stderr

    processes = json.loads(server.run("todomq", "status", "--json").stdout)["processes"]
    assert {process["state"] for process in processes} == {"RUNNING"}
    down = server.run("todomq", "down")
    assert down.returncode == 0 and "its data is in" in down.stdout
    assert server.run("todomq", "status").returncode == 3
    assert not [pid for pid in (process["pid"] for process in processes) if Path(f"/proc/{pid}").exists()]


def test_the_command_line_alone_says_what_a_stack_needs(wheel: Path) -> None:
    made = Installation(wheel)
    try:
        made.install("[cli]")
        told = made.run("todomq", "up")
        assert told.returncode == 2
        assert "supervisor and rocksdict" in told.stderr and "pip install 'todomq[server]'" in told.stderr
        assert "todomq up" in made.run("todomq", "ls", "x").stderr
        for words in (["verify"], ["verify", "."], ["restore", "."], ["backup", "new"]):
            told = made.run("todomq", *words)
            assert (told.returncode, told.stderr.count("\n")) == (2, 1), told.stderr
            assert "this needs rocksdict; install with: pip install 'todomq[server]'" in told.stderr
    finally:
        made.discard()


def test_every_installed_distribution_is_pinned_and_is_the_pinned_one() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pinned = dict(line.split("==") for line in lines)
    by_name = {canonicalize_name(name): version for name, version in pinned.items()}
    assert len(by_name) == len(lines)
    for found in metadata.distributions():
        name = canonicalize_name(found.name)
        if name not in {"todomq", *BROUGHT_BY_PYTHON}:
            assert by_name.get(name) == found.version, f"{name} {found.version} is installed"
    checked = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_every_dependency_that_is_named_is_pinned_and_explained() -> None:
    said = metadata.metadata("todomq").get_all("Requires-Dist") or []
    pinned = {canonicalize_name(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    page = (ROOT / "docs" / "dependencies.md").read_text()
    for name in {canonicalize_name(Requirement(text).name) for text in said} - {"todomq"}:
        assert name in pinned
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", page), f"docs/dependencies.md does not say why {name} is there"


@pytest.mark.parametrize("target", ["down", "status", "logs"])
def test_what_looks_after_a_stack_installs_nothing(tmp_path: Path, target: str) -> None:
    nowhere = tmp_path / "venv"
    made = subprocess.run(
        ["make", "-C", str(ROOT), target, f"VENV={nowhere}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert "start with: make up" in made.stdout
    assert (made.returncode == 0) is (target == "down")
    assert not nowhere.exists()


@pytest.mark.parametrize("module", ["supervisor.supervisord", "something.else"])
def test_a_stack_whose_environment_was_removed_is_not_said_not_to_run(tmp_path: Path, module: str) -> None:
    gone = tmp_path / "venv"
    home = {"TODOMQ_HOME": str(tmp_path / "home")}
    waits = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [f"{gone}/bin/python", "-c", waits, module],
        executable=sys.executable, env=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as left:  # fmt: skip
        try:
            assert left.stdout is not None and select.select([left.stdout], [], [], 60)[0]
            assert os.read(left.stdout.fileno(), 10) == b"\n"
            made = subprocess.run(
                ["make", "-C", str(ROOT), "down", f"VENV={gone}"],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
        finally:
            left.kill()
    if module == "something.else":
        assert made.returncode == 0 and "nothing of it runs" in made.stdout
        return
    assert made.returncode != 0 and "nothing of it runs" not in made.stdout
    assert f"at home in: {tmp_path / 'home'}\nFor each: make up, then make down" in made.stderr
