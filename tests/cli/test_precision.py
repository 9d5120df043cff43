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


@pytest.mark.parametrize("flag", ["--amp", "--compile"])
def test_the_configuration_says_so(cli, flag):
    plain = cli("train", *TINY, "--print-config").out
    chosen = cli("train", *TINY, "--print-config", flag).out
    name = flag[2:]
    assert f"{name} = false  # default" in plain
    assert f"{name} = true  # flag" in chosen
