"""The error tree: exit codes as the contract fixes them, and messages of one line."""

from __future__ import annotations

import errno
import os
import pickle
import signal

import pytest

from advkit import errors
from advkit.errors import (
    AdvkitError,
    Elsewhere,
    InputError,
    Stopped,
    StorageError,
    UsageError,
    near,
    storage,
    unknown,
)

CODES = {
    "AdvkitError": 1,
    "UsageError": 2,
    "InputError": 3,
    "MismatchError": 4,
    "NumericalError": 5,
    "StorageError": 6,
    "BusyError": 7,
    "Verdict": 8,
}


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_exit_codes_are_the_contracts(name, code):
    kind = getattr(errors, name)
    assert kind("why").code == code
    assert issubclass(kind, AdvkitError)


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGHUP, 129)],
)
def test_a_signal_ends_with_128_plus_its_number(signum, code):
    assert Stopped(signum).code == code
    assert Stopped.code == 1  # the code of one instance never becomes that of the class


def test_every_error_class_is_in_the_table():
    found = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, AdvkitError)
    }
    assert found == {*CODES, "Stopped", "Elsewhere"}


def test_elsewhere_has_the_code_of_the_rank_that_failed():
    assert Elsewhere(4).code == 4


def test_of_many_names_only_the_nearest_are_listed():
    names = [f"name{number}" for number in range(30)]
    assert len(str(unknown("method", "nama7", names))) < 80
    assert "known: name0, " in str(unknown("method", "xyz", names))


def test_unknown_names_the_nearest_and_all_known():
    error = unknown("method", "tradez", ["trades", "at"])
    assert isinstance(error, UsageError)
    assert str(error) == "unknown method 'tradez': did you mean 'trades'? (known: at, trades)"


def test_unknown_without_a_neighbour_asks_nothing():
    assert str(unknown("method", "xyz", ["at"])) == "unknown method 'xyz' (known: at)"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "file-size limit"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.ENOENT, "nothing can be made in its folder"),
        (errno.ENOTDIR, "file is in the place"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_storage_says_what_the_disk_said(number, reason):
    error = storage(OSError(number, os.strerror(number)), "out.h5")
    assert isinstance(error, StorageError)
    assert reason in str(error)
    assert "out.h5" in str(error)
    assert "\n" not in str(error)


def test_storage_without_a_number_keeps_the_text():
    assert "strange" in str(storage(OSError("strange"), "x"))


def test_a_message_is_one_printable_line_whatever_a_file_is_called():
    error = InputError("a\nb\x1b[2J\x1c\udcff é.h5: no such file")
    assert str(error) == r"a\nb\x1b[2J\x1c\udcff é.h5: no such file"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("typed", "known", "expected"),
    [
        ("ADR", ["adr", "adr-wa", "at"], ["adr"]),
        ("Trades_ADR", ["trades", "trades-adr"], ["trades-adr"]),
        ("ResNet-18", ["resnet18", "resnet8"], ["resnet18"]),
        ("preactresnet", ["preact-resnet18", "resnet18"], ["preact-resnet18"]),
        # of another stem than the one typed, however like its letters are
        ("ard-wb", ["ard-wa", "iad-wa", "at-wa"], ["ard-wa"]),
        ("calib", ["calibration", "classes"], ["calibration"]),
        ("wideresnet", ["resnet18", "resnet8", "wrn"], ["wrn"]),
        ("out-of-distribution", ["ood", "table"], ["ood"]),
        # a slip is no abbreviation: e, p and s stand in it too
        ("epochss", ["eps", "epochs"], ["epochs"]),
        ("onehot", ["none", "pgd"], []),
        ("", ["a"], []),
        ("--", ["--lr"], []),
    ],
)
def test_near_names_look_past_case_and_dashes_and_prefer_the_stem(typed, known, expected):
    assert near(typed, known) == expected
