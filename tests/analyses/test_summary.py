"""The picture of a table at one glance: bars of accuracy, reliability under attack."""

import matplotlib as mpl
import pytest
from scipy.stats import binomtest

from advkit.analyses import table
from advkit.errors import UsageError
from tests.analyses.test_table import logits_of

mpl.use("Agg")


def axes_of(panels):
    from matplotlib import pyplot as plt

    _, row = plt.subplots(1, len(panels))
    for axes, panel in zip(row, panels, strict=True):
        panel(axes)
    plt.close("all")
    return row


def summary(*inputs):
    return axes_of(table.analyze(inputs, picture="summary").panels)


def test_bars_and_their_intervals():
    """8 and 10 of 10 right clean, 5 and 0 under attack: a group of bars a condition."""
    bars, _ = summary(logits_of("at"), logits_of("natural", clean=10, robust=0))
    heights = {
        round(bar.get_x() + bar.get_width() / 2, 1): bar.get_height() for bar in bars.patches
    }
    assert heights == pytest.approx({-0.2: 80, 0.8: 50, 0.2: 100, 1.2: 0})
    assert [label.get_text() for label in bars.get_xticklabels()] == ["clean", "under attack"]
    ends = [box.lines[2][0].get_segments()[0][:, 1] for box in bars.containers
            if hasattr(box, "lines")]  # fmt: skip
    wilson = [binomtest(k, 10).proportion_ci(method="wilson") for k in (8, 5, 10, 0)]
    for (low, high), truth in zip(ends, wilson, strict=True):
        assert (low, high) == pytest.approx((100 * truth.low, 100 * truth.high), abs=1e-6)


def test_one_legend_serves_both_panels():
    """Names and colours of the bars are those of the curves."""
    bars, curves = summary(logits_of("at"), logits_of("adr"))
    names = [axes.get_legend_handles_labels()[1] for axes in (bars, curves)]
    assert names[0] == names[1] == ["calibrated", "PGD-AT", "AT+ADR"]


def test_the_best_of_best_and_final_is_shown():
    bars, _ = summary(logits_of("at", role="final", robust=2), logits_of("at", robust=6))
    assert [bar.get_height() for bar in bars.patches] == pytest.approx([80, 60])


def test_what_a_summary_cannot_show_is_refused():
    with pytest.raises(UsageError, match="not attacked"):
        table.analyze([logits_of(robust=None)], picture="summary")
    with pytest.raises(UsageError, match="7 lines, at most 6"):
        table.analyze([logits_of("at", lr=k / 10) for k in range(1, 8)], picture="summary")
