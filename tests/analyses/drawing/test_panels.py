"""What a reader must see: no curve behind another, no point cut, no bar that dwarfs the rest."""

import pytest

from advkit.analyses import calibration, masking
from advkit.analyses.drawing import clouds, panels, plot
from advkit.analyses.drawing.histograms import FEW, histogram, outline
from advkit.analyses.drawing.style import Frame
from advkit.analyses.probing.checks import Check
from advkit.artifacts.result import Histogram, Result
from advkit.errors import MismatchError, UsageError


def drawn(*panels, frame=Frame(), named="a"):  # noqa: B008
    """The figure of one result, laid out, and its axes."""
    figure = plot.figure([(named, Result({}, panels=panels))], frame)
    figure.canvas.draw()
    return figure, figure.axes


def inside(figure):
    """Whether titles, labels and legends lie within the picture."""
    box = figure.bbox
    renderer = figure.canvas.get_renderer()
    texts = [text for axes in figure.axes for text in (axes.title, axes._left_title)]
    texts += [axis.label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    texts += [text for legend in figure.legends for text in legend.get_texts()]
    ends = [text.get_window_extent(renderer) for text in texts if text.get_text()]
    return all(e.x0 >= box.x0 - 1 and e.x1 <= box.x1 + 1 and e.y0 >= -1 for e in ends)


def test_a_curve_behind_another_shows_on_both_sides_of_it():
    panel = panels.curve(
        [1, 2, 5],
        {"most probable": [0.9, 0.5, 0.2], "true": [0.9, 0.499, 0.2], "other": [0.1, 0.2, 0.3]},
        xlabel="T", ylabel="p",
    )  # fmt: skip
    _, (axes,) = drawn(panel)
    beneath, above, apart = axes.get_lines()
    assert beneath.get_linewidth() > 2 * above.get_linewidth()
    assert beneath.get_markersize() > above.get_markersize()
    assert beneath.get_markerfacecolor() == "none"
    assert apart.get_linewidth() == above.get_linewidth()
    assert len({(line.get_color(), line.get_marker()) for line in axes.get_lines()}) == 3


@pytest.mark.parametrize(
    ("series", "covered"),
    [
        ([[1.0, 0.0], [1.0, 0.0]], {0}),
        ([[1.0, 0.0], [1.0, 0.5]], set()),
        ([[1.0, None], [1.0, 0.0]], {0}),
        ([[None, None], [1.0, 0.0]], set()),
        ([[1.0], [1.0], [1.0]], {0, 1}),
    ],
)
def test_which_curves_are_hidden(series, covered):
    assert panels.hidden(series) == covered


def test_a_wrong_example_flattens_no_histogram():
    """One wrong of 200 would be a bar of 100 %: it is a mark, and the axis is of the others."""
    right = (50, 40, 30, 20, 10, 20, 30)
    data = Histogram("", tuple(range(8)), {"right": right, "wrong": (0, 0, 0, 1, 0, 0, 0)})
    _, (axes,) = drawn(histogram(data, "entropy (nats)"))
    assert axes.get_ylim()[1] < 0.5
    (marks,) = axes.collections
    assert len(marks.get_offsets()) == 1
    assert marks.get_offsets()[0][0] == 3.5
    names = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert names == ["right (n = 200)", "wrong (n = 1, a mark each)"]


@pytest.mark.parametrize("count", [FEW - 1, FEW])
def test_few_is_what_one_can_count(count):
    data = Histogram("", (0.0, 1.0, 2.0), {"right": (50, 50), "wrong": (count, 0)})
    _, (axes,) = drawn(histogram(data, "x"))
    assert bool(axes.collections) == (count < FEW)


def test_axes_of_shares_end_at_100():
    data = Histogram("", (0.0, 1.0, 2.0), {"right": (100, 0)})
    _, (axes,) = drawn(histogram(data, "x"))
    assert max(axes.get_yticks()) == 1
    assert axes.get_ylim()[1] > 1.2, "room for the legend"
    assert axes.get_ylabel() == "examples (%)"


def test_reliability_points_at_the_edges_are_whole(logits):
    for axes in drawn(*calibration.analyze([logits], resamples=20).panels)[1]:
        for low, high in (axes.get_xlim(), axes.get_ylim()):
            assert low < -0.01
            assert high > 1.01
        (bars,) = axes.containers[1:]
        assert not bars.lines[0].get_clip_on()


def checks():
    return [
        Check("a", True, 0.0, 0.01, ""),
        Check("b", True, 0.02, 0.01, ""),
        Check("c", False, 0.3, 0.01, ""),
        Check("d", None, None, 0.01, ""),
    ]


def test_states_of_masking_differ_in_shape_and_in_colour():
    assert [masking.state(check) for check in checks()] == ["passed", "over", "failed", "open"]
    states = masking._STATES.values()
    assert len({own.marker for own in states}) == len({own.colour for own in states}) == 4
    figure, (axes,) = drawn(masking._Table(checks()))
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    assert {own.words for own in states} <= set(shown)
    assert inside(figure)


def test_nets_share_axes():
    wide = panels.curve([1, 2], {"a": [0.0, 10.0]}, xlabel="x", ylabel="y")
    low = panels.curve([1, 4], {"a": [0.0, 1.0]}, xlabel="x", ylabel="y")
    figure = plot.figure([(name, Result({}, panels=(p,))) for name, p in (("a", wide), ("b", low))])
    first, second = figure.axes
    assert first.get_xlim() == second.get_xlim()
    assert first.get_ylim() == second.get_ylim()


def test_words_on_an_axis_are_not_shared():
    """A class's line has another place in each net."""
    one = panels.forest(["0", "1"], {"clean": [(0.5, None), (1.0, None)]}, xlabel="x")
    two = panels.forest(["1", "0", "2"], {"clean": [(0.2, None)] * 3}, xlabel="x")
    figure = plot.figure([(name, Result({}, panels=(p,))) for name, p in (("a", one), ("b", two))])
    first, second = figure.axes
    assert first.get_ylim() == (1.5, -0.5)
    assert second.get_ylim() == (2.5, -0.5)
    assert first.get_xlim() == second.get_xlim()


LONG = "TRADES+ADR+AWP+WA (trades-adr-awp-wa-s0), AutoAttack, ℓ∞, ε = 8/255"


@pytest.mark.parametrize("size", [Frame(), Frame(width=3.35), Frame(width=6.85), Frame("T", 4, 6)])
def test_nothing_is_cut(size):
    panel = panels.curve(
        [1, 2], {name * 9: [1.0, 2.0] for name in "abcd"}, xlabel="x", ylabel="y", title="p" * 50
    )
    figure, axes = drawn(panel, panel, panel, frame=size, named=LONG)
    assert inside(figure)
    assert len(axes) == 3
    if size.width is not None:
        assert figure.get_figwidth() == pytest.approx(size.width)
    if size.height is not None:
        assert figure.get_figheight() == pytest.approx(size.height)
    columns = {axes.get_subplotspec().colspan.start for axes in figure.axes}
    assert len(columns) == {None: 3, 3.35: 1, 6.85: 3, 4: 1}[size.width]
    assert (figure._suptitle is not None) == bool(size.title)


def test_a_long_legend_makes_the_picture_higher():
    layer = panels.layer([1, 2], [1.0, 2.0], xlabel="x", ylabel="y")
    nets = [(f"net {k}", net(layer)) for k in range(12)]
    few, many = (plot.figure(nets[:count], Frame(overlay=True)) for count in (2, 12))
    assert many.get_figheight() > few.get_figheight()
    many.canvas.draw()
    (axes,) = many.axes
    assert axes.get_window_extent().height > 0.4 * many.bbox.height


def net(*layers):
    return Result({}, panels=(lambda axes: axes.plot([0], [0]),), overlay=layers)


def test_overlaid_nets_share_a_panel_and_are_all_seen():
    """Outlines that coincide have marks at places of their own."""
    data = Histogram("", (0.0, 1.0, 2.0), {"clean": (3, 1)})
    nets = [(name, net(outline(data, "clean", "x", "clean"))) for name in "abc"]
    assert len(plot.figure(nets).axes) == 3
    (axes,) = plot.figure(nets, Frame(overlay=True)).axes
    marks = [line.get_xdata()[0] for line in axes.get_lines() if len(line.get_xdata())]
    assert len(set(marks)) == 3
    names = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert names == ["a (n = 4)", "b (n = 4)", "c (n = 4)"]


def test_what_cannot_be_overlaid():
    layer = panels.layer([1], [1.0], xlabel="x", ylabel="y")
    with pytest.raises(UsageError, match="--overlay"):
        plot.figure([("a", net()), ("b", net())], Frame(overlay=True))
    with pytest.raises(MismatchError, match="--overlay"):
        plot.figure([("a", net(layer)), ("b", net(layer, layer))], Frame(overlay=True))


def test_classes_are_named_in_the_legend(logits):
    y = logits.labels
    points = logits.clean[:, :2].double()
    names = ["cat", "dog", "3", "four", "five"]
    panel = clouds.cloud(points, y, y < 2, points, names, title="t", corners={})
    _, (axes,) = drawn(panel)
    shown = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert shown[:5] == ["cat", "dog", "class 3", "four", "five"]


@pytest.mark.parametrize(
    ("top", "texts"),
    [
        (0.3, ["0", "10", "20", "30"]),
        (0.1, ["0.0", "2.5", "5.0", "7.5", "10.0"]),
        (1.0, ["0", "20", "40", "60", "80", "100"]),
    ],
)
def test_ticks_in_percent_have_the_decimals_that_one_of_them_needs(top, texts):
    figure = plot.figure([("a", Result({}, panels=(lambda axes: axes.set_ylim(0, top),)))])
    (axes,) = figure.axes
    panels.in_percent(axes, "y", "share")
    axes.set_yticks([float(text) / 100 for text in texts])
    figure.canvas.draw()
    assert [label.get_text() for label in axes.get_yticklabels()] == texts


@pytest.mark.parametrize("room", [2.0, 2.2, 2.4, 2.6, 2.8])
def test_a_number_stays_on_the_line_of_its_name(room):
    text = "right under each, and under all (n = 100)"
    lines = plot._wrapped(text, room)
    assert " ".join(lines) == text
    assert [line for line in lines if "(n = 100)" in line]
