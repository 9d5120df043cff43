"""Partial work: written once, read back in order, refused where it is another's."""

import pytest
import torch

from advkit.artifacts import checkpoint
from advkit.errors import InputError, MismatchError
from advkit.evaluation.partial import Partial, remove

IDENTITY = {"config": {"eps": "8/255"}, "checkpoint": "sha256:0", "data": "sha256:d",
            "environment": {}}  # fmt: skip
SHAPE = (3, 16, 16)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a[b].h5.part"


def images(count, value):
    return torch.full((count, *SHAPE), value)


def filled(path, batches):
    kept = Partial(path, IDENTITY)
    for number in range(batches):
        books = {"norm": torch.full((batches * 4,), float(number))}
        rows = torch.arange(4) + 4 * number
        kept.save(books, (0, number + 1), (rows, images(4, float(number))))
    return kept


def test_comes_back_as_it_was(path):
    filled(path, 3)
    books, done, patches = Partial(path, IDENTITY).load()
    assert books["norm"].tolist() == [2.0] * 12
    assert done == (0, 3)
    assert [rows.tolist() for rows, _ in patches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert [float(each.mean()) for _, each in patches] == [0, 1, 2]
    assert patches[0][1].shape == (4, *SHAPE)


def test_images_are_written_once(path, monkeypatch):
    """What is written grows with the batches and not with their square."""
    written, write = [], checkpoint.write

    def counted(place, tensors, description):
        digest = write(place, tensors, description)
        written.append(place.stat().st_size)
        return digest

    monkeypatch.setattr(checkpoint, "write", counted)
    totals = []
    for batches in (5, 10):
        written.clear()
        filled(path, batches)
        totals.append(sum(written))
    assert totals[1] < 2.1 * totals[0]
    assert totals[0] > 5 * 4 * 4 * 3 * 16 * 16


def test_goes_on_counting(path):
    filled(path, 2)
    kept = Partial(path, IDENTITY)
    kept.load()
    kept.save({"norm": torch.ones(1)}, (1, 0), (torch.tensor([7]), images(1, 9.0)))
    _, done, patches = Partial(path, IDENTITY).load()
    assert done == (1, 0)
    assert [rows.tolist() for rows, _ in patches][-1] == [7]
    assert len(patches) == 3


def test_without_images_there_is_one_file(path):
    kept = Partial(path, IDENTITY)
    kept.save({"norm": torch.ones(1)}, (0, 1), None)
    kept.save({"norm": torch.ones(1)}, (0, 2), (torch.zeros(0, dtype=torch.int64), images(0, 0)))
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert Partial(path, IDENTITY).load()[2] == []


def test_nothing_to_go_on_from(path):
    assert Partial(path, IDENTITY).load() is None


def test_of_another_evaluation(path):
    filled(path, 2)
    with pytest.raises(MismatchError, match="another"):
        Partial(path, {**IDENTITY, "checkpoint": "sha256:1"}).load()


@pytest.mark.parametrize("change", ["torn", "gone"])
def test_images_that_are_not_whole(path, change):
    filled(path, 2)
    piece = path.with_name(f"{path.name}.1")
    piece.write_bytes(piece.read_bytes()[:-5]) if change == "torn" else piece.unlink()
    with pytest.raises(InputError, match=r"part\.1"):
        Partial(path, IDENTITY).load()


def test_remove_takes_its_own_files_only(path):
    filled(path, 2)
    others = [path.with_name(name) for name in ("a[b].h5", "a[b].h5.part.x", "ab.h5.part.1")]
    for each in others:
        each.write_text("kept")
    remove(path)
    assert sorted(path.parent.iterdir()) == sorted(others)


@pytest.mark.parametrize("key", ["done", "patches"])
def test_books_that_do_not_say_what_is_done_are_refused(path, key):
    filled(path, 1)
    books, info = checkpoint.read(path, "partial")
    checkpoint.write(path, books, {name: value for name, value in info.items() if name != key})
    with pytest.raises(InputError, match="does not say what is done"):
        Partial(path, IDENTITY).load()
