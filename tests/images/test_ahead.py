"""Images made ahead by workers: the same images, by the same processes, and none is left behind."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advkit.config.resolve import resolve
from advkit.errors import InputError, Stopped
from advkit.images import ahead
from advkit.images.ahead import Ahead
from advkit.images.augment import CROP_FLIP
from advkit.images.batches import Batches
from advkit.images.extra import Extra
from advkit.images.image_set import Images
from advkit.runtime import signals
from advkit.runtime.reporting import Reporter
from advkit.training.parts import augmentation_of
from advkit.training.run_folder import RunFolder
from advkit.training.trainer import Trainer

CPU, META = torch.device("cpu"), torch.device("meta")


def told(epoch: int, step: int) -> torch.Tensor:
    """What a worker makes: where, and who it is."""
    return torch.tensor([epoch, step, os.getpid()])


@pytest.fixture
def making():
    """Two workers that make `told` of three steps an epoch."""
    made = Ahead(told, 3, 2, None)
    yield made
    made.close()


def pictures(n: int = 24, side: int = 12) -> Images:
    draw = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=draw)
    return Images("noise", "train", pixels, torch.arange(n) % 3, ("a", "b", "c"), 2, True)


def named(name: str):
    return augmentation_of(resolve(({"data": "cifar10", "augment": name}, "flag")).settings)


def workers() -> set[int]:
    return {process.pid for process in multiprocessing.active_children()}


def test_the_same_workers_serve_every_epoch(making):
    rows = [making.take(epoch, step) for epoch in range(3) for step in range(3)]
    assert [row[:2].tolist() for row in rows] == [[e, s] for e in range(3) for s in range(3)]
    assert len({int(row[2]) for row in rows}) == 2


@pytest.mark.parametrize("place", [(0, 2), (1, 0), (5, 1), (0, 0)])
def test_any_step_may_be_asked_for_and_the_workers_stay(making, place):
    first = making.take(0, 0)
    makers = {int(first[2]), int(making.take(0, 1)[2])}
    rows = [making.take(*place), making.take(*place)]
    assert [row[:2].tolist() for row in rows] == [list(place)] * 2
    assert {int(row[2]) for row in rows} <= makers


def test_two_who_ask_in_turn_get_what_they_ask_for(making):
    for step in range(3):
        assert making.take(0, step)[:2].tolist() == [0, step]
        assert making.take(7, step)[:2].tolist() == [7, step]


@pytest.mark.parametrize(
    ("epochs", "then"), [(1, set()), (2, {"1-0", "1-1"}), (None, {"1-0", "1-1"})]
)
def test_the_next_epoch_is_begun_before_it_is_asked_for(tmp_path, epochs, then):
    """Each step leaves a file when it is made; nothing is made beyond the run."""

    def mark(epoch: int, step: int) -> torch.Tensor:
        (tmp_path / f"{epoch}-{step}").touch()
        return torch.zeros(1)

    made = Ahead(mark, 2, 1, epochs)
    for step in range(2):
        made.take(0, step)
    while not then <= set(os.listdir(tmp_path)):
        time.sleep(0.01)
    made.close()
    assert set(os.listdir(tmp_path)) == then | {"0-0", "0-1"}


def test_an_epoch_beyond_the_last_is_made_all_the_same():
    made = Ahead(told, 2, 1, 1)
    for place in ((0, 0), (0, 1), (1, 0), (1, 1), (4, 1), (5, 0)):
        assert made.take(*place)[:2].tolist() == list(place)
    made.close()


def refused(epoch: int, step: int) -> torch.Tensor:
    raise InputError("a.jpg: not a readable image")


def test_an_error_comes_as_it_was_and_leaves_no_worker():
    before = workers()
    made = Ahead(refused, 2, 2, None)
    with pytest.raises(InputError, match=r"^a\.jpg: not a readable image$") as error:
        made.take(0, 0)
    assert len(workers() - before) == 2
    made.close()
    assert workers() <= before  # though the traceback is still held
    assert error.value.code == 3


LEFT = """
import torch
from PIL import Image
from advkit.images.ahead import Ahead
made = Ahead(lambda epoch, step: torch.zeros(1), 3, 2, None)
made.take(0, 0)
kept = [made, made]
{end}
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["", "raise SystemExit(0)", "made.take = made; 1 / 0"])
def test_a_process_that_forgets_its_workers_ends(end):
    """They ignore signals, and Python waits for them: without an end of its own it would hang."""
    done = subprocess.run([sys.executable, "-c", LEFT.format(end=end)], timeout=300, check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert (done.returncode, "ZeroDivisionError" in done.stderr) in ((0, False), (1, True))


@pytest.mark.parametrize("name", ["idbh", "autoaugment", "crop-flip", "cutmix"])
@pytest.mark.parametrize("more", [False, True], ids=["own", "and extra"])
def test_images_in_memory_do_not_depend_on_workers(name, more):
    images = pictures()

    def batches(count: int) -> Batches:
        extra = {"extra": Extra(images, 4, 0)} if more else {}
        part = named(name)
        return Batches(images, torch.arange(24), 12, 3, CPU, workers=count, augmentation=part,
                       **extra)  # fmt: skip

    alone, helped = batches(0), batches(2)
    before = workers()
    for epoch in range(2):
        pairs = list(zip(alone.epoch(epoch), helped.epoch(epoch), strict=True))
        assert len(pairs) == len(alone)
        for one, other in pairs:
            assert torch.equal(one.x, other.x)
            assert one.x.stride() == other.x.stride()  # a convolution rounds by it
            assert torch.equal(one.y, other.y)
    assert len(workers() - before) == (2 if name in ("idbh", "autoaugment") else 0)
    helped.close()
    assert workers() <= before


def test_what_is_changed_one_by_one_is_changed_on_the_cpu():
    """On a device without numbers nothing could be changed: only shapes arrive there."""
    whole = Batches(pictures(), torch.arange(24), 12, 3, META, augmentation=named("idbh"))
    batch = whole.at(whole.order(0), 0, 0)
    assert (batch.x.device, batch.x.shape) == (META, (12, 3, 12, 12))
    assert whole.resident is None


@pytest.mark.parametrize(
    ("wanted", "name", "device", "count"),
    [(None, "idbh", "cpu", 0), (None, "idbh", "cuda", 5), (3, "idbh", "cpu", 3),
     (None, "crop-flip", "cuda", 0), (0, "idbh", "cuda", 0)],
)  # fmt: skip
def test_how_many_workers_there_are(monkeypatch, wanted, name, device, count):
    monkeypatch.setattr("advkit.parallel.ranks.cores", lambda: 5)
    assert ahead.workers(wanted, pictures(), named(name), torch.device(device)) == count


def test_crops_and_flips_are_no_work_for_others():
    assert not CROP_FLIP.by_image
    assert [
        name for name in ("idbh", "autoaugment", "cutout", "cutmix") if named(name).by_image
    ] == [
        "idbh",
        "autoaugment",
    ]


def trainer(**more: object) -> Trainer:
    flags = {"data": "digits", "method": "natural", "width": 4, "epochs": 3, "batch_size": 8,
             "augment": "idbh", "workers": 2, **more}  # fmt: skip
    settings = resolve((flags, "flag")).settings
    return Trainer(settings, pictures(60), device=CPU, threads=1, reporter=Reporter())


@pytest.mark.parametrize("end", ["signal", "until", "error"])
def test_training_leaves_no_worker_however_it_ends(tmp_path, monkeypatch, end):
    before, made, seen = workers(), trainer(), []
    step = made.step

    def watched(batch, epoch, number):
        seen.append(workers() - before)
        if end == "error":
            raise InputError("told")
        step(batch, epoch, number)
        if end == "signal":
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(made, "step", watched)
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    signals.install()
    try:
        if end == "until":
            made.fit(folder, 2)
            assert len(seen) > len(made.batches)
        else:
            with pytest.raises(Stopped if end == "signal" else InputError):
                made.fit(folder)
    finally:
        signals.release()
        for number in signals.HANDLED:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert {len(pids) for pids in seen} == {2}  # the same two at every step
    assert len(set(itertools.chain(*seen))) == 2
    assert workers() <= before


def folder(top: Path) -> Path:
    """Write an ImageNet of two classes, twelve small images each."""
    draw = np.random.default_rng(0)
    for split, wnid, number in itertools.product(("train", "val"), ("n1", "n2"), range(12)):
        path = top / split / wnid / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path, "JPEG")
    return top


def gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_process(tmp_path, signum):
    """Ctrl-C reaches the whole group, as at a terminal; a kill reaches the parent alone."""
    out = tmp_path / "run"
    line = ["train", "--data", f"imagenet:{folder(tmp_path / 'set')}", "--image-size", "32",
            "--arch", "small-cnn", "--width", "4", "--method", "natural", "--batch-size", "6",
            "--val-size", "6", "--epochs", "100000", "--workers", "2", "-o", str(out)]  # fmt: skip
    run = subprocess.Popen(
        [sys.executable, "-m", "advkit", *line],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = out / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") > 1):
        assert run.poll() is None, run.communicate()[1]
        time.sleep(0.1)
    if signum == signal.SIGINT:
        os.killpg(run.pid, signum)
    else:
        run.send_signal(signum)
    err = run.communicate(timeout=300)[1]
    if signum == signal.SIGKILL:
        while not gone(run.pid):  # they look every few seconds whether their parent is there
            time.sleep(0.1)
    else:
        assert run.returncode == 128 + signum
        assert "state saved" in err
        assert gone(run.pid)
