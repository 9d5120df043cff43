"""What is said beside an evaluation's figures."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from advkit.artifacts.hdf5 import ROBUST
from advkit.evaluation import remarks
from advkit.runtime.reporting import Reporter


@pytest.mark.parametrize(
    ("broken", "n", "warned"), [(1, 20, False), (2, 20, True), (2, 1000, False), (3, 1000, True)]
)
def test_square_alone_is_alarming_from_upstream_s_share_on_and_one_example_never_is(
    broken, n, warned
):
    said: list[str] = []

    class Listening(Reporter):
        def warn(self, text: str) -> None:
            said.append(text)

    verdicts = torch.full((n,), ROBUST)
    verdicts[:broken] = 1
    labels = torch.zeros(n, dtype=torch.int64)
    logits = SimpleNamespace(
        adversarial=torch.tensor([[1.0, 0.0]]).repeat(n, 1),
        broken_by=verdicts,
        labels=labels,
        attacks=("apgd-ce", "square"),
        info={"config": {"attack": "autoattack"}},
    )
    remarks.verdicts(logits, Listening())
    assert [f"Square broke {broken} of {n} examples" in text for text in said] == [True] * warned
