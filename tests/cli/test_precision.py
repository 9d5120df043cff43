"""--amp and --compile on the command line."""

import pytest
import torch

from tests.conftest import TINY


def test_amp_is_refused_where_it_does_not_pay(cli, tmp_path, monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    done = cli("train", *TINY, "--amp", "--device", "cpu", "-o", tmp_path / "run")
    assert (done.code, done.out) == (2, "")
    assert "--amp: this processor has neither AVX512-BF16 nor AMX" in done.err
    assert not (tmp_path / "run").exists()


def test_without_a_compiler_compile_is_refused(cli, tmp_path, monkeypatch):
    def broken(_):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", broken)
    done = cli("train", *TINY, "--compile", "--device", "cpu", "-o", tmp_path / "run")
    assert (done.code, done.out) == (2, "")
    assert "--compile: torch.compile does not work here (RuntimeError: no compiler)" in done.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tf32"], "--tf32: there is no TF32 on cpu; leave --tf32 out"),
        (["--compile", "--compile-mode", "reduce-overhead"], "CUDA graphs need a CUDA device"),
        (["--compile-mode", "reduce-overhead"], "--compile-mode has no effect without --compile"),
    ],
)
def test_what_is_for_cuda_is_refused_elsewhere(cli, tmp_path, flags, message):
    done = cli("train", *TINY, *flags, "--device", "cpu", "-o", tmp_path / "run")
    assert (done.code, done.out) == (2, "")
    (error,) = (line for line in done.err.splitlines() if "error" in line)
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flag", ["--amp", "--compile", "--tf32"])
def test_the_configuration_says_so(cli, flag):
    plain = cli("train", *TINY, "--print-config").out
    chosen = cli("train", *TINY, "--print-config", flag).out
    name = flag[2:]
    assert f"{name} = false  # default" in plain
    assert f"{name} = true  # flag" in chosen
