"""Rows 7 to 11, 13, 14 and 34: damaged, foreign, hostile, half-written and old files."""

from __future__ import annotations

import json
import os
import pickle
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from advkit.artifacts import checkpoint, hdf5, provenance
from advkit.errors import InputError, MismatchError
from tests.faults import _child
from tests.faults._runs import refused

ATTACK = ["--attack", "fgsm", "--limit", "20"]
full = pytest.mark.faults


@pytest.fixture
def best(tiny_run, tmp_path):
    """A checkpoint of one's own."""
    return shutil.copy(tiny_run / "best.safetensors", tmp_path / "x.safetensors")


@pytest.fixture
def logits(tiny_logits, tmp_path):
    """A logits file of one's own."""
    return shutil.copy(tiny_logits, tmp_path / "x.h5")


def everything(path):
    """What a file says: its description and the bits of its arrays."""
    if path.suffix == ".safetensors":
        arrays, info = checkpoint.read(path)
        return {n: (str(t.dtype), t.shape, t.numpy().tobytes()) for n, t in arrays.items()}, info
    arrays, info = hdf5.read_arrays(path, "logits", hdf5.DTYPES)
    found = {name: np.asarray(array) for name, array in arrays.items()}
    return {n: (a.dtype.str, a.shape, a.tobytes()) for n, a in found.items()}, info


