"""The Slurm scripts against stand-ins for `srun` and `scontrol`: requeued, they go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "recipes" / "slurm").glob("*.sbatch"))
TRAIN = ["--data", "digits", "--method", "at", "--width", "4", "--epochs", "8", "--limit", "400",
         "--batch-size", "16"]  # fmt: skip


@pytest.fixture
def environment(tmp_path):
    """A machine on which `srun` runs its command and `scontrol` writes down what it is asked."""
    stubs = tmp_path / "bin"
    stubs.mkdir()
    (stubs / "srun").write_text('#!/usr/bin/env bash\nexec "$@"\n')
    (stubs / "scontrol").write_text(
        '#!/usr/bin/env bash\nif [ "$1" = show ]; then echo localhost; '
        f'else echo "$@" >> "{tmp_path}/asked"; fi\n'
    )
    for stub in stubs.iterdir():
        stub.chmod(0o755)
    path = os.pathsep.join([str(stubs), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {
        **os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "SLURM_JOB_ID": "7",
        "SLURM_GPUS_ON_NODE": "2", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "localhost",
        "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2",
    }  # fmt: skip


def started(name, environment, *arguments):
    script = next(each for each in SCRIPTS if each.stem == name)
    return subprocess.Popen(
        ["bash", str(script), *arguments], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_the_scripts_are_all_here():
    assert [each.stem for each in SCRIPTS] == ["attack", "node", "nodes", "seeds"]
    for each in SCRIPTS:
        head = each.read_text(encoding="utf-8")
        assert "#SBATCH --requeue" in head
        assert subprocess.run(["bash", "-n", str(each)], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["node", "nodes", "seeds"])
def test_a_job_saves_when_its_time_is_up_and_goes_on(name, environment, tmp_path):
    folder = tmp_path / "run"
    first = [str(folder), *TRAIN] if name == "seeds" else [*TRAIN, "-o", str(folder)]
    place = folder / "s1" if name == "seeds" else folder
    job = started(name, environment, *first)
    began = time.monotonic()
    while not (place / "state.safetensors").exists():
        assert job.poll() is None, job.communicate()[1][-2000:]
        assert time.monotonic() - began < 200
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    _, err = job.communicate(timeout=90)
    assert job.returncode == 0, err[-2000:]
    assert (tmp_path / "asked").read_text() == (
        "requeue 7_1\n" if name == "seeds" else "requeue 7\n"
    )
    assert not (place / "final.safetensors").exists()
    again = dict(environment)
    if name == "seeds":  # the attack is another test's business
        again["PATH"] = f"{quick_attack(tmp_path)}{os.pathsep}{again['PATH']}"
    job = started(name, again, *first)
    _, err = job.communicate(timeout=200)
    assert job.returncode == 0, err[-2000:]
    assert (place / "final.safetensors").exists()


def quick_attack(tmp_path):
    """An `advkit` whose `attack` says only what it was asked."""
    stub = tmp_path / "quick"
    stub.mkdir()
    real = Path(sys.executable).parent / "advkit"
    (stub / "advkit").write_text(
        f'#!/usr/bin/env bash\nif [ "$1" = attack ]; then echo "$@"; else exec "{real}" "$@"; fi\n'
    )
    (stub / "advkit").chmod(0o755)
    return stub


def test_an_array_task_attacks_its_shard(environment, tmp_path):
    environment["PATH"] = f"{quick_attack(tmp_path)}{os.pathsep}{environment['PATH']}"
    out, err = started("attack", environment, "a.safetensors").communicate(timeout=60)
    assert out.split() == ["attack", "--autoattack", "a.safetensors", "--shard", "1/2"], err
