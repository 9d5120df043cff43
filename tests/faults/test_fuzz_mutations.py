"""Damaged files of every format: a clear error or the same content, and never anything else."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from pathlib import Path

import pytest

from advkit import registry
from advkit.errors import InputError
from tests.faults import _child
from tests.faults._formats import CHECKED, FORMATS, Format, make_metrics, reader
from tests.faults._mutate import KINDS, mutated

EACH = pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
FAST, MORE = range(20), range(20, 450)


def broken(kind: Format, folder: Path, cases: range) -> list[str]:
    """Run the cases and return what broke a promise."""
    found = kind.outcomes(folder, cases)
    assert sum(found.counts.values()) == len(cases)
    assert found.counts["refused"] > len(cases) // 5, found.counts
    return found.violations


@EACH
def test_damage_is_refused_or_changes_nothing(kind, tmp_path):
    assert broken(kind, tmp_path, FAST) == []


@pytest.mark.faults
@EACH
def test_more_damage_is_refused_or_changes_nothing(kind, tmp_path):
    assert broken(kind, tmp_path, MORE) == []


def test_every_data_set_of_files_is_damaged():
    kinds = {part.name for part in registry.parts("data").values()
             if part.constants.get("FILES", True)}  # fmt: skip
    assert kinds == {name for name in kinds if any(each.name.startswith(name) for each in FORMATS)}


# --- the instruments themselves ---


@pytest.mark.parametrize("name", KINDS)
def test_each_way_of_damaging_does_damage(name, monkeypatch):
    monkeypatch.setattr("tests.faults._mutate.KINDS", {name: KINDS[name]})
    raw, other = bytes(range(256)) * 4, bytes(1024)
    found = {mutated(raw, other, str(seed)) for seed in range(20)}
    assert len({content for content, _ in found}) > 10
    assert {how.split("+")[0] for _, how in found} == {name}
    assert mutated(raw, other, "0") == mutated(raw, other, "0")


@pytest.mark.parametrize("raw", [b"", b"1"])
def test_files_of_nothing_can_be_damaged(raw):
    for seed in range(300):
        mutated(raw, b"2", str(seed))


def _work(case: int) -> tuple[str, str]:
    """Break one promise in each case from 1 on."""
    if case == 1:
        ctypes.string_at(0)
    elif case == 2:
        time.sleep(60)
    elif case == 3:
        bytearray(4 * _child.MEMORY)
    elif case == 4:
        raise KeyError("leaked")
    elif case == 5:
        os._exit(7)
    elif case == 6:
        raise SystemExit
    return "refused", ""


def test_a_child_names_crashes_hangs_and_leaks_and_goes_on():
    found = _child.run([0, 1, 2, 3, 4, 5, 6, 7], _work, patience=1)
    assert found.counts == {
        "refused": 2, "crash": 2, "hang": 1, "memory": 1, "exception": 2,
    }  # fmt: skip
    words = ["1: crash: SIGSEGV", "2: hang: no answer", "3: memory: MemoryError",
             "4: exception: KeyError: \"'leaked'\"", "5: crash: exit 7",
             "6: exception: SystemExit"]  # fmt: skip
    for line, word in zip(found.violations, words, strict=True):
        assert word in line


def _planted(act) -> dict[str, int]:
    """Return the outcomes of a format whose reader acts in its one case."""
    here = Path(os.environ["PYTEST_CURRENT_TEST"].split("::")[0]).parent
    kind = Format("planted", lambda *_: None, (), lambda _: act())

    def work(case: int) -> tuple[str, str]:
        return kind._judged(here, ["known"])

    return dict(_child.run([0], work).counts)


def _raises(text: str):
    def act() -> None:
        raise InputError(text)

    return act


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (lambda: "known", "same"),
        (lambda: "other", "changed"),
        (_raises("no place named"), "unclear"),
        (_raises("tests/faults: clear"), "refused"),
        (_raises(f"tests/faults: {'x' * 2000}"), "unclear"),
        (lambda: subprocess.run(["true"], check=False) and "known", "action"),
        (lambda: os.system("true") or "known", "action"),
        (lambda: Path(os.devnull).write_text("x") and "known", "action"),
    ],
)
def test_the_judge_sees_what_it_should(act, outcome):
    assert _planted(act) == {outcome: 1}


# --- what the campaign found, one by one ---


def test_a_metrics_file_of_lists_without_end_is_corrupt(tmp_path):
    from advkit.training.run_folder import RunFolder

    make_metrics(tmp_path, 0)
    with RunFolder(tmp_path).metrics_file.open("a") as file:
        file.write("[" * 100_000 + "\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl: corrupt: line 5 is not JSON"):
        RunFolder(tmp_path).rows()


def test_a_damaged_pixel_of_a_png_is_refused(tmp_path):
    """Pillow does not look at the checksums of a PNG's pixels: the first was another value."""
    kind = next(each for each in FORMATS if each.name == "folder-png")
    kind.make(tmp_path, 0)
    path = tmp_path / f"test/cat/0{CHECKED[0]}"
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"IDAT") + 15] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"0\.png: not a readable image: damaged: the checksum"):
        reader("folder")(tmp_path)
