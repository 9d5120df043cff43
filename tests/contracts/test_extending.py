"""docs/extending.md followed to the letter in a copy of the package, and parts that break it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import advkit

PACKAGE = Path(advkit.__file__).parent
PAGE = (PACKAGE.parent / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"`(mine/\w+/\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a copy of the package, and beside it the four files of the page."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, root / "advkit", ignore=shutil.ignore_patterns("__pycache__"))
    bin_ = root / "bin"
    bin_.mkdir()
    (bin_ / "advkit").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m advkit "$@"\n')
    (bin_ / "advkit").chmod(0o755)
    for name, code in EXAMPLES:
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(code, encoding="utf-8")
    return root


def shell(place: Path, command: str) -> subprocess.CompletedProcess:
    environment = os.environ | {
        "PYTHONPATH": str(place),
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "200",
    }
    return subprocess.run(
        ["bash", "-ec", command], cwd=place, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_the_page_shows_four_files_each_with_its_commands():
    names = ["mine/labels/halved.py", "mine/augment/stripe.py", "mine/objectives/both.py"]
    assert [name for name, _ in EXAMPLES] == [*names, "mine/analyses/confidence.py"]
    assert len(COMMANDS) == len(EXAMPLES)


@pytest.mark.slow
def test_the_page_is_right_to_the_letter(place):
    """Its commands, in its order; the runs are the digits' own, so that they take seconds."""
    done = shell(place, "\n".join(COMMANDS))
    assert done.returncode == 0, done.stderr
    assert "halved: Half the probability on the true class" in done.stdout
    records = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    kinds = [record["kind"] for record in records]
    assert kinds == ["checkpoint"] * 3 + ["logits"] * 2 + ["analysis"] * 2
    for record in records[-2:]:
        assert 0 < record["adversarial_confidence"] <= 1
        assert 0 < record["clean_confidence"] <= 1


MISDECLARED = EXAMPLES[0][1].replace("share", "zeal").replace("LIMITS", "LIMIT")
LINE = MISDECLARED.splitlines().index('LIMIT = {"zeal": "[0, 1]"}') + 1


@pytest.fixture
def broken(place):
    """Put one more label source into the copy for one test."""
    path = place / "advkit" / "labels" / "broken.py"
    yield path
    path.unlink()


TORN = '"""Help."""\n\ndef targets(batch,\n'


@pytest.mark.parametrize(
    ("source", "line", "command"),
    [
        pytest.param(TORN, 3, "train --data digits --labels broken --objective at", id="torn"),
        pytest.param(TORN, 3, "train --config file.toml", id="torn, in a file"),
        pytest.param(
            MISDECLARED,
            LINE,
            "train --data digits --labels broken --objective at --zeal 0.5",
            id="misdeclared",
        ),
        pytest.param(
            MISDECLARED, LINE, "train --data digits --zeal 0.5", id="misdeclared, its option alone"
        ),
    ],
)
def test_a_broken_part_is_exit_2_with_file_and_line(place, broken, source, line, command):
    """Also when one of its options was given, which nobody knows then."""
    broken.write_text(source, encoding="utf-8")
    (place / "file.toml").write_text('data = "digits"\nzeal = 0.5\n')
    done = shell(place, f"advkit {command}")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert f"{broken} is not a proper part: line {line}: " in done.stderr


def test_a_broken_part_leaves_the_others_alone(place, broken):
    broken.write_text("def targets(\n", encoding="utf-8")
    done = shell(
        place,
        "advkit train --parts mine --data digits --objective at --labels halved --print-config",
    )
    assert done.returncode == 0, done.stderr
    assert "share = 0.5" in done.stdout
