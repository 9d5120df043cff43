"""Texts that begin with a UTF-8 byte order mark, as editors and shells elsewhere write them."""

from __future__ import annotations

import shutil
from codecs import BOM_UTF8
from pathlib import Path

import pytest

from tests.conftest import TINY


def marked(path: Path, text: str | None = None) -> Path:
    """Put a mark before a text, or before what the file holds."""
    path.write_bytes(BOM_UTF8 + (path.read_bytes() if text is None else text.encode()))
    return path


def test_a_configuration(cli, tmp_path):
    path = marked(tmp_path / "c.toml", 'method = "trades"\ndata = "digits"\narch = "small-cnn"\n')
    outcome = cli("train", "--config", path, "--print-config")
    assert outcome.code == 0, outcome.err
    assert 'method = "trades"' in outcome.out + outcome.err


@pytest.mark.parametrize("name", ["config.toml", "metrics.jsonl"])
def test_the_files_of_a_run(cli, tiny_run, tmp_path, name):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    marked(run / name)
    outcome = cli("train", "--method", "adr", *TINY, "-o", run)
    assert outcome.code == 0, outcome.err
    assert "already done" in outcome.err
    assert cli("analyze", "curves", run).code == 0


@pytest.mark.parametrize("places", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("records", [False, True])
def test_standard_input(cli, tiny_logits, tmp_path, places, records):
    """Each list of paths or records may bring its own: `cat a.txt b.txt | ...`."""
    other = tmp_path / "b.h5"
    shutil.copy(tiny_logits, other)
    lines = [f'{{"kind": "logits", "path": "{path}"}}' if records else str(path)
             for path in (tiny_logits, other)]  # fmt: skip
    raw = b"".join((BOM_UTF8 if place in places else b"") + line.encode() + b"\r\n"
                   for place, line in enumerate(lines))  # fmt: skip
    outcome = cli("analyze", "entropy", stdin=raw)
    assert outcome.code == 0, outcome.err
    assert len(outcome.records) == 2


def test_an_analysis_as_json(cli, tiny_logits, tmp_path):
    out = tmp_path / "e.json"
    assert cli("analyze", "entropy", tiny_logits, "-o", out).code == 0
    marked(out)
    assert cli("inspect", out).code == 0


def test_an_oracle(tmp_path):
    from advkit.analyses.discrepancy import read_oracle

    path = marked(tmp_path / "o.csv", "path,a,b\nx.png,1,3\n")
    assert read_oracle(path, ["a", "b"])["x.png"].tolist() == [0.25, 0.75]
