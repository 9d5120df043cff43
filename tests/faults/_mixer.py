"""Run folders made of parts of three honest runs, some edited, and what the stages make of them.

Whatever a stage makes of such a folder must be a refusal before any step, or what it makes of one
honest run: never figures that no run has.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from advkit.artifacts import artifact, checkpoint
from advkit.config import resolve, stored
from advkit.errors import AdvkitError
from advkit.runtime import signals
from advkit.training import metrics_log
from advkit.training.learner import Learner
from advkit.training.run_folder import RunFolder
from tests.conftest import SEED, Outcome

NET = ["--data", "digits", "--epochs", "3", "--batch-size", "16", "--width", "2", "--threads", "1"]
RUNS = {
    "natural": ["--method", "natural", "--limit", "60", "--seed", str(SEED)],
    "seed": ["--method", "natural", "--limit", "60", "--seed", str(SEED + 1)],
    "method": ["--method", "adr-wa", "--attack-steps", "1", "--limit", "60", "--seed", str(SEED)],
    "limit": ["--method", "natural", "--limit", "80", "--seed", str(SEED)],
}
"""One run, and three that differ from it in one thing each."""
ATTACK = ["--attack", "fgsm", "--limit", "10", "--threads", "1", "-q"]
REFUSED = (3, 4)
STOPS = (2, 4, 7)
"""Looks for a signal at which a run is stopped: in its first epoch, at its end, in its second."""
WHERE = {"path", "run", "checkpoint", "seconds"}
"""What a record says of the place and the time, not of the work."""
Files = dict[str, bytes]


def command(*words: object) -> tuple[Outcome, int]:
    """Run a command line in this process; return its outcome and how many steps it trained."""
    from advkit.__main__ import main

    out, err, steps, learn = io.StringIO(), io.StringIO(), [], Learner.learn

    def counted(*arguments: Any) -> Any:
        steps.append(1)
        return learn(*arguments)

    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(Learner, "learn", counted),
        mock.patch.object(sys, "stdin", io.StringIO("")),
    ):
        code = main([str(word) for word in words])
    return Outcome(code, out.getvalue(), err.getvalue()), len(steps)


def files_of(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def figures(record: dict[str, Any]) -> str:
    """A record without what it says of place and time."""
    return json.dumps({k: v for k, v in record.items() if k not in WHERE}, sort_keys=True)


def content(folder: Path) -> dict[str, object]:
    """What a finished run says: digests of its checkpoints, and the log without its times."""
    said: dict[str, object] = {
        path.name: checkpoint.read_info(path)["digest"] for path in folder.glob("*.safetensors")
    }
    return {**said, "log": metrics_log.digest(RunFolder(folder).rows())}


# Edits


def flipped(raw: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(raw))
    return raw[:place] + bytes([raw[place] ^ 1 << draw.randrange(8)]) + raw[place + 1 :]


def digit(raw: bytes, draw: random.Random) -> bytes:
    """One digit of a text is another."""
    places = [place for place, byte in enumerate(raw) if chr(byte).isdigit()]
    place = draw.choice(places)
    return raw[:place] + str(draw.randrange(10)).encode() + raw[place + 1 :]


def line(raw: bytes, draw: random.Random) -> bytes:
    """A line of a text is gone, twice there, or somewhere else."""
    lines = raw.splitlines(keepends=True)
    taken = lines.pop(draw.randrange(len(lines)))
    places = draw.choice([[], [0], [len(lines)], [0, len(lines)]])
    for place in places:
        lines.insert(draw.randint(min(place, len(lines)), len(lines)), taken)
    return b"".join(lines)


BYTES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flip": flipped,
    "cut": lambda raw, draw: raw[: draw.randrange(len(raw))],
    "empty": lambda raw, draw: b"",
    "more": lambda raw, draw: raw + draw.randbytes(draw.randint(1, 40)),
}
TEXTS = {**BYTES, "digit": digit, "line": line}


class Mixer:
    """Three honest runs and one more, each whole and stopped at some step, and mixtures of them."""

    def __init__(self, folder: Path, stops: tuple[int, ...] = STOPS) -> None:
        self.folder, self.stops = folder, stops
        self.sources: dict[str, Files] = {}
        self.trained: dict[str, tuple[dict[str, object], str]] = {}
        """Settings → what the run of these settings says, and its record's figures."""
        self.attacked: dict[str, str] = {}
        """Digest of a checkpoint → figures of its logits' record."""
        self.tabled: dict[str, str] = {}
        """Digest of a logits file → figures of its table's record."""
        self.known: set[str] = set()
        """Digests of all honest files."""
        for name, words in RUNS.items():
            self._make(name, ["train", *words, *NET, "-q"])

    def _make(self, name: str, words: list[str]) -> None:
        # All have one name, which tables show.
        whole = self.folder / "honest" / name / "run"
        for step in self.stops:
            part = self.folder / "honest" / f"{name}-{step}" / "run"
            with mock.patch.object(signals, "pending", _after(step)):
                assert command(*words, "-o", part)[0].code == 143
            self.sources[part.parent.name] = files_of(part)
        done = command(*words, "-o", whole)[0]
        assert done.code == 0, done.err
        self.trained[_settings(whole)] = content(whole), figures(done.record)
        for path in sorted(whole.glob("*.safetensors")):
            done = command("attack", path, *ATTACK)[0]
            assert done.code == 0, done.err
            self.attacked[checkpoint.read_info(path)["digest"]] = figures(done.record)
        for part in (self.folder / "honest").glob(f"{name}-*"):  # a best net of an earlier epoch
            for path in part.glob("run/best*.safetensors"):
                done = command("attack", path, *ATTACK, "-o", part / "logits.h5", "--overwrite")[0]
                self.attacked[checkpoint.read_info(path)["digest"]] = figures(done.record)
                self.known.add(checkpoint.read_info(path)["digest"])
        for path in sorted(whole.glob("*.h5")):
            done = command("analyze", "table", path)[0]
            assert done.code == 0, done.err
            self.tabled[artifact.read_info(path)["digest"]] = figures(done.record)
        paths = [path for path in whole.iterdir() if path.suffix in (".safetensors", ".h5")]
        self.known |= {artifact.read_info(path)["digest"] for path in paths}
        self.sources[name] = files_of(whole)

    def mixed(self, number: int) -> tuple[Path, str]:
        """Make a folder; return it and what was done to it."""
        draw = random.Random(number)
        base = draw.choice([*self.sources])
        files, said = dict(self.sources[base]), [base]
        for name in sorted({name for source in self.sources.values() for name in source}):
            if draw.random() < 0.12:
                other = draw.choice([*self.sources])
                if name in self.sources[other]:
                    files[name] = self.sources[other][name]
                else:
                    files.pop(name, None)
                said.append(f"{name} of {other}")
        for _ in range(draw.choice([0, 0, 1, 1, 2])):
            name = draw.choice(sorted(files))
            edits = TEXTS if name.endswith((".toml", ".jsonl")) else BYTES
            what = draw.choice([*edits, "gone", "as"])
            said.append(f"{name} {what}")
            raw = files.pop(name)
            if what == "as":  # under the name of another file
                files[draw.choice([*files, "final.safetensors"])] = raw
            elif what != "gone" and raw:
                files[name] = edits[what](raw, draw)
        folder = self.folder / "mixed" / f"{number}" / "run"
        folder.mkdir(parents=True)
        for name, raw in files.items():
            (folder / name).write_bytes(raw)
        return folder, ", ".join(said)

    def problems(self, folder: Path, seen: Counter[str]) -> Iterator[str]:
        """Run the stages on a mixed folder; yield what is neither a refusal nor right."""
        for path in sorted(folder.iterdir()):
            if path.suffix in (".safetensors", ".h5"):
                yield from self._judged("inspect", command("inspect", path)[0], self._whole, seen)
        for path in sorted(folder.glob("*.h5")):
            done = command("analyze", "table", path)[0]
            yield from self._judged("table", done, self._tabled(path), seen)
        copy = shutil.copytree(folder, folder.with_name("attacked"))
        best = copy / "best.safetensors"
        done = command("attack", best, *ATTACK)[0]
        yield from self._judged("attack", done, self._attacked(best), seen)
        yield from self._resumed(folder, seen)
        shutil.rmtree(copy)

    def _judged(
        self, what: str, done: Outcome, right: Callable[[dict[str, Any]], bool], seen: Counter[str]
    ) -> Iterator[str]:
        if done.code in REFUSED and not done.out and len(done.err.splitlines()) == 1:
            seen[f"{what} refused"] += 1
        elif done.code == 0 and right(done.record):
            seen[f"{what} right"] += 1
        else:
            yield f"{what}: {done}"

    def _whole(self, record: dict[str, Any]) -> bool:
        return record["digest"] in self.known

    def _tabled(self, path: Path) -> Callable[[dict[str, Any]], bool]:
        return lambda record: figures(record) == self.tabled[artifact.read_info(path)["digest"]]

    def _attacked(self, path: Path) -> Callable[[dict[str, Any]], bool]:
        return lambda record: figures(record) == self.attacked[checkpoint.read_info(path)["digest"]]

    def _resumed(self, folder: Path, seen: Counter[str]) -> Iterator[str]:
        before = files_of(folder)
        begun = [name for name in before if name != "config.toml" and not name.endswith(".h5")]
        done, steps = command("train", "--resume", "-o", folder, "-q")
        if done.code in REFUSED and not done.out and len(done.err.splitlines()) == 1:
            seen["resume refused"] += 1
            if steps or files_of(folder) != before:
                yield f"resume: {steps} steps, or a file was touched: {done}"
        elif done.code == 2 and not begun:  # a configuration alone is no run
            seen["resume of no run"] += 1
        elif done.code == 0:
            seen["resume right"] += 1
            said, record = self._honest(folder)
            if content(folder) != said or figures(done.record) != record:
                yield f"resume: other figures than the honest run: {done}"
            if (folder / "state.safetensors").exists():
                yield "resume: a state is left"
        else:
            yield f"resume: {done}"

    def _honest(self, folder: Path) -> tuple[dict[str, object], str]:
        """Return what the run of a folder's configuration says that nobody disturbed."""
        settings = _settings(folder)
        if settings not in self.trained:
            fresh = folder.with_name("fresh")
            done = command("train", "--config", folder / "config.toml", "-o", fresh, "-q")[0]
            self.trained[settings] = content(fresh), figures(done.record)
        return self.trained[settings]


def _settings(folder: Path) -> str:
    try:
        settings = resolve.resolve((stored.read(folder / "config.toml"), "own")).settings
    except AdvkitError as error:
        return f"none: {error}"
    return json.dumps(settings.described(), sort_keys=True)


def _after(step: int) -> Callable[[], int | None]:
    """Ask for a stop at a look for one."""
    looks = []

    def pending() -> int | None:
        looks.append(1)
        return signal.SIGTERM if len(looks) >= step else None

    return pending


def campaign(folder: Path, count: int) -> tuple[Counter[str], list[str]]:
    """Judge so many mixed folders; return the counts and what went wrong."""
    mixer, seen, wrong = Mixer(folder), Counter[str](), []
    for number in range(count):
        mixed, said = mixer.mixed(number)
        for problem in mixer.problems(mixed, seen):
            wrong.append(f"{number} ({said}): {problem}")
            print(f"  {wrong[-1]}", file=sys.stderr, flush=True)
        shutil.rmtree(mixed.parent)
    return seen, wrong
