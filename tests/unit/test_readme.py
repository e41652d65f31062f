"""What the README says of settings is what the settings are."""

from __future__ import annotations

import re
from pathlib import Path

from todomq.settings import VARIABLES

ROOT = Path(__file__).parents[2]


def test_every_setting_is_in_the_readme_and_no_other() -> None:
    said = set(re.findall(r"`(TODOMQ_[A-Z_]+)`", (ROOT / "README.md").read_text().split("## Settings")[1]))
    read = set(re.findall(r'"(TODOMQ_[A-Z_]+)"', (ROOT / "services/todomq/settings.py").read_text()))
    assert said - {"TODOMQ_MAX_RESTARTS_DATABASE", "TODOMQ_PYTHON"} == read == VARIABLES


def test_every_folder_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    for folder in (ROOT / "services/todomq").iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert f"  {folder.name}/" in text


def test_every_attack_that_the_security_page_names_is_a_test() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", page))
    written = set(re.findall(r"^def (test_\w+)", (ROOT / "tests/system/test_doors.py").read_text(), re.M))
    assert len(named) > 20 and named <= written
    assert all((ROOT / file).is_file() for file in files)
