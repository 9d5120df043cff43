"""What README, tutorial and how-tos tell people to type is typed here, in their order."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from advkit import registry
from advkit.cli import app
from advkit.cli.common import lazily

ROOT = Path(__file__).parents[1]
HOWTOS = sorted((ROOT / "docs" / "howto").glob("*.md"))
TYPED = (ROOT / "README.md", ROOT / "docs" / "tutorial.md", *HOWTOS)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """Return the code of a page, in order: (language, code)."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(language, code) for language, code in found if language in languages]


def script(page: Path) -> str:
    """Return a page's `sh` and `python` blocks as one script, which ends at the first failure."""
    parts = ["set -euo pipefail"]
    for language, code in blocks(page, "sh", "python"):
        parts.append(code if language == "sh" else f"python - <<'PAGE'\n{code}PAGE\n")
    return "\n".join(parts)


def commands(code: str) -> list[list[str]]:
    """Return each call of advkit in shell code, as words; loops count once, with their first word.

    >>> commands("for s in 0 1; do X=1 advkit train --seed $s > a; done # advkit no")
    [['advkit', 'train', '--seed', '0']]
    """
    for name, value in re.findall(r"\bfor (\w+) in (\S+?)[ ;]", code):
        code = code.replace(f"${name}", value)
    joined = re.sub(r"\\\n\s*", " ", code)
    calls = []
    for line in joined.splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="|;&<>()")
        words.whitespace_split = True
        call: list[str] | None = None
        skip = False
        for word in words:
            if skip:
                skip = False
            elif word in ("<", ">", ">>"):
                skip = True
            elif set(word) <= set("|;&()"):
                call = None
            elif word == "advkit" and call is None:
                calls.append(call := [word])
            elif call is not None:
                call.append(word)
    return calls


CALLS = [
    (page.name, words)
    for page in TYPED
    for _, code in blocks(page, "sh", "text")
    for words in commands(code)
]


def test_calls_are_found_on_every_page():
    assert {name for name, _ in CALLS} == {page.name for page in TYPED}
    assert len(CALLS) > 50


@pytest.mark.parametrize("words", [words for _, words in CALLS], ids=" ".join)
def test_a_call_parses(monkeypatch, words):
    """By the command line's own parser, also those that need data or a GPU (`text` blocks)."""
    if "--parts" in words or "--help" in words or "--version" in words:
        pytest.skip("reads files that the page makes, or ends by itself")
    performed = []
    monkeypatch.setattr(lazily, "perform", lambda *call: performed.append(call))
    program = app.build()
    program(words[1:], standalone_mode=False, prog_name="advkit")
    assert len(performed) == 1


def unmade(code: str) -> list[str]:
    """Return the run folders that shell code reads and no earlier line of it made.

    >>> unmade("advkit train --data digits --method at\\nls runs/digits-small-cnn-{at,adr}-s0/*.h5")
    ['runs/digits-small-cnn-adr-s0']
    """
    made: set[str] = set()
    missing = []
    for line in code.replace("\\\n", " ").splitlines():
        named = re.findall(r"\b(runs/[\w-]+)/", line)
        for before, choices, after in re.findall(r"\b(runs/[\w-]*)\{([\w,-]+)\}([\w-]*)", line):
            named += [f"{before}{choice}{after}" for choice in choices.split(",")]
        missing += [name for name in named if name not in made]
        for words in commands(line):
            if "-o" in words:
                made.add(words[words.index("-o") + 1])
            elif words[1] == "train" and "--method" in words and "--data" in words:
                method = words[words.index("--method") + 1]
                made.add(f"runs/{words[words.index('--data') + 1]}-small-cnn-{method}-s0")
    return missing


def test_the_readme_reads_only_runs_that_it_has_made():
    assert unmade("".join(code for _, code in blocks(ROOT / "README.md", "sh"))) == []


@pytest.mark.parametrize(
    "page", [*TYPED, *(ROOT / "docs").glob("*.md")], ids=lambda page: page.name
)
def test_a_folder_of_images_has_no_data_set_s_name(page):
    """`folder:photos` beside `--data photos` reads as if the two were one."""
    named = set(re.findall(r"\bfolder:([\w-]+)", page.read_text(encoding="utf-8")))
    assert named & registry.parts("data").keys() == set()


def checkout(place: Path) -> Path:
    """Copy what a fresh clone holds; its `.venv` leads to the packages that run this test."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    (place / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        if (Path(sys.prefix) / name).exists():
            (place / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (place / ".venv" / ".ready").touch()  # so that make installs nothing
    return place


def typed(code: str, place: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "ADVKIT_DATA"} | {
        "PATH": f"{place / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(place),
        "OMP_NUM_THREADS": "1",
        "SMOKE": "1",  # recipes, `make demo` among them, as a trial: tests/test_recipes.py has them
    }
    return subprocess.run(
        ["bash", "-c", code],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git here: an unpacked sdist")
@pytest.mark.parametrize("page", TYPED, ids=lambda page: page.name)
def test_a_page_is_right_to_the_letter(tmp_path, page):
    """In a fresh clone; `make test` alone, which would run this test, is only looked at."""
    code = re.sub(r"^make test\b", "make --dry-run test", script(page), flags=re.MULTILINE)
    done = typed(code, checkout(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
