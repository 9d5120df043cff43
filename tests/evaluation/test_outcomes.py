"""The rows of an evaluation by hand: who is visited, who is broken, and what is restored."""

from __future__ import annotations

import torch

from advkit.artifacts.hdf5 import ROBUST, WRONG
from advkit.evaluation.outcomes import NEVER, Outcomes
from advkit.evaluation.passes import Pass

ZERO, ONE = [1.0, 0.0], [0.0, 1.0]


def outcomes(images=None):
    """Four examples of class 0; the last is wrong when clean."""
    made = Outcomes.unknown(torch.zeros(4, dtype=torch.int64), 2, images)
    made.clean[:] = torch.tensor([ZERO, ZERO, ZERO, ONE])
    made.close_clean_pass()
    return made


def attack(judges=True, everyone=False, place=0):
    return Pass("it", lambda x, y, _: x, judges, everyone, place)


def judged(made, number, a_pass, rows, logits):
    rows, x = torch.tensor(rows), torch.full((len(rows), 1, 1, 1), 0.5)
    norm = torch.full((len(rows),), 0.125)
    return made.judge(number, a_pass, rows, torch.tensor(logits), norm, x).tolist()


def test_who_is_broken_and_by_whom():
    made = outcomes()
    assert judged(made, 3, attack(place=2), [0, 1], [ONE, ZERO]) == [0]
    assert made.broken_by.tolist() == [2, ROBUST, ROBUST, WRONG]
    assert made.fell_in.tolist() == [3, NEVER, NEVER, NEVER]
    assert made.norm.tolist() == [0.125, 0, 0, 0]
    assert made.adversarial.tolist() == [ONE, ZERO, ZERO, ONE]
    assert judged(made, 4, attack(place=3), [0], [ONE]) == []  # the first to break it stays


def test_a_pass_for_the_rest_gives_logits_and_no_verdicts():
    made = outcomes()
    rest = attack(judges=False, everyone=True)
    assert judged(made, 1, rest, [1, 3], [ONE, ZERO]) == [1, 3]
    assert made.broken_by.tolist() == [ROBUST] * 3 + [WRONG]
    assert made.adversarial.tolist() == [ZERO, ONE, ZERO, ZERO]


def test_who_is_visited():
    made = outcomes()
    judged(made, 0, attack(), [0], [ONE])
    assert made.visited(0, attack()).tolist() == [0, 1, 2]  # as when the pass began
    assert made.visited(1, attack()).tolist() == [1, 2]
    assert made.visited(1, attack(everyone=True)).tolist() == [0, 1, 2, 3]
    assert made.visited(1, attack(judges=False, everyone=True)).tolist() == [1, 2, 3]


def test_out_of_distribution_nobody_is_wrong():
    made = Outcomes.unknown(torch.full((2,), -1), 2, None)
    made.close_clean_pass()
    assert made.broken_by.tolist() == [ROBUST] * 2


def test_what_is_stored_comes_back():
    made, again = outcomes(torch.zeros(4, 1, 1, 1)), outcomes(torch.zeros(4, 1, 1, 1))
    changed = made.judge(
        0, attack(), torch.tensor([0, 1]), torch.tensor([ONE, ZERO]), torch.ones(2),
        torch.full((2, 1, 1, 1), 0.5),
    )  # fmt: skip
    again.restore(made.stored(), [made.patch(changed)])
    for name in ("adversarial", "norm", "broken_by", "fell_in", "images"):
        assert torch.equal(getattr(again, name), getattr(made, name)), name
    assert again.images.flatten().tolist() == [0.5, 0, 0, 0]
