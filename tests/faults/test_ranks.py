"""Row 35: of two processes that train together one is killed."""

from __future__ import annotations

import signal
import socket
import time

import pytest

from advkit.artifacts import checkpoint
from tests.faults._runs import NET, contents, litter

pytestmark = pytest.mark.faults
WORDS = ["train", "--method", "adr", *NET, "--epochs", "6", "--attack-steps", "4", "-o", "run"]


def both(server, folder, *more):
    """Start two ranks by hand, as torchrun would, but with nobody to look after them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    return [
        server.start(
            *WORDS, *more, cwd=folder,
            env={**shared, "MASTER_PORT": port, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def together(server, tmp_path_factory):
    """The contents of a run of two ranks that nobody disturbed."""
    folder = tmp_path_factory.mktemp("together")
    assert [run.end().code for run in both(server, folder)] == [0, 0]
    return contents(folder / "run")


@pytest.mark.parametrize("victim", [0, 1])
def test_row_35_a_killed_rank(server, together, tmp_path, victim):
    runs = both(server, tmp_path)
    state = tmp_path / "run" / "state.safetensors"
    until = time.monotonic() + 200
    while not state.exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    runs[victim].send(signal.SIGKILL)
    assert runs[victim].end().code == -signal.SIGKILL
    other = runs[1 - victim].end()
    assert other.code > 0
    assert other.out == ""
    assert "another process of the run has ended: go on with --resume" in other.err
    checkpoint.read(state, "state")
    checkpoint.read(tmp_path / "run" / "best.safetensors")
    ended = [run.end() for run in both(server, tmp_path, "--resume")]
    assert [each.code for each in ended] == [0, 0], ended
    assert contents(tmp_path / "run") == together
    assert litter(tmp_path) == []
