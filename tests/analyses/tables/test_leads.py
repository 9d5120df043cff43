"""What may be printed bold: the best of a column, and only beyond noise."""

import pytest
import torch
from scipy.stats import ttest_ind

from advkit.analyses import table
from advkit.analyses.tables import leads as _leads
from tests.analyses.test_table import logits_of


def verdicts(method, standing, *, n=40, seed=0, **more):
    """A file of n examples, all right when clean, of which the places in `standing` are robust."""
    found = logits_of(method, n=n, clean=n, robust=n, seed=seed, **more)
    broken = torch.zeros(n, dtype=torch.int8)
    broken[list(standing)] = -1
    found.broken_by.copy_(broken)
    return found


def led(*inputs):
    return {group["method"]: group["leads"] for group in table.analyze(inputs).groups}


def test_mcnemar_by_enumeration():
    """b = 5, c = 0: 2·(1/2)⁵; b = 6, c = 1: 2·(7 + 1)/2⁷; nothing discordant: 1."""
    first = torch.tensor([True] * 5 + [False] * 5)
    assert _leads.paired_p(first, torch.zeros(10, dtype=torch.bool)) == pytest.approx(2 / 32)
    a = torch.tensor([True] * 6 + [False] + [True] * 3)
    b = torch.tensor([False] * 6 + [True] + [True] * 3)
    assert _leads.paired_p(a, b) == pytest.approx(2 * 8 / 128)
    assert _leads.paired_p(a, a) == 1


@pytest.mark.parametrize(("more", "leads"), [(5, []), (6, ["robust_best"])])
def test_one_run_each_by_mcnemar(more, leads):
    """Six examples that one alone has right are p = 1/32; five are p = 1/16."""
    found = led(verdicts("adr", range(10 + more)), verdicts("at", range(10)))
    assert found == {"adr": leads, "at": []}


def test_discordant_examples_count_both_ways():
    """15 against 9 right as above, but with nine that only the other has: b = 15, c = 9."""
    found = led(verdicts("adr", range(15)), verdicts("at", range(20, 29)))
    assert found == {"adr": [], "at": []}


def test_over_seeds_by_welch():
    hits = {"adr": (22, 23, 24), "at": (18, 19, 20)}
    p = ttest_ind(*([k / 40 for k in of] for of in hits.values()), equal_var=False).pvalue
    assert p < 0.05
    inputs = [verdicts(m, range(k), seed=s) for m, of in hits.items() for s, k in enumerate(of)]
    assert led(*inputs) == {"adr": ["robust_best"], "at": []}
    hits["at"] = (18, 19, 24)
    p = ttest_ind(*([k / 40 for k in of] for of in hits.values()), equal_var=False).pvalue
    assert p > 0.05
    inputs = [verdicts(m, range(k), seed=s) for m, of in hits.items() for s, k in enumerate(of)]
    assert led(*inputs) == {"adr": [], "at": []}


def test_every_rival_counts():
    """Far ahead of the second line but not of the third, which scatters."""
    hits = {"adr": (30, 31, 32), "at": (20, 21, 22), "trades": (4, 20, 31)}
    inputs = [verdicts(m, range(k), seed=s) for m, of in hits.items() for s, k in enumerate(of)]
    assert led(*inputs) == {"adr": [], "at": [], "trades": []}
    assert led(*inputs[:6])["adr"] == ["robust_best"]


def test_what_is_never_decided():
    one, many = verdicts("adr", range(40)), [verdicts("at", range(k), seed=k) for k in (4, 5)]
    assert led(one) == {"adr": []}  # nothing to be better than
    assert led(one, *many) == {"adr": [], "at": []}  # one run against several
    same = [verdicts(m, range(k), seed=s) for m, k in (("adr", 40), ("at", 4)) for s in (0, 1)]
    assert led(*same) == {"adr": [], "at": []}  # no seed differs from another
    other = verdicts("at", range(4), digest="sha256:e")
    assert led(one, other) == {"adr": [], "at": []}  # other images
    short = verdicts("at", range(4), n=20)
    assert led(one, short) == {"adr": [], "at": []}  # other examples


@pytest.mark.parametrize("other", [{"data": "svhn"}, {"config": {"attack": "fgsm", "norm": "linf",
                                                                "eps": "8/255"}}])  # fmt: skip
def test_rivals_share_data_and_attack(other):
    assert led(verdicts("adr", range(30)), verdicts("at", range(5), **other)) == {
        "adr": [], "at": [],
    }  # fmt: skip


def test_clean_and_final_lead_too():
    """All forty right when clean against thirty: McNemar of 10 and 0."""
    first = verdicts("adr", range(9), role="final")
    second = logits_of("at", n=40, clean=30, robust=9, seed=0, role="final")
    assert led(first, second) == {"adr": ["clean_final"], "at": []}
    assert led(first, logits_of("at", n=40, clean=30, robust=None, seed=0, role="final",
                                config={"attack": "none"})) == {"adr": [], "at": []}  # fmt: skip
