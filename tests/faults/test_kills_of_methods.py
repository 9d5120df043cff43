"""Rows 1 to 3 for one method of each kind that keeps something: what a kill -9 leaves goes on."""

from __future__ import annotations

import signal

import pytest

from tests.faults._runs import NET
from tests.faults.test_kills import resumed

STEPS = ["--attack-steps", "2"]
KINDS = {
    "a teacher at x'": ["--method", "adaad", "--alpha", "0.5", *STEPS, "--teacher"],
    "a memory of examples": ["--method", "sat", "--memory-from", "2", *STEPS],
    "a memory of predictions": ["--method", "te", "--ramp", "1:2", *STEPS],
    "class statistics": ["--method", "ikl", *STEPS],
    "an even average": ["--method", "at-wa", "--swa-start", "2", *STEPS],
    "mixed images": ["--method", "adr", "--augment", "cutmix", *STEPS],
    "a single step": ["--method", "at", "--train-attack", "n-fgsm"],
    "another optimizer": [
        "--method",
        "at",
        "--optimizer",
        "adamw",
        "--clip-grad-norm",
        "0.5",
        *STEPS,
    ],
}
"""Kind → options of a run of 15 steps, 5 an epoch."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_killed_twice_ends_bit_equal(server, whole, teacher, tmp_path, kind):
    """Amid the second epoch, and then between two files of the epoch's end."""
    words = ["train", *NET, "--epochs", "3", *KINDS[kind]]
    words += [teacher / "best.safetensors"] if words[-1] == "--teacher" else []
    expected = whole(*words)[1]
    # The driver counts steps of SGD: with AdamW in the middle of a line of the log.
    amid = ["line", 2] if "adamw" in words else ["step", 8]
    killed = server.run(*words, "-o", "run", cwd=tmp_path, kill=amid)
    assert killed.code == -signal.SIGKILL
    again = server.run(*words, "--resume", "-o", "run", cwd=tmp_path, kill=["rename", 1])
    assert again.code == -signal.SIGKILL
    assert resumed(server, words, tmp_path) == expected
