"""How much memory there is for lists, and what control groups say of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from todomq.list_server import memory_budget
from todomq.list_server.memory_budget import memory_bytes
from todomq.settings import read_settings

MACHINE = memory_bytes(Path("/nowhere"), Path("/nowhere"))
MIB = 1 << 20


def test_the_machine_has_what_the_kernel_says() -> None:
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))

    assert int(total.split()[1]) * 1024 == MACHINE


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("0::/stacks/mine", {"stacks/memory.max": "536870912", "stacks/mine/memory.max": "max"}, 512 * MIB),
        ("0::/stacks/mine", {"stacks/memory.max": "536870912", "stacks/mine/memory.max": "268435456"}, 256 * MIB),
        ("0::/", {"memory.max": "536870912"}, 512 * MIB),  # in a container
        ("0::/", {}, MACHINE),
        ("4:cpu,memory:/a\n1:cpu:/b\n0::/", {"memory/a/memory.limit_in_bytes": "536870912"}, 512 * MIB),
        ("4:memory:/not/seen/here", {"memory/memory.limit_in_bytes": "536870912"}, 512 * MIB),
        ("4:memory:/", {"memory/memory.limit_in_bytes": "9223372036854771712"}, MACHINE),  # version 1 has no "max"
        ("4:cpu:/a", {"a/memory.max": "536870912"}, MACHINE),
        ("0::/", {"memory.max": "4096"}, 64 * MIB),
    ],
)
def test_the_smallest_limit_of_the_groups_that_a_process_is_in_counts(
    tmp_path: Path, own: str, limits: dict[str, str], expected: int
) -> None:
    (tmp_path / "own").write_text(own + "\n")
    for name, limit in limits.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(limit + "\n")

    assert memory_bytes(tmp_path / "groups", tmp_path / "own") == expected


@pytest.mark.parametrize(
    ("machine", "servers", "expected"),
    [(24 << 30, 2, 4 << 30), (2 << 30, 2, 512 * MIB), (2 << 30, 4, 256 * MIB), (1 << 40, 64, 4 << 30)],
)
def test_lists_get_half_of_the_memory_unless_a_setting_says_otherwise(
    machine: int, servers: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_budget, "memory_bytes", lambda: machine)
    environment = {"TODOMQ_HOME": "/tmp/h", "TODOMQ_LIST_SERVERS": str(servers)}

    assert memory_budget.memory_budget(read_settings(environment)) == expected
    assert memory_budget.memory_budget(read_settings({**environment, "TODOMQ_LIST_MEMORY_BYTES": "1048576"})) == MIB
