"""Ranks that are killed or told to stop: the others end, files are whole, the run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from advkit.artifacts import checkpoint

pytestmark = pytest.mark.slow
RUN = ["train", "--data", "digits", "--method", "adr", "--width", "4", "--epochs", "6",
       "--limit", "400", "--batch-size", "16", "--attack-steps", "10"]  # fmt: skip
"""Compared with the same ranks' run that nobody stopped: whatever it learns."""


def start(folder, *more, ranks=2):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone",
              "--nproc-per-node", str(ranks)]  # fmt: skip
    return subprocess.Popen(
        [*launch, "-m", "advkit", *RUN, "-o", str(folder), *more],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_epoch(folder, process, epochs=2):
    began = time.monotonic()
    while time.monotonic() - began < 120:
        metrics = folder / "metrics.jsonl"
        if metrics.exists() and len(metrics.read_text().splitlines()) >= epochs:
            return
        assert process.poll() is None, process.communicate()[1][-2000:]
        time.sleep(0.05)
    pytest.fail("the run does not begin")


def children(pid):
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run of two ranks."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = start(folder)
    out, err = done.communicate(timeout=200)
    assert done.returncode == 0, err[-3000:]
    assert len(out.splitlines()) == 1  # rank 0 alone prints
    return folder


def same_end(folder, whole):
    one, two = (load_file(each / "final.safetensors") for each in (folder, whole))
    return all(bool((one[name] == two[name]).all()) for name in two)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_a_killed_rank_ends_the_run_which_then_goes_on(tmp_path, whole):
    folder = tmp_path / "run"
    run = start(folder)
    wait_for_epoch(folder, run)
    victims = children(run.pid)
    assert len(victims) == 2
    os.kill(victims[1], signal.SIGKILL)
    run.communicate(timeout=200)
    assert run.returncode != 0
    checkpoint.read(folder / "best.safetensors")  # whole: digests are checked
    checkpoint.read(folder / "state.safetensors", "state")
    again = start(folder, "--resume")
    _, err = again.communicate(timeout=200)
    assert again.returncode == 0, err[-3000:]
    assert same_end(folder, whole)


def test_a_signal_stops_all_ranks_at_one_step(tmp_path, whole):
    folder = tmp_path / "run"
    run = start(folder)
    wait_for_epoch(folder, run)
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=60)
    assert run.returncode != 0
    assert "state saved: go on with --resume" in err
    assert err.count("state saved") >= 1
    again = start(folder, "--resume")
    _, err = again.communicate(timeout=200)
    assert again.returncode == 0, err[-3000:]
    assert same_end(folder, whole)


def test_another_number_of_ranks_is_refused_unless_elastic(tmp_path):
    folder = tmp_path / "run"
    run = start(folder)
    wait_for_epoch(folder, run)
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    alone = [sys.executable, "-m", "advkit", *RUN, "-o", str(folder)]
    refused = subprocess.run([*alone, "--resume"], capture_output=True, text=True, check=False)
    assert refused.returncode == 4
    assert "begun by 2 processes, not 1" in refused.stderr
    bare = [*alone[:3], "train", "-o", str(folder), "--resume-elastic"]  # the run's own options
    done = subprocess.run(bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (change,) = checkpoint.read_info(folder / "final.safetensors")["elastic"]
    assert change[2:] == [2, 1]


def test_an_error_is_told_once(tmp_path, whole):
    """The folder holds a run with other options: rank 0 says so, the others end quietly."""
    other = start(whole, "--lr", "0.5")
    out, err = other.communicate(timeout=100)
    assert other.returncode != 0
    assert out == ""
    assert err.count("holds a run with other options") == 1


def test_done_is_done(whole):
    again = start(whole)
    out, err = again.communicate(timeout=100)
    assert again.returncode == 0
    assert "already done" in err
    assert json.loads(out)["role"] == "best"
