"""Every analysis, from its first day, on odd inputs: a figure, or one clear line that names a file.

Parts that take logits or labels get files whose every kind of oddness is known; parts that ask a
checkpoint get two tiny runs. All of it goes through the command line, so that nothing but the
errors of `advkit.errors` ends an analysis: any other exception is exit 1 there.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from advkit import registry
from advkit.artifacts import hdf5, provenance
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.soft_labels import SoftLabels
from advkit.errors import AdvkitError
from tests.conftest import SEED
from tests.faults._runs import refused

QUICK = {
    "steps": 2, "more_steps": 4, "attack_steps": 2, "restarts": 1, "queries": 10, "points": 5,
    "directions": 1, "eps_grid": "0,eps", "steps_grid": "1,2", "resamples": 20,
}  # fmt: skip
"""Options that make an analysis quick, where it has them."""
ANALYSES = registry.parts("analyses")
REFUSALS = (2, 3, 4)
"""Usage, an input that cannot be used, inputs that do not fit together."""


def parts(kind: str) -> pytest.MarkDecorator:
    chosen = [each for each in ANALYSES.values() if kind in each.constants.get("KINDS", ())]
    return pytest.mark.parametrize("part", chosen, ids=lambda each: each.name)


def quick(part: registry.Part) -> list[str]:
    names = {option.name for option in part.options}
    return [word for name, value in QUICK.items() if name in names
            for word in (f"--{name.replace('_', '-')}", str(value))]  # fmt: skip


def finite(value: object) -> bool:
    """Whether everything in a record is a plain value and every number finite."""
    if isinstance(value, dict | list):
        return all(finite(each) for each in (value.values() if isinstance(value, dict) else value))
    return value is None or isinstance(value, str) or math.isfinite(value)


def require_clear(done, names: list[str], together: bool = False) -> None:
    """Check that a call either gave finite records or refused in one line naming a file.

    Of files taken together the line may speak of all: "no file is ...".
    """
    lines = [line for line in done.err.splitlines() if ": error: " in line]
    for text in done.out.splitlines():
        assert finite(json.loads(text, parse_constant=lambda word: float("nan"))), text
    if done.code == 0:
        assert done.out
        assert not lines
        return
    assert done.code in REFUSALS, done.err
    assert len(lines) == 1 or done.code != 2, done.err
    assert lines
    if done.code != 2:  # a file is at fault: which?
        for line in lines:
            named = any(name in line for name in names)
            assert named or (together and re.search(r"\bfiles?\b", line)), line


def names_of(files: list[Path]) -> list[str]:
    return [f"{path.parent.name}/{path.name}" for path in files]


# --- logits files ---


def logits_file(
    folder: Path, method: str, *, n: int = 24, classes: int = 5, attacked: bool = True,
    outside: bool = False, eps: str = "8/255", named: str = "digits",
) -> Path:  # fmt: skip
    """Write the logits of one run's seed 0: test data, or out-of-distribution ones."""
    draw = torch.Generator().manual_seed(len(method))
    y = torch.arange(n) % classes
    clean = 3 * one_hot(y, classes) + 2 * torch.randn(n, classes, generator=draw)
    name = "photos" if outside else named
    data = provenance.data_parent(name, "test", f"sha256:{name}")
    model = {
        "kind": "checkpoint", "digest": f"sha256:{method}", "method": method, "seed": 0,
        "arch": "small-cnn", "role": "best", "temperature": 1.0 + len(method),
        "parents": [provenance.data_parent("digits", "train", "sha256:train")],
    }  # fmt: skip
    config = {"attack": "none", "data": name, "limit": None, "batch_size": 250, "seed": 0}
    if attacked:
        config |= {"attack": "pgd", "norm": "linf", "eps": eps, "steps": 10,
                   "step_size": "eps/4", "restarts": 1, "save_images": False}  # fmt: skip
    info = provenance.describe(
        "logits", config=config, seed=0, parents=[model, data],
        environment={"device": "cpu", "threads": 1}, method=method, arch="small-cnn", role="best",
        trained={"method": method, "seed": 0, "data": "digits", "lr": 0.1 * len(method)},
        data={"name": name, "classes": [str(each) for each in range(classes)]},
        attacks=["pgd"] if attacked else [], zero_gradient=0.0,
    )  # fmt: skip
    file = Logits(torch.arange(n), torch.full((n,), -1) if outside else y, clean, info)
    if attacked:
        adversarial = clean + 3 * torch.randn(n, classes, generator=draw)
        wrong, hit = (each.argmax(1) != y for each in (clean, adversarial))
        broken = torch.where(wrong, -2, torch.where(hit, 0, -1)).to(torch.int8)
        file = dataclasses.replace(
            file, adversarial=adversarial, norm=torch.full((n,), 0.03), broken_by=broken
        )
    path = folder / f"{method}-s0" / f"best.{name}{eps.replace('/', '-')}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    hdf5.write_logits(path, file)
    return path


