"""The full counts of the fault table: `make fault-campaign`, or a part with PARTS="flips same".

Each part replaces its own entry of `docs/fault-campaign.json`. A trial is a *loss* if what is
left after a kill cannot be read, or the run that goes on does not end in the very bytes of one
that nobody disturbed, or litter stays. A *silent change* is a damaged file that is read without
an error and says something else.
"""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import safetensors
import torch

from advkit import __version__
from advkit.artifacts import artifact, checkpoint, hdf5, soft_labels
from advkit.errors import AdvkitError
from tests.faults import _mixer
from tests.faults._pairs import STAGES, started, words
from tests.faults._planted import PLANTED, bad, finite
from tests.faults._runs import NET, ROOT, Server, contents, digest, litter
from tests.faults._same import CHAIN

SUMMARY = ROOT / "docs" / "fault-campaign.json"
PAGE = ROOT / "docs" / "reliability.md"
KILLS, SIGNALS, FLIPS, HDF5_CASES, MIXED, PAIRS = 50, 50, 4000, 1200, 300, 200
SOON = 5.0
"""Seconds within which a stopped run has to be saved."""
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


def kills(name: str) -> Callable[[Campaign], Figures]:
    """Kill a command at random times, 50 kills, and go on each time."""

    def part(campaign: Campaign) -> Figures:
        trials, draw = Trials(campaign, name), random.Random(name)
        early = 0
        while trials.disturbed < KILLS:
            code, _ = trials.trial(draw.uniform(0, trials.seconds), signal.SIGKILL)
            early += code == 0
            assert code in (0, -signal.SIGKILL), code
        return {"trials": trials.disturbed, "losses": len(trials.losses), "ended_before": early}

    return part


POINTS = ("temporary", "fsync", "rename", "renamed", "unlink", "line", "step")


def points(name: str) -> Callable[[Campaign], Figures]:
    """Kill a command at every call of every named point."""

    def part(campaign: Campaign) -> Figures:
        trials, counts = Trials(campaign, name), {}
        for point in POINTS:
            for call in range(1, 1000):
                code, _ = trials.trial(None, 0, kill=[point, call])
                if code == 0:
                    counts[point] = call - 1
                    break
                assert code == -signal.SIGKILL, code
        return {"trials": trials.disturbed, "losses": len(trials.losses), "points": counts}

    return part


def stops(name: str, signum: int) -> Callable[[Campaign], Figures]:
    """Stop a command by a signal at random times; measure how long its saving takes."""

    def part(campaign: Campaign) -> Figures:
        trials, draw = Trials(campaign, name), random.Random(name)
        slowest, late, wrong, ignored = 0.0, 0, 0, 0
        while trials.disturbed < SIGNALS:
            code, took = trials.trial(draw.uniform(0.05, trials.seconds), signum)
            ignored += code == 0 and took > 0.3 * trials.seconds + 0.5  # it was long before its end
            if code != 0:
                slowest = max(slowest, took)
                late += took > SOON
                wrong += code not in (128 + signum, -signum)
        losses = len(trials.losses) + late + wrong + ignored
        return {"trials": trials.disturbed, "losses": losses, "slowest_save": round(slowest, 3)}

    return part


def digits(campaign: Campaign) -> Figures:
    """Stop a run on all digits at its default size, mid-epoch; measure how long saving takes."""
    words = ["train", "--data", "digits", "--method", "adr-wa", "--epochs", "3", "-q"]
    slowest, losses, draw = 0.0, 0, random.Random(5)
    for number, signum in enumerate([signal.SIGTERM, signal.SIGUSR1] * 5):
        cwd = campaign.folder / f"digits{number}"
        cwd.mkdir()
        run = campaign.server.start(*words, "-o", "out", cwd=cwd)
        until = time.monotonic() + 120
        while not (cwd / "out" / "state.safetensors").exists() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 1))
        run.send(signum)
        sent = time.monotonic()
        ended = run.end()
        slowest = max(slowest, time.monotonic() - sent)
        losses += ended.code != 128 + signum
    return {"trials": 10, "losses": losses + (slowest > SOON), "slowest_save": round(slowest, 3)}


# Two at once


