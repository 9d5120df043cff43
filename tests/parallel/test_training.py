"""Two processes that share a batch learn what one learns; nobody waits inside an attack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.parallel._ranks import RUNS

SCRIPT = Path(__file__).parent / "_ranks.py"


def ranks(count, tasks, folder):
    """Run tasks on so many processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launch = [sys.executable]
    if count > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    done = subprocess.run(
        [*launch, str(SCRIPT), tasks, str(folder)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    ranks(1, "double,single", folder)
    ranks(2, "double,single,train_mode,settled,counted,refused", folder)
    return folder


def gap(folder, name, kind):
    one, two = (load_file(folder / f"{name}.{kind}.{size}") for size in (1, 2))
    assert one.keys() == two.keys()
    assert any(key.startswith("ema.") for key in one) == ("adr" in name or "wa" in name)
    return max(float((one[key].double() - two[key].double()).abs().max()) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_halves_learn_what_one_batch_teaches(results, name):
    """Twenty steps in float64 with BN in eval mode: the same weights, EMA included."""
    assert gap(results, name, "double") < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_float32_drifts_little(results, name):
    """sign() turns rounding into pixels, so drift grows; docs/scaling.md has the figures."""
    drift = gap(results, name, "single")
    print(f"{name}: {drift:.1e}")
    assert drift < 0.05


@pytest.mark.slow
def test_bn_in_train_mode_differs_by_the_shares_statistics_alone(results):
    """Each share has its own batch statistics: the mean of the halves' gradients and buffers."""
    assert json.loads((results / "train_mode.json").read_text())["worst"] < 1e-6


@pytest.mark.slow
def test_an_even_average_has_the_mean_of_the_shares_statistics(results):
    """Of BN recomputed; its weights are compared above, as those of other averages."""
    found = json.loads((results / "settled.json").read_text())
    assert found["worst"] < 1e-6
    assert found["moved"] > 0.01


@pytest.mark.slow
def test_an_attack_waits_for_nobody(results):
    for method, seen in json.loads((results / "counted.json").read_text()).items():
        assert seen["attack"] == [], method
        assert any("all" in name and "reduce" in name for name in seen["step"]), method


@pytest.mark.slow
def test_the_others_learn_that_rank_0_failed(results):
    assert (results / "refused0").read_text() == "MismatchError 4"
    assert (results / "refused1").read_text() == "Elsewhere 4"