def flipped(path, trials, seed=0):
    """Return how many single-bit flips are refused; the others change nothing that is read."""
    raw, expected = path.read_bytes(), everything(path)
    draw, count = random.Random(seed), 0
    for _ in range(trials):
        changed = bytearray(raw)
        changed[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            assert everything(path) == expected
        except (InputError, MismatchError):
            count += 1
    path.write_bytes(raw)
    return count


@pytest.mark.parametrize("share", [29, pytest.param(5, marks=full)])
def test_row_07_every_truncation_of_a_checkpoint(cli, best, share):
    raw = best.read_bytes()
    for length in range(0, len(raw), share):
        best.write_bytes(raw[:length])
        with pytest.raises(InputError, match=r"truncated or corrupt|empty file"):
            checkpoint.read(best)
    refused(cli("attack", best, *ATTACK), 3, best.name, "truncated or corrupt")


@pytest.mark.parametrize("trials", [200, pytest.param(1500, marks=full)])
def test_row_08_bit_flips_of_a_checkpoint(best, trials):
    assert flipped(best, trials) == trials  # no bit of a safetensors file is idle


def test_row_08_the_library_alone_would_not_notice(best):
    """Without our digest a flipped weight loads: the check is not the format's."""
    from safetensors.torch import load_file

    raw = bytearray(best.read_bytes())
    raw[-2] ^= 64
    best.write_bytes(raw)
    assert load_file(best)
    with pytest.raises(InputError, match="does not match its digest"):
        checkpoint.read(best)


def _rename(tensors):
    tensors["linear.wieght"] = tensors.pop("linear.weight")


CHANGES = {
    "missing": (lambda t: t.pop("linear.weight"), ["linear.weight is missing"]),
    "extra": (lambda t: t.update(more=torch.zeros(2)), ["more is not in the architecture"]),
    "renamed": (_rename, ["linear.weight is missing", "linear.wieght is not in"]),
    "shape": (lambda t: t.update({"linear.bias": torch.zeros(11)}),
              ["linear.bias is torch.float32 (11,), not torch.float32 (10,)"]),
    "dtype": (lambda t: t.update({"linear.bias": torch.zeros(10).half()}),
              ["linear.bias is torch.float16 (10,), not torch.float32 (10,)"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("stage", ["attack", "softlabels"])
def test_row_09_whole_files_of_another_net(cli, best, name, stage):
    change, words = CHANGES[name]
    tensors, info = checkpoint.read(best)
    change(tensors)
    checkpoint.write(best, tensors, {k: v for k, v in info.items() if k != "digest"})
    refused(cli(stage, best, *(ATTACK if stage == "attack" else [])), 4, best.name, *words)


def bound() -> None:
    """Allow this process 200 MB and 20 seconds of computing more."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(
        resource.RLIMIT_AS, (used + (200 << 20), resource.getrlimit(resource.RLIMIT_AS)[1])
    )
    seconds = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2])) + 20
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def test_row_10_hostile_headers_cost_neither_time_nor_memory(tmp_path):
    """Each within 20 seconds of computing and 200 MB more than the process has."""
    deep = b'{"__metadata__":{"advkit":"' + b"[" * 900_000 + b'"}}'
    texts = {
        "claims 99 MB": (99_000_000, b"{}"),
        "claims all": (2**63, b"{}"),
        "deep description": (len(deep), deep),
        "deep header": (400_000, b'{"a":' + b"[" * 399_995),
        "huge tensor": (70, b'{"a":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,4]}}   '),
    }
    for name, (size, text) in texts.items():
        (tmp_path / name).write_bytes(size.to_bytes(8, "little") + text)
    paths = [tmp_path / name for name in texts]

    def work(case: int) -> tuple[str, str]:
        bound()
        try:
            checkpoint.read(paths[case])
        except InputError:
            return "refused", ""
        return "read", str(paths[case])

    found = _child.run(range(len(paths)), work, patience=200)
    assert found.violations == []
    assert found.counts == {"refused": len(texts)}
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


class Payload:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("stage", ["attack", "softlabels", "inspect", "analyze masking"])
def test_row_11_a_pickle_is_no_checkpoint(cli, tmp_path, monkeypatch, stage):
    monkeypatch.chdir(tmp_path)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "x.safetensors").write_bytes(pickle.dumps(Payload(), protocol))
        more = ATTACK if stage == "attack" else []
        refused(cli(*stage.split(), "x.safetensors", *more), 3, "x.safetensors")
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(Payload()))  # it would have done so
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("trials", [60, pytest.param(600, marks=full)])
def test_row_13_damaged_hdf5(cli, logits, trials):
    assert flipped(logits, trials) > trials // 10  # bits in free space are idle
    raw, draw = logits.read_bytes(), random.Random(1)
    for _ in range(trials):
        logits.write_bytes(raw[: draw.randrange(len(raw))])
        with pytest.raises(InputError, match=r"truncated or corrupt|empty|this is|not a logits"):
            hdf5.read_logits(logits)
    refused(cli("analyze", "entropy", logits), 3, logits.name)


WRITER = """
import h5py, os, signal, sys
file = h5py.File(sys.argv[1], "r+", libver="latest")
if sys.argv[2] == "swmr":
    file.swmr_mode = True
file["clean/logits"][0] = 0
file.flush()
print("open", flush=True)
sys.stdin.read()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("mode", ["plain", "swmr"])
@pytest.mark.parametrize("words", ["analyze entropy ?", "inspect ?"])
def test_row_14_hdf5_open_for_writing(cli, logits, mode, words):
    """A writer that holds the file is waited for by nobody; one that left it open is named.

    A SWMR writer holds no lock, alive or dead: it is told to be either.
    """
    read = [logits if word == "?" else word for word in words.split()]
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, logits, mode],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as writer:  # fmt: skip
        assert writer.stdout.readline() == "open\n"
        expected = (7, "wait for it") if mode == "plain" else (3, "never closed it")
        refused(cli(*read), *expected, logits.name)
        assert writer.poll() is None  # it holds the file to the end: nobody waited
        writer.stdin.close()
    assert writer.returncode < 0
    refused(cli(*read), 3, logits.name, "never closed it" if mode == "swmr" else "corrupt")


def older(path):
    """Give a file the description of another format version, with a right digest."""
    if path.suffix == ".safetensors":
        kind = "state" if path.stem == "state" else "checkpoint"
        tensors, info = checkpoint.read(path, kind)
        checkpoint.write(path, tensors, {**_bare(info), "schema": 0})
        return
    with h5py.File(path, "r+") as file:
        info = json.loads(file.attrs["advkit"])
        del file.attrs["advkit"]
        hdf5.set_text(file, "advkit", provenance.canonical({**info, "schema": 0}))


def _bare(info):
    return {key: value for key, value in info.items() if key != "digest"}


@pytest.mark.parametrize("stage", ["attack", "softlabels", "inspect", "analyze entropy"])
def test_row_34_files_of_an_older_format(cli, best, logits, stage):
    path = logits if stage == "analyze entropy" else best
    older(path)
    more = ATTACK if stage == "attack" else []
    refused(cli(*stage.split(), path, *more), 4, path.name, "format version 0", "advkit version")


@full
def test_row_34_an_unfinished_run_of_an_older_format(server, tmp_path):
    words = ["train", "--method", "at", "--data", "digits", "--limit", "200", "--width", "4",
             "--batch-size", "32", "--epochs", "3", "-o", "run", "-q"]  # fmt: skip
    assert server.run(*words, cwd=tmp_path, signals=[["step", 8, "SIGTERM"]]).code == 143
    older(tmp_path / "run" / "state.safetensors")
    refused(server.run(*words, "--resume", cwd=tmp_path), 4, "state", "format version 0")


def test_row_34_a_finished_run_is_done(cli, tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    outcome = cli("train", "--resume", "-o", tmp_path / "run")
    assert (outcome.code, outcome.record["role"]) == (0, "best")
    assert outcome.record["path"] == str(tmp_path / "run" / "best.safetensors")
    assert "already done" in outcome.err
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