def pairs(name: str) -> Callable[[Campaign], Figures]:
    """Start a command twice at the same moment, on two names of one output.

    A loss is a pair of which not one worked and one was told that the output is held, or whose
    files are not those of one run that was alone.
    """

    def part(campaign: Campaign) -> Figures:
        command, place = words(name, campaign.teacher, campaign.labels, campaign.logits)
        alone = campaign.folder / "alone"
        alone.mkdir()
        assert campaign.server.run(*command, "-o", place, cwd=alone, timeout=600).code == 0
        expected, draw, losses, won = contents(alone), random.Random(name), 0, 0
        for number in range(PAIRS):
            cwd = campaign.folder / f"pair{number}"
            both = started(campaign.server, command, place, cwd, draw)
            codes = [outcome.code for outcome in both]
            whole = contents(cwd / "real") == expected and litter(cwd) == []
            if sorted(codes) != [0, 7] or not whole:
                losses += 1
                print(f"  LOSS {whole} {both}", file=sys.stderr)
            won += codes[0] == 0
            shutil.rmtree(cwd)
        return {"trials": PAIRS, "losses": losses, "won_by_the_first": won}

    return part


# Damage


def content(path: Path) -> Any:
    """All that a file says: its description and the bits of its arrays."""
    if path.suffix == ".safetensors":
        tensors, info = checkpoint.read(path)
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    else:
        if "logits" in path.name:
            read = hdf5.read_logits(path)
            names = ("index", "labels", "clean", "adversarial", "norm", "broken_by")
        else:
            read = soft_labels.read(path)  # type: ignore[assignment]
            names = ("index", "labels", "logits", "views")
        arrays = {name: np.asarray(getattr(read, name)) for name in names}
        info = dict(read.info)
    said = {n: (a.dtype.str, a.shape, np.ascontiguousarray(a).tobytes()) for n, a in arrays.items()}
    return json.dumps(info, sort_keys=True), said


