"""Commands that are disturbed, killed or stopped, and what came of them: parts of `campaign`."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

from advkit.artifacts import artifact, checkpoint
from advkit.errors import AdvkitError
from tests.faults._runs import NET, Server, contents, digest, litter

Figures = dict[str, Any]


class Campaign:
    """The inputs that parts share, made when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = Server(folder / "streams")

    def made(self, name: str, *words: object) -> Path:
        """Return a file or folder that a command makes, once."""
        path = self.folder / name
        if not path.exists():
            done = self.server.run(*words, "-o", name, "-q", cwd=self.folder, timeout=600)
            assert done.code == 0, done.err
        return path

    @property
    def teacher(self) -> Path:
        """A checkpoint of natural training."""
        return self.made("teacher", "pretrain-teacher", *NET, "--epochs", 8) / "best.safetensors"

    @property
    def labels(self) -> Path:
        """Its logits."""
        return self.made("labels.h5", "softlabels", self.teacher, "--views", 2)

    @property
    def logits(self) -> Path:
        """Its verdicts."""
        return self.made("logits.h5", "attack", self.teacher, "--attack", "pgd", "--limit", 40)


# Commands that are killed: what they are, what comes of them, and how they go on.


def training(campaign: Campaign, method: str) -> list[object]:
    soft = ["--soft-labels", campaign.labels] if method == "ltd" else []
    return ["train", "--method", method, *NET, "--epochs", 10, "--attack-steps", 5, *soft]


def stage(campaign: Campaign, name: str) -> tuple[list[object], list[object], Figures]:
    """Return a command's words, the words it needs more to go on, and its plan."""
    if name == "softlabels":  # many small parts
        plan = {"set": {"advkit.softlabels.labelling.PART_BYTES": 65536}}
        return ["softlabels", campaign.teacher, "--views", "all", "-q"], [], plan
    if name == "attack":
        words = ["--autoattack", "--eps", "0.1", "--limit", 12, "--batch-size", 4, "-q"]
        return ["attack", campaign.teacher, *words], [], {}
    if name == "search":
        words = ["--grid", "1,5", "--refine", 1, "--threshold", "0.01", "--epochs", 2]
        return ["search", "temperature", campaign.labels, *words, *NET[2:]], [], {}
    return training(campaign, name), ["--resume"], {}


def output(name: str) -> str:
    return "out.h5" if name in ("softlabels", "attack") else "out"


def found(path: Path) -> Any:
    return contents(path) if path.is_dir() else digest(path)


def readable(folder: Path) -> bool:
    """Whether every file under a final name is whole."""
    for path in folder.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            if path.parent.name.endswith(".parts"):
                checkpoint.read(path, "part")
            elif path.name == "state.safetensors":
                checkpoint.read(path, "state")
            elif ".part" in path.name:
                checkpoint.read(path, "partial")
            elif path.suffix in (".safetensors", ".h5"):
                artifact.read_info(path)
        except AdvkitError as error:
            print(f"  {error}", file=sys.stderr)
            return False
    return True


class Trials:
    """A command that is disturbed again and again, and what came of it."""

    def __init__(self, campaign: Campaign, name: str) -> None:
        self.server, self.name = campaign.server, name
        self.words, self.more, self.plan = stage(campaign, name)
        self.folder = campaign.folder / f"trials-{name}"
        self.reference = self.folder / "whole"
        self.reference.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        done = self._start(self.reference).end(600)
        assert done.code == 0, done.err
        self.seconds = time.monotonic() - began
        self.expected = found(self.reference / output(name))
        self.losses: list[str] = []
        self.disturbed = 0

    def _start(self, cwd: Path, *more: object, **plan: Any) -> Any:
        words = [*self.words, *more, "-o", output(self.name)]
        return self.server.start(*words, cwd=cwd, **{**self.plan, **plan})

    def trial(self, moment: float | None, signum: int, **plan: Any) -> tuple[int, float]:
        """Disturb one run at a moment or where a plan says; return its code and how long it took.

        Whatever came of it goes on and is compared.
        """
        cwd = self.folder / "trial"
        shutil.rmtree(cwd, ignore_errors=True)
        cwd.mkdir()
        run = self._start(cwd, **plan)
        sent = time.monotonic()
        if moment is not None:
            time.sleep(moment)
            run.send(signum)
            sent = time.monotonic()
        ended = run.end(600)
        took = time.monotonic() - sent
        if ended.code != 0:
            self.disturbed += 1
            self._judge(cwd, f"{moment} {plan}")
        return ended.code, took

    def _judge(self, cwd: Path, what: str) -> None:
        """Go on and compare; note what is lost."""
        whole = readable(cwd)
        again = self._start(cwd, *self.more).end(600)
        place = cwd / output(self.name)
        same = again.code == 0 and found(place) == self.expected
        if not (whole and same and litter(cwd) == []):
            self.losses.append(f"{what}: {whole} {again.code} {again.err} {litter(cwd)}")
            print(f"  LOSS {self.losses[-1]}", file=sys.stderr)
