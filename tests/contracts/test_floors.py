"""Low floors know nothing of high ones, and nothing is ever unpickled."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import advkit

ROOT = Path(advkit.__file__).parent
FLOORS: tuple[set[str], ...] = (
    {"errors", "registry", "threat", "losses", "schedules", "modes", "seeding", "stats",
     "resampling", "reporting", "signals", "l1", "corruption", "ranks", "shards", "folding",
     "memory", "precision"},
    {"artifacts"},
    {"data", "models"},
    {"labels", "objectives", "attacks", "weights"},
    {"method", "config", "train", "learner", "run_files", "plan", "evaluate", "attack_plan",
     "attack_settings", "audit", "partial", "verdicts", "selection", "training_state",
     "run_folder", "analyses", "softlabels", "merging", "remarks",
     "soft_source", "settings", "search", "distributed",
     "bench", "bench_data", "bench_table", "projection"},
    {"cli", "__main__"},
)  # fmt: skip
FLOOR = {unit: floor for floor, units in enumerate(FLOORS) for unit in units}
FOLDERS = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()}
SOURCES = {path.relative_to(ROOT).with_suffix(""): path for path in sorted(ROOT.rglob("*.py"))}
TEXTS = {place: path.read_text(encoding="utf-8") for place, path in SOURCES.items()}
UNITS = sorted({place.parts[0] for place in SOURCES} - {"__init__"})


def imported(place: Path, tree: ast.Module) -> Iterator[str]:
    """Yield the unit of every advkit import, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ("advkit", *place.parent.parts)
            kept = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*kept, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            words = name.split(".")
            if words[0] == "advkit" and len(words) > 1 and words[1] != "__version__":
                yield words[1]


def violations(place: Path, source: str) -> list[str]:
    """Name every import of a file that the floors forbid."""
    mine = place.parts[0]
    found = []
    for other in imported(place, ast.parse(source)):
        if FLOOR[other] > FLOOR[mine]:
            found.append(f"{place} (floor {FLOOR[mine]}) imports {other} (floor {FLOOR[other]})")
        elif FLOOR[other] == FLOOR[mine] and other != mine and {other, mine} <= FOLDERS:
            found.append(f"{place} imports {other}, a folder on the same floor")
    return found


def test_every_module_is_on_a_floor():
    missing = [unit for unit in UNITS if unit not in FLOOR]
    assert missing == [], "on no floor: add it to FLOORS and to the architecture"


def test_no_file_imports_upwards_or_sideways():
    found = [violation for place, source in TEXTS.items() if place.parts != ("__init__",)
             for violation in violations(place, source)]  # fmt: skip
    assert found == []
    assert not list(imported(Path("__init__"), ast.parse(TEXTS[Path("__init__")])))


@pytest.mark.parametrize(
    ("place", "source", "allowed"),
    [
        ("losses", "from advkit.training.run import x", False),
        ("losses", "def f():\n    import advkit.data.idx", False),
        ("data/idx", "from .. import train", False),
        ("data/idx", "from advkit import cli", False),
        ("labels/adr", "from advkit.attacks.pgd import pgd", False),
        ("labels/adr", "from ..attacks import pgd", False),
        ("models/wrn", "from advkit.data import load", False),
        ("train", "from advkit.cli import app", False),
        ("data/idx", "from advkit.images.image_set import Images\nfrom ._split import first", True),
        (
            "train",
            "from advkit.training.selection import accuracies\nfrom advkit import data",
            True,
        ),
        ("losses", "from advkit import errors, __version__\nimport torch.train", True),
    ],
)
def test_the_rule_sees_what_it_should(place, source, allowed):
    assert (violations(Path(place), source) == []) is allowed


UNPICKLING = re.compile(
    r"\bpickle\.(load|loads|Unpickler)\b|\btorch\.load\b|\ballow_pickle\s*=\s*True"
)
BANNED = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def unpickles(source: str) -> bool:
    """Whether a file mentions or imports anything that unpickles."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    named = any(name.split(".")[0] in BANNED for name in names)
    loads = any(
        isinstance(node, ast.ImportFrom)
        and node.module in ("torch", "torch.serialization")
        and any(alias.name == "load" for alias in node.names)
        for node in nodes
    )
    return named or loads or UNPICKLING.search(source) is not None


def test_nothing_is_ever_unpickled():
    assert [str(place) for place, source in TEXTS.items() if unpickles(source)] == []
    assert len(TEXTS) > 100


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import torch\ntorch.load('x')",
        "from torch import load", "import numpy\nnumpy.load('x', allow_pickle = True)",
        "from joblib import load",
    ],
)  # fmt: skip
def test_the_search_finds_unpickling(source):
    assert unpickles(source)


HEAVY = {"torch", "torchvision", "numpy", "h5py", "scipy", "sklearn", "matplotlib", "PIL"}
LIGHT = (
    "errors registry threat schedules modes stats reporting signals ranks shards method config "
    "__main__"
)


def test_start_up_imports_nothing_heavy():
    """What `--help` needs: the light floors, the parts' names, and the top of the command line."""
    code = (
        "import importlib, sys\n"
        f"for name in {LIGHT.split()}: importlib.import_module('advkit.' + name)\n"
        "import advkit.cli.app\n"
        "from advkit import config, registry\n"
        "for folder in registry.CONTRACTS: registry.parts(folder)\n"
        f"print(sorted({HEAVY} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