def pair(folder: Path, **options) -> list[Path]:
    return [logits_file(folder, method, **options) for method in ("natural", "adr")]


def outside(folder: Path, **options) -> list[Path]:
    return pair(folder, attacked=False, outside=True, **options)


ODD = {
    "several": lambda folder: pair(folder) + outside(folder),
    "one of each": pair,
    "alone": lambda folder: pair(folder)[1:],
    "two threats": lambda folder: [logits_file(folder, "adr", eps=e) for e in ("4/255", "8/255")],
    "corrupted": lambda folder: (
        [logits_file(folder, "adr", named=f"cifar10c-fog-{severity}") for severity in (1, 3)]
    ),
    "one example": lambda folder: pair(folder, n=1) + outside(folder, n=1),
    "two examples": lambda folder: pair(folder, n=2),
    "two classes": lambda folder: pair(folder, classes=2) + outside(folder, classes=2),
    "not attacked": lambda folder: pair(folder, attacked=False),
    "half attacked": lambda folder: (
        [logits_file(folder, "natural", attacked=False), logits_file(folder, "adr")]
    ),
    "no labels": outside,
    "other examples": lambda folder: (
        [logits_file(folder, "natural"), logits_file(folder, "adr", n=20)]
    ),
    "other classes": lambda folder: (
        [logits_file(folder, "natural"), logits_file(folder, "adr", classes=4)]
    ),
}
"""What is given, by what is odd about it."""
PLAIN = ("one of each", "several", "alone", "two threats", "corrupted")
"""What is not odd: one of these serves any analysis."""


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Write the files of an oddity once: no test changes them."""
    return functools.cache(lambda odd: ODD[odd](tmp_path_factory.mktemp("odd")))


@pytest.fixture(scope="module", autouse=True)
def short_embeddings():
    """t-SNE's steps are scikit-learn's: what is asked here is what an analysis makes of them."""
    from sklearn import manifold

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifold, "TSNE", functools.partial(manifold.TSNE, max_iter=250))
        yield


@parts("logits")
@pytest.mark.parametrize("odd", ODD)
def test_odd_logits_files_give_figures_or_one_clear_line(part, odd, cli, given):
    files = given(odd)
    done = cli("analyze", part.name, *files, *quick(part), "--json")
    require_clear(done, names_of(files), bool(part.constants.get("COMPARES")))


@parts("logits")
@pytest.mark.parametrize("odd", ["one example", "two classes"])
def test_odd_logits_files_are_drawn_and_written(part, odd, cli, given, tmp_path):
    """The first file and the last alone, or all for a part that compares."""
    files = given(odd)
    calls = [files] if part.constants.get("COMPARES") else [files[:1], files[-1:]]
    drawn = part.constants.get("PICTURE", True)
    for number, chosen in enumerate(calls):
        out, plot = tmp_path / f"{number}.json", tmp_path / f"{number}.png"
        picture = ["--plot", plot] if drawn else []
        done = cli("analyze", part.name, *chosen, *quick(part), "-o", out, *picture, "--json")
        require_clear(done, names_of(chosen), bool(part.constants.get("COMPARES")))
        if done.code == 0:
            assert out.exists()
            assert plot.exists() == drawn


@parts("logits")
def test_some_plain_files_are_enough_for_every_analysis_also_through_a_pipe(part, cli, given):
    """An analysis that refuses everything would keep every promise above."""
    for odd in PLAIN:
        files = given(odd)
        named = cli("analyze", part.name, *files, *quick(part), "--json")
        if named.code == 0:
            break
    assert named.code == 0, named.err
    lines = "".join(f"{path}\n" for path in files)
    piped = cli("analyze", part.name, *quick(part), "--json", stdin=lines)
    assert (piped.code, piped.out) == (0, named.out)


def figures(value: object) -> object:
    """A record without what names its file."""
    if isinstance(value, dict):
        own = ("digest", "path", "input", "inputs", "seconds")
        return {key: figures(item) for key, item in value.items() if key not in own}
    return [figures(item) for item in value] if isinstance(value, list) else value


def near(value: object) -> object:
    """The same, equal to what differs by rounding alone."""
    if isinstance(value, dict):
        return {key: near(item) for key, item in value.items()}
    if isinstance(value, list):
        return [near(item) for item in value]
    return pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value


@parts("logits")
def test_the_order_of_a_files_rows_changes_no_figure(part, cli, given):
    """Confidences are rounded to be often equal: ties hide an order."""
    for odd in PLAIN:
        files = given(odd)
        for path in files:
            logits = hdf5.read_logits(path)
            changes = {"clean": logits.clean.round()}
            if logits.adversarial is not None:
                changes["adversarial"] = logits.adversarial.round()
                wrong, hit = (z.argmax(1) != logits.labels for z in changes.values())
                broken = torch.where(wrong, -2, torch.where(hit, 0, -1)).to(torch.int8)
                changes["broken_by"] = torch.where(logits.labels < 0, logits.broken_by, broken)
            hdf5.write_logits(path, dataclasses.replace(logits, **changes))
        first = cli("analyze", part.name, *files, *quick(part), "--json")
        if first.code == 0:
            break
    assert first.code == 0, first.err
    for path in files:
        logits = hdf5.read_logits(path)
        # The same order in files that are compared row by row, another than the one written.
        order = torch.randperm(len(logits.index), generator=torch.Generator().manual_seed(SEED))
        names = ("index", "labels", "clean", "adversarial", "norm", "broken_by", "images")
        rows = {field: getattr(logits, field) for field in names}
        moved = {field: array[order] for field, array in rows.items() if array is not None}
        hdf5.write_logits(path, dataclasses.replace(logits, **moved))
    second = cli("analyze", part.name, *files, *quick(part), "--json")
    assert second.code == 0, second.err
    assert figures(second.records) == near(figures(first.records))


@parts("logits")
def test_an_empty_pipe_is_an_error_in_a_line(part, cli):
    done = cli("analyze", part.name, stdin="")
    assert done.code == 3
    assert done.err.count("\n") == 1


# --- labels files ---


def soft_labels(n: int, classes: int, views: int) -> SoftLabels:
    rng = np.random.default_rng(0)
    logits = torch.tensor(rng.normal(size=(n, views, classes))).float()
    names = [str(each) for each in range(classes)]
    info = {
        "schema": 1, "kind": "labels", "digest": "sha256:l", "seed": 0, "role": "best",
        "method": "natural", "arch": "small-cnn", "config": {"views": str(views), "data": "digits"},
        "data": {"name": "digits", "classes": names},
        "parents": [{"kind": "checkpoint", "digest": "sha256:t", "seed": 0},
                    provenance.data_parent("digits", "train", "sha256:d")],
    }  # fmt: skip
    path = "teacher-s0/best.labels.h5"
    return SoftLabels(
        torch.arange(n), torch.arange(n) % classes, logits - logits.amax(2, keepdim=True),
        torch.zeros(n, views, 3, dtype=torch.uint8), info, path=path,
    )  # fmt: skip


@parts("labels")
@pytest.mark.parametrize(("n", "classes", "views"), [(1, 5, 1), (1, 2, 3), (20, 2, 1), (20, 5, 3)])
def test_odd_labels_files_give_finite_figures_or_one_clear_line(part, n, classes, views):
    given = [soft_labels(n, classes, views)]
    refusal, found = None, None
    try:
        found = registry.load("analyses", part.name).analyze(given)
    except AdvkitError as error:
        refusal = str(error)
    if found is not None:
        assert finite(dict(found.numbers))
        assert finite([list(row) for row in found.rows])
        return
    assert n < 20, "plain labels must do"
    assert given[0].path in refusal
    assert "\n" not in refusal


# --- checkpoints ---


@pytest.fixture(scope="session")
def two_classes(tmp_path_factory) -> Path:
    """A checkpoint that tells two digits apart, trained for an epoch.

    Its users ask for finite figures or a clear refusal, whatever the weights.
    """
    from sklearn.datasets import load_digits

    from advkit.__main__ import main

    folder = tmp_path_factory.mktemp("two")
    x, y = load_digits(n_class=2, return_X_y=True)
    image = (x.reshape(-1, 8, 8, 1) * 15).astype(np.uint8)
    for name, kept in (("train", slice(0, 200)), ("test", slice(200, 240))):
        np.savez(folder / f"{name}.npz", image=image[kept], label=y[kept])
    small = ["--arch", "small-cnn", "--width", "4", "--epochs", "1", "--eps", "0.1",
             "--seed", str(SEED)]  # fmt: skip
    out = folder / "at-s0"
    assert main(["train", "--method", "at", "--data", f"npz:{folder}", *small, "-q",
                 "-o", str(out)]) == 0  # fmt: skip
    return out / "best.safetensors"


@parts("checkpoint")
@pytest.mark.parametrize("odd", ["plain", "one example", "several"])
def test_odd_checkpoints_give_figures_or_one_clear_line(
    part, odd, cli, tiny_run, two_classes, tmp_path
):
    """Several: one of ten classes and one of two; what is no comparison looks at each alone."""
    ten = tiny_run / "best.safetensors"
    files = [ten, two_classes] if odd == "several" else [ten]
    limit = ["--limit", 1 if odd == "one example" else 4] if part.constants.get("PROBES") else []
    picture = ["--plot", tmp_path / "p.png"] if part.constants.get("PICTURE", True) else []
    done = cli("analyze", part.name, *files, *quick(part), *limit, *picture, "--json")
    require_clear(done, names_of(files), bool(part.constants.get("COMPARES")))
    if odd == "plain":
        assert done.code == 0, done.err


@pytest.mark.parametrize("name", sorted(registry.parts("analyses")))
def test_a_file_of_another_kind_is_told_with_what_makes_the_right_one(cli, name, tiny_run, request):
    wanted = registry.part("analyses", name).constants.get("KINDS", ("logits",))
    wrong = tiny_run / "best.safetensors"
    if "checkpoint" in wanted:
        wrong = request.getfixturevalue("tiny_logits")
    outcome = cli("analyze", name, wrong, "-q")
    refused(outcome, 3, str(wrong), "wanted:" if "checkpoint" in wanted else "not a")
    commands = {"checkpoint": "train", "labels": "softlabels", "logits": "attack"}
    for kind in wanted:
        assert f"`advkit {commands[kind]}`" in outcome.err
    assert "makes one)" in outcome.err


def test_a_table_of_labels_alone_names_the_stage_that_is_missing(cli, tiny_run, tmp_path):
    labels = tmp_path / "labels.h5"
    assert cli("softlabels", tiny_run / "best.safetensors", "-o", labels, "-q").code == 0
    for command in (["table"], ["compare"], ["calibration"]):
        outcome = cli("analyze", *command, labels, "-q")
        said = "this is a file of labels; wanted: logits (`advkit attack` makes one)"
        refused(outcome, 3, str(labels), said)
