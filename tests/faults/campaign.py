"""The full counts of the fault table: `make fault-campaign`, or a part with PARTS="flips same".

Each part replaces its own entry of `docs/fault-campaign.json`. A trial is a *loss* if what is
left after a kill cannot be read, or the run that goes on does not end in the very bytes of one
that nobody disturbed, or litter stays. A *silent change* is a damaged file that is read without
an error and says something else.
"""

from __future__ import annotations

import itertools
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
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import safetensors
import torch

from advkit import __version__
from tests.faults import _lines, _mixer
from tests.faults._damage import damage
from tests.faults._pairs import STAGES, started, words
from tests.faults._planted import PLANTED, bad, finite
from tests.faults._runs import ROOT, contents, litter
from tests.faults._same import CHAIN
from tests.faults._trials import Campaign, Figures, Trials

SUMMARY = ROOT / "docs" / "fault-campaign.json"
PAGE = ROOT / "docs" / "reliability.md"
KILLS, SIGNALS, FLIPS, HDF5_CASES, MIXED, PAIRS, LINES = 50, 50, 4000, 1200, 300, 200, 2000
SOON = 5.0
"""Seconds within which a stopped run has to be saved."""


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


def random_lines(campaign: Campaign) -> Figures:
    """Run random command lines; a loss is one that ends as none may, or ignores a signal."""
    cwd = campaign.folder / "lines"
    shutil.copytree(campaign.teacher.parent, cwd / "run")
    shutil.copy(campaign.logits, cwd / "a.h5")
    there = _lines.inputs(cwd)
    codes: Counter[str] = Counter()
    losses, asked = 0, 0
    for line in itertools.islice(_lines.lines(0, there), LINES):
        outcome, was_asked = _lines.ended(campaign.server.start(*line, cwd=cwd))
        asked += was_asked
        codes[str(outcome.code if outcome else None)] += 1
        if fault := _lines.wrong(outcome):
            losses += 1
            print(f"  LOSS {line}: {fault}", file=sys.stderr, flush=True)
    counts = dict(sorted(codes.items()))
    return {"trials": LINES, "losses": losses, "asked_to_end": asked, "codes": counts}


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
    "lines": random_lines,
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
