"""Shards: how they are named, and where their files lie."""

from pathlib import Path

import pytest

from advkit.errors import UsageError
from advkit.parallel.shards import Shard, parse, whole


def test_read():
    assert parse("1/1") == Shard(1, 1)
    assert parse("12/100") == Shard(12, 100)
    assert (str(Shard(2, 3)), Shard(2, 3).described) == ("2/3", [2, 3])


@pytest.mark.parametrize(
    "text", ["", "1", "0/3", "4/3", "1/0", "-1/3", "1/3/4", "a/3", "1/²", "1 / 3"]
)
def test_not_a_shard(text):
    with pytest.raises(UsageError, match="--shard"):
        parse(text)


@pytest.mark.parametrize("name", ["best.fgsm-linf-8-255.h5", "a.h5", "a.shard-1-of-2.b.h5"])
def test_names_lead_back_to_the_whole(name):
    place = Path("some") / name
    shards = {Shard(k, 12).beside(place) for k in range(1, 13)}
    assert len(shards) == 12
    assert {whole(each) for each in shards} == {place}


def test_no_shard_by_name():
    assert whole(Path("a.shard-1-of-2.part.h5")) is None
    assert whole(Path("best.h5")) is None


def test_more_shards_than_pieces():
    Shard(3, 3).require(3, "examples")
    with pytest.raises(UsageError, match="--shard 1/4: only 3 examples"):
        Shard(1, 4).require(3, "examples")
