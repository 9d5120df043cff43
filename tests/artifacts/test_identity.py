"""One answer to "made by the same work?", from descriptions and for work that is yet to be done."""

from pathlib import Path

import pytest

from advkit.artifacts import identity
from advkit.errors import MismatchError
from tests.described import described

INFO = described("logits", implementation="pyautoattack 0.2")


def test_an_artifact_is_of_the_work_that_is_asked_for():
    wanted = identity.of_work(INFO["config"], "sha256:net", "sha256:data", "pyautoattack 0.2")
    assert identity.differences(identity.identity(INFO), wanted) == []
    identity.require_same(identity.identity(INFO), wanted, Path("x.h5"))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"eps": "4/255"}, "eps: 8/255 -> 4/255"),
        ({"steps": None}, "steps: 10 -> None"),
        ({"version": "plus"}, "version: None -> plus"),
        ({"checkpoint": "sha256:1"}, "checkpoint: sha256:net -> sha256:1"),
        ({"data digest": "sha256:1"}, "data digest: sha256:data -> sha256:1"),
        ({"implementation": None}, "implementation: pyautoattack 0.2 -> None"),
    ],
)
def test_what_differs_is_named(change, what):
    before = identity.identity(INFO)
    assert identity.differences(before, {**before, **change}) == [what]
    with pytest.raises(MismatchError, match=rf"^x.h5 was made otherwise \({what}\): choose anoth"):
        identity.require_same(before, {**before, **change}, Path("x.h5"))


def test_of_long_values_the_key_is_enough_where_a_message_is_to_be_short():
    assert identity.differences({"a": [1]}, {"a": [2], "b": {}}, brief=True) == ["a", "b"]
    assert identity.differences({"a": [1]}, {"a": [2]}) == ["a: [1] -> [2]"]


def test_the_net_is_called_what_the_stage_calls_it():
    assert identity.identity(INFO, "teacher")["teacher"] == "sha256:net"