def damaged(raw: bytes, flips: int, cuts: int) -> Iterator[bytes]:
    draw = random.Random(0)
    for _ in range(flips):
        changed = bytearray(raw)
        changed[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        yield bytes(changed)
    lengths = range(len(raw)) if cuts >= len(raw) else sorted(draw.sample(range(len(raw)), cuts))
    for length in lengths:
        yield raw[:length]


def damage(source: Callable[[Campaign], Path], flips: int, cuts: int | None) -> Any:
    """Read damaged copies of a file, in a process of its own lest a library crashes."""

    def part(campaign: Campaign) -> Figures:
        path = source(campaign)
        raw, expected = path.read_bytes(), content(path)
        copy = campaign.folder / f"damaged-{path.name}"
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            counts = {"trials": 0, "refused": 0, "harmless": 0, "silent_changes": 0, "other": 0}
            for each in damaged(raw, flips, len(raw) if cuts is None else cuts):
                copy.write_bytes(each)
                counts["trials"] += 1
                try:
                    same = content(copy) == expected
                    counts["harmless" if same else "silent_changes"] += 1
                except AdvkitError:
                    counts["refused"] += 1
                except BaseException as error:
                    print(f"  {type(error).__name__}: {error}", file=sys.stderr)
                    counts["other"] += 1
            os.write(writing, json.dumps(counts).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as answers:
            counts = json.loads(answers.read() or b"{}")
        _, status = os.waitpid(pid, 0)
        assert status == 0, f"a reader crashed: {status}"
        losses = counts.pop("other")
        return {**counts, "losses": losses, "bytes": len(raw)}

    return part


# Sameness and NaN


def same(campaign: Campaign) -> Figures:
    """Run the chain of stages in real processes with other hash seeds and folders."""
    everything, trials = set(), 0
    for hash_seed in ("0", "1", "2", "12345", "random"):
        for depth in ("a", "a/deeper/b"):
            cwd = campaign.folder / f"same-{hash_seed}" / depth
            cwd.mkdir(parents=True)
            environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
            subprocess.run(
                [sys.executable, "-c", CHAIN], cwd=cwd, env=environment, check=True,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
            kept = {k: v for k, v in contents(cwd).items() if not k.startswith("deeper")}
            everything.add(json.dumps(kept, sort_keys=True))
            trials, files = trials + 1, len(kept)
    return {"trials": trials, "silent_changes": len(everything) - 1, "files": files}


def planted(campaign: Campaign) -> Figures:
    """Plant a NaN at each place in turn; count what was saved with one, or counted as robust."""
    saved, wrong = 0, 0
    for number, (name, plant) in enumerate(PLANTED.items()):
        cwd = campaign.folder / f"nan{number}"
        cwd.mkdir()
        outcome = plant(campaign.server, campaign.teacher, campaign.labels, cwd)
        if bad(outcome):
            print(f"  {name}: {outcome}", file=sys.stderr)
            wrong += 1
        saved += sum(not finite(path) for path in cwd.rglob("*.safetensors"))
        saved += sum(not finite(path) for path in cwd.rglob("*.h5"))
    return {"trials": len(PLANTED), "losses": wrong, "silent_changes": saved}


def mixed(campaign: Campaign) -> Figures:
    """Judge run folders made of parts of several runs; see `_mixer`."""
    seen, wrong = _mixer.campaign(campaign.folder / "mixer", MIXED)
    silent = sum("code=0" in problem for problem in wrong)
    counts = dict(sorted(seen.items()))
    figures = {"trials": MIXED, "losses": len(wrong) - silent, "silent_changes": silent}
    return {**figures, "outcomes": counts}


PARTS: dict[str, Callable[[Campaign], Figures]] = {
    "flips-checkpoint": damage(lambda c: c.teacher, FLIPS, None),
    "flips-logits": damage(lambda c: c.logits, HDF5_CASES, HDF5_CASES),
    "flips-labels": damage(lambda c: c.labels, HDF5_CASES, HDF5_CASES),
    "same": same,
    "nan": planted,
    "points-at": points("at"),
    "points-softlabels": points("softlabels"),
    "kills-at": kills("at"),
    "kills-trades-adr-awp": kills("trades-adr-awp"),
    "kills-ltd": kills("ltd"),
    "sigterm-trades-adr-awp": stops("trades-adr-awp", signal.SIGTERM),
    "sigusr1-ltd": stops("ltd", signal.SIGUSR1),
    "save-digits": digits,
    "kills-softlabels": kills("softlabels"),
    "kills-attack": kills("attack"),
    "kills-search": kills("search"),
    "sigterm-softlabels": stops("softlabels", signal.SIGTERM),
    "sigint-attack": stops("attack", signal.SIGINT),
    "sigterm-search": stops("search", signal.SIGTERM),
    "mixed": mixed,
    **{f"pairs-{name}": pairs(name) for name in STAGES},
}


def versions() -> dict[str, str]:
    return {
        "advkit": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "safetensors": safetensors.__version__,
        "h5py": h5py.__version__,
        "hdf5": h5py.version.hdf5_version,
        "system": f"{platform.system()} {platform.machine()}",
    }


def noted(name: str, figures: Figures) -> None:
    """Replace one part's entry of the summary."""
    known = json.loads(SUMMARY.read_text(encoding="utf-8")) if SUMMARY.exists() else {}
    parts = {**known.get("parts", {}), name: figures}
    summary = {"versions": versions(), "parts": {key: parts[key] for key in PARTS if key in parts}}
    SUMMARY.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def table(summary: dict[str, Any]) -> list[str]:
    """Return the summary as the lines of a Markdown table."""
    keys = ("trials", "losses", "silent_changes", "slowest_save")
    return [
        f"| `{name}` | " + " | ".join(str(part.get(key, "")) for key in keys) + " |"
        for name, part in summary["parts"].items()
    ]


def shown() -> None:
    """Put the summary's table at the end of the page."""
    head, _, _ = PAGE.read_text(encoding="utf-8").partition("| part |")
    heading = "| part | trials | losses | silent changes | slowest save, s |\n|---|---|---|---|---|"
    lines = table(json.loads(SUMMARY.read_text(encoding="utf-8")))
    PAGE.write_text("\n".join([head + heading, *lines]) + "\n", encoding="utf-8")


def main(names: list[str]) -> int:
    """Run the parts named, or all, and return whether anything was lost."""
    torch.set_num_threads(1)
    bad = 0
    for name in names or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            campaign = Campaign(Path(folder))
            began = time.monotonic()
            figures = PARTS[name](campaign)
            campaign.server.stop()
        figures["seconds"] = round(time.monotonic() - began, 1)
        noted(name, figures)
        shown()
        bad += figures.get("losses", 0) + figures.get("silent_changes", 0)
        print(f"{name}: {figures}", file=sys.stderr, flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
