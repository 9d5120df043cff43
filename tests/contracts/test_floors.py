"""Low floors know nothing of high ones, rooms show a face, and nothing is ever unpickled."""

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
    {"errors"},
    {"runtime", "parallel", "weights"},
    {"formulas", "artifacts", "images"},
    {"options", "objectives", "labels", "augment"},
    {"registry"},
    {"models", "config", "data"},
    {"attacks", "softlabels"},
    {"evaluation", "training"},
    {"analyses", "search", "bench", "doors", "contracts"},
    {"api"},
    {"cli"},
    {"__main__"},
)
"""The rooms, from the ground up: imports lead down; rooms of one floor do not know each other."""
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
SOURCES = {path.relative_to(ROOT).with_suffix(""): path for path in sorted(ROOT.rglob("*.py"))}
TEXTS = {place: path.read_text(encoding="utf-8") for place, path in SOURCES.items()}
ROOMS = sorted({place.parts[0] for place in SOURCES} - {"__init__"})


def imported(place: Path, source: str) -> Iterator[tuple[str, ...]]:
    """Yield the names of every import from another room, those inside functions too.

    `from advkit.images.batches import Batches` is ("images", "batches", "Batches").
    """
    for node in ast.walk(ast.parse(source)):
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
            top, *words = name.split(".")
            if top == "advkit" and words and words[0] not in ("__version__", place.parts[0]):
                yield tuple(words)


def face(room: str) -> set[str]:
    """Return what a room says that others may use: `__all__` of its `__init__`, without import."""
    tree = ast.parse(TEXTS.get(Path(room, "__init__"), ""))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


FACES = {room: face(room) for room in ROOMS if Path(room, "__init__") in SOURCES}


def breaches(place: Path, source: str) -> list[str]:
    """Name every import of a file that the floors or the faces forbid."""
    mine = place.parts[0]
    found = []
    for room, *rest in imported(place, source):
        if room not in FLOOR:
            found.append(f"{place} imports {room}, which is no room")
            continue
        if FLOOR[room] >= FLOOR[mine]:
            found.append(f"{place} (floor {FLOOR[mine]}) imports {room} (floor {FLOOR[room]})")
        if room in FACES and rest and rest[0] not in FACES[room]:
            found.append(f"{place} imports {room}.{rest[0]}, which is not in {room}'s __all__")
        if any(word.startswith("_") for word in rest):
            found.append(f"{place} imports {room}'s private {'.'.join(rest)}")
    return found


def test_every_room_is_on_a_floor():
    missing = [room for room in ROOMS if room not in FLOOR]
    assert missing == [], "on no floor: add it to FLOORS and to the architecture"


def test_no_file_imports_upwards_or_sideways_or_behind_a_face():
    found = [breach for place, source in TEXTS.items() if place.parts != ("__init__",)
             for breach in breaches(place, source)]  # fmt: skip
    assert found == []
    doors = {words[0] for words in imported(Path("__init__"), TEXTS[Path("__init__")])}
    assert doors == {"api"}, "the package itself shows the public functions, and loads them late"


def test_a_face_shows_what_is_there():
    """Each name is a module of the room, or is bound in its `__init__`."""
    missing = []
    for room, names in FACES.items():
        bound = {
            name for node in ast.walk(ast.parse(TEXTS[Path(room, "__init__")]))
            for name in (
                [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef)
                else [alias.asname or alias.name for alias in node.names]
                if isinstance(node, ast.ImportFrom)
                else [ast.unparse(target) for target in node.targets]
                if isinstance(node, ast.Assign) else []
            )
        }  # fmt: skip
        modules = {place.parts[1] for place in SOURCES if place.parts[0] == room}
        missing += [f"{room}.{name}" for name in sorted(names - bound - modules)]
    assert missing == []


@pytest.mark.parametrize(
    ("place", "source", "allowed"),
    [
        ("formulas/losses", "from advkit.training.run import x", False),
        ("formulas/losses", "def f():\n    import advkit.data.idx", False),
        ("data/idx", "from .. import training", False),
        ("data/idx", "from advkit import cli", False),
        ("labels/adr", "from advkit.objectives import Given", False),
        ("labels/adr", "from ..objectives import Given", False),
        ("models/wrn", "from advkit.data import load", False),
        ("training/run", "from advkit.cli import app", False),
        ("training/run", "from advkit.evaluation import run", False),
        ("training/run", "from advkit.losses import kl", False),
        ("training/run", "from advkit.models import _blocks", False),
        ("training/run", "from advkit.models._blocks import Net", False),
        ("training/run", "from advkit.models.wrn import build", False),
        ("training/run", "from advkit.images.batches import _moved", False),
        ("data/idx", "from advkit.images.image_set import Images\nfrom ._mat import read", True),
        ("training/run", "from advkit.images.split import first\nfrom advkit import data", True),
        ("formulas/losses", "from advkit import errors, __version__\nimport torch.train", True),
    ],
)
def test_the_rule_sees_what_it_should(place, source, allowed):
    assert (breaches(Path(place), source) == []) is allowed


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
    """But for a foreign file's plain data, by `advkit import`, in a process of its own."""
    there = [str(place) for place, source in TEXTS.items() if unpickles(source)]
    assert there == ["doors/unpickling"]
    assert len(TEXTS) > 100


def test_what_is_unpickled_is_data_alone():
    source = TEXTS[Path("doors/unpickling")]
    calls = [ast.unparse(node) for node in ast.walk(ast.parse(source))
             if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"]  # fmt: skip
    assert len(calls) == 1
    assert "weights_only=True" in calls[0]
    assert not unpickles(source.replace("torch.load(", "read(").replace("`torch.load`", ""))
    assert [str(place) for place in SOURCES if "unpickling" in TEXTS[place]
            and place.parts[0] != "doors"] == []  # fmt: skip


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
    "errors options registry formulas.threat formulas.schedules formulas.stats runtime.modes "
    "runtime.reporting runtime.progress runtime.signals parallel.ranks parallel.shards "
    "config.methods config.resolve config.machine evaluation.options softlabels.options "
    "training.options analyses.running.options __main__"
)


def test_start_up_imports_nothing_heavy():
    """What `--help` needs: the light floors, the parts' names, and the top of the command line."""
    code = (
        "import importlib, sys\n"
        f"for name in {LIGHT.split()}: importlib.import_module('advkit.' + name)\n"
        "import advkit, advkit.cli.app\n"
        "dir(advkit), advkit.__version__\n"
        "from advkit import registry\n"
        "for folder in registry.CONTRACTS: registry.parts(folder)\n"
        f"print(sorted({HEAVY} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
