"""Fixtures of the fault table: runs that nobody disturbed.

They are compared with the same runs, disturbed: whatever their nets learn.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults._pairs import words
from tests.faults._runs import NET, contents


@pytest.fixture(scope="session")
def teacher(server, tmp_path_factory) -> Path:
    """A finished natural run."""
    folder = tmp_path_factory.mktemp("teacher")
    words = ["pretrain-teacher", *NET, "--epochs", "2", "-o", "teacher"]
    assert server.run(*words, cwd=folder).code == 0
    return folder / "teacher"


@pytest.fixture(scope="session")
def labels(server, teacher) -> Path:
    """Its logits for the training split."""
    words = ["softlabels", "teacher/best.safetensors", "--views", "2", "-o", "labels.h5", "-q"]
    assert server.run(*words, cwd=teacher.parent).code == 0
    return teacher.parent / "labels.h5"


@pytest.fixture(scope="session")
def whole(server, tmp_path_factory):
    """Give, for the words of a command, the contents of the folder `run` that it leaves."""
    made: dict[tuple[str, ...], tuple[Path, dict[str, str]]] = {}

    def get(*words: object) -> tuple[Path, dict[str, str]]:
        key = tuple(map(str, words))
        if key not in made:
            folder = tmp_path_factory.mktemp("whole")
            outcome = server.run(*words, "-o", "run", cwd=folder)
            assert outcome.code == 0, outcome.err
            made[key] = folder / "run", contents(folder / "run")
        return made[key]

    return get


@pytest.fixture(scope="session")
def logits(server, teacher) -> Path:
    """The teacher's logits under FGSM."""
    command = ["attack", "teacher/best.safetensors", "--attack", "fgsm", "--limit", 40, "-q"]
    assert server.run(*command, "-o", "logits.h5", cwd=teacher.parent).code == 0
    return teacher.parent / "logits.h5"


@pytest.fixture(scope="session")
def stages(teacher, labels, logits):
    """Give a stage's short command and the name of its output."""
    return lambda name: words(name, teacher / "best.safetensors", labels, logits)
