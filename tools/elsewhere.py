"""Run the default test suite as on other machines: `python tools/elsewhere.py [VARIANT...]`.

One line a variant, at the end a table; exit 1 if a test failed anywhere. What pytest printed lies
in build/elsewhere/VARIANT.log. Environments of other versions are made there on first use (5 GB
each, minutes) and kept.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "build" / "elsewhere"
SUITE = ("-m", "pytest", "-n", "2", "-m", "not slow and not faults", "-p", "no:cacheprovider")
BUSY = 4
"""Busy loops beside the suite: with its own two processes three for each of two cores."""


@dataclass(frozen=True)
class Variant:
    """One way in which another machine differs.

    `python` names the interpreter of an environment of its own, `floors` holds every dependency
    to its lowest version there.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    busy: int = 0
    python: str = ""
    floors: bool = False


VARIANTS = (
    Variant("here"),
    Variant("oldest-isa", {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}),
    Variant("two-threads", {"ADVKIT_TEST_THREADS": "2"}),
    *(Variant(f"seed-{seed}", {"ADVKIT_TEST_SEED": str(seed)}) for seed in (1, 2, 3)),
    Variant("busy", busy=BUSY),
    Variant("floors", python="python3", floors=True),
    Variant("newest", python="python3"),
    Variant("python-3.12", python="python3.12"),
    Variant("python-3.13", python="python3.13"),
)


def runs(python: str) -> bool:
    """Whether an interpreter is there and starts: a version manager's stand-in may not."""
    if shutil.which(python) is None:
        return False
    return subprocess.run([python, "--version"], capture_output=True, check=False).returncode == 0


def lowest() -> list[str]:
    """Return `NAME==VERSION` of every dependency's lowest version that pyproject.toml allows.

    Raises:
        ValueError: a dependency names no lowest version.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = []
    for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        bound = re.match(r"([\w-]+)>=([\d.]+)", line)
        if not bound:
            raise ValueError(f"pyproject.toml: {line} names no lowest version")
        found.append(f"{bound[1]}=={bound[2]}")
    return found


def interpreter(variant: Variant) -> Path:
    """Return the Python that runs a variant, in an environment made now if there is none.

    Raises:
        CalledProcessError: pip failed.
    """
    if not variant.python:
        return Path(sys.executable)
    folder = PLACE / variant.name
    python = folder / "bin" / "python"
    constraints = "\n".join(lowest() if variant.floors else [])
    wanted = folder / "constraints.txt"
    if not wanted.exists() or wanted.read_text(encoding="utf-8") != constraints:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([variant.python, "-m", "venv", str(folder)], check=True)
        file = PLACE / f"{variant.name}.txt"
        file.write_text(constraints, encoding="utf-8")
        install = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(file)]
        subprocess.run([*install, "--editable", f"{ROOT}[dev]"], check=True)
        file.rename(wanted)  # last: an environment that has it is whole
    return python


@contextmanager
def beside(count: int) -> Iterator[None]:
    """Keep so many processes busy."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def run(variant: Variant) -> str:
    """Run the suite in one variant; return pytest's last line, with the exit code if not 0."""
    python = interpreter(variant)
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, **variant.environment}
    log = PLACE / f"{variant.name}.log"
    with log.open("w", encoding="utf-8") as file, beside(variant.busy):
        done = subprocess.run(
            [str(python), *SUITE], cwd=ROOT, env=environment, stdout=file, stderr=file, check=False
        )
    last = log.read_text(encoding="utf-8").strip().rpartition("\n")[2]
    return last if done.returncode == 0 else f"{last} (exit {done.returncode}: {log})"


def main(names: list[str]) -> int:
    """Run the named variants, or all; return the exit code."""
    known = {variant.name: variant for variant in VARIANTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no such variant: {', '.join(unknown)} (of {', '.join(known)})", file=sys.stderr)
        return 2
    PLACE.mkdir(parents=True, exist_ok=True)
    rows, failed = [], False
    for variant in [known[name] for name in names] or VARIANTS:
        if variant.python and not runs(variant.python):
            rows.append((variant.name, "", f"not run: no {variant.python} on this machine"))
        else:
            began = time.monotonic()
            last = run(variant)
            failed |= "(exit " in last
            rows.append((variant.name, f"{time.monotonic() - began:.0f}", last))
        print(f"{rows[-1][0]}: {rows[-1][2]}", file=sys.stderr, flush=True)
    print("| variant | seconds | outcome |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
