"""The simulation behind docs/scaling.md: closed forms, limits worked by hand, and the page."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from numpy.random import PCG64, Generator
from scipy import integrate, stats

ROOT = Path(__file__).parents[1]
HOUR = 3600.0


@pytest.fixture(scope="module")
def tool() -> SimpleNamespace:
    place = str(ROOT / "tools" / "docs")
    sys.path.insert(0, place)
    try:
        import cluster
        import scaling
    finally:
        sys.path.remove(place)
    return SimpleNamespace(cluster=cluster, scaling=scaling)


@pytest.fixture(scope="module")
def cluster(tool) -> ModuleType:
    return tool.cluster


def draw(seed: int = 0) -> Generator:
    return Generator(PCG64(seed))


def test_the_page_has_the_tables_that_the_tool_makes(tool):
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert page.count(tool.scaling.BEGIN) == page.count(tool.scaling.END) == 1
    assert tool.scaling.filled(page) == page


def test_other_figures_make_a_stale_page(tool, tmp_path, monkeypatch, capsys):
    page = tmp_path / "scaling.md"
    text = f"before\n{tool.scaling.BEGIN}old\n{tool.scaling.END}behind\n"
    page.write_text(text, encoding="utf-8")
    monkeypatch.setattr(tool.scaling, "PAGE", page)
    for name in ("steps", "restarts", "decoding"):  # seconds; the fourth table is enough
        monkeypatch.setattr(tool.scaling, name, lambda: iter(["none"]))
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--check"])
    assert tool.scaling.main() == 1
    assert "stale" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["scaling.py"])
    assert tool.scaling.main() == 0
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--check"])
    assert tool.scaling.main() == 0
    made = page.read_text(encoding="utf-8")
    assert made.startswith("before\n")
    assert made.endswith(f"{tool.scaling.END}behind\n")
    assert "| 64 ranks |" in made
    assert "old" not in made


@pytest.mark.parametrize("jitter", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("ranks", [2, 8, 64])
def test_the_slowest_of_n_ranks_is_the_integral_of_their_distribution(cluster, jitter, ranks):
    spread = math.sqrt(math.log(1 + jitter**2))
    times = stats.lognorm(spread, scale=math.exp(-(spread**2) / 2))
    assert times.mean() == pytest.approx(1)
    assert times.std() == pytest.approx(jitter)
    expected, _ = integrate.quad(
        lambda x: x * ranks * times.pdf(x) * times.cdf(x) ** (ranks - 1),
        0,
        4,
        points=[1],
        limit=200,
    )
    slowest = cluster.factors(draw(), jitter, (20_000, ranks)).max(axis=1)
    assert slowest.mean() == pytest.approx(expected, abs=4 * slowest.std() / math.sqrt(20_000))


def test_at_little_scatter_the_slowest_is_that_of_normals(cluster):
    """The mean of the largest of 8 standard normals is 1.4236 (tables of order statistics)."""
    slowest = cluster.factors(draw(1), 0.001, (50_000, 8)).max(axis=1).mean()
    assert (slowest - 1) / 0.001 == pytest.approx(1.4236, abs=0.02)


@pytest.mark.parametrize(
    ("interval", "save", "restart", "mtbf"),
    [(HOUR, 60.0, 300.0, 4 * HOUR), (600.0, 5.0, 0.0, HOUR), (HOUR, 0.0, 1800.0, HOUR)],
)
def test_restarts_are_dalys(cluster, interval, save, restart, mtbf):
    told = cluster.lost(draw(), interval, save, restart, mtbf, n=200_000)
    assert told == pytest.approx(cluster.daly(interval, save, restart, mtbf), rel=0.02)


def test_dalys_form_by_hand(cluster):
    """An hour of work, no saving, no restart, a failure an hour on average: e − 1 hours."""
    assert cluster.daly(HOUR, 0, 0, HOUR) == pytest.approx(math.e - 2)


def test_youngs_is_dalys_where_failures_are_rare(cluster):
    given = 100.0, 1.0, 20.0, 1e6
    assert cluster.young(*given) == pytest.approx(0.01 + 50e-6 + 20e-6)
    assert cluster.daly(*given) == pytest.approx(cluster.young(*given), rel=1e-3)
    best = cluster.optimum(1.0, 1e6)
    assert best == pytest.approx(math.sqrt(2e6))
    around = [cluster.daly(best * factor, 1.0, 20.0, 1e6) for factor in (0.7, 1, 1.4)]
    assert min(around) == around[1]


@pytest.mark.parametrize(
    ("workers", "make", "step", "expected"),
    [
        (2, 1.0, 0.8, 0.8),
        (3, 1.0, 0.1, 1 / 3),
        (2, 1.0, 0.3, 0.5),
        (8, 1.6, 0.1, 0.2),
        (1, 0.5, 0.5, 0.5),
    ],
)
def test_without_scatter_the_slower_of_workers_and_step_sets_the_pace(
    cluster, workers, make, step, expected
):
    assert cluster.fed(draw(), workers, make, step, 0.0, steps=400) == pytest.approx(
        expected, rel=1e-3
    )


def test_scatter_never_makes_it_faster_than_either(cluster):
    pace = cluster.fed(draw(), 4, 2.0, 0.5, 0.2)
    assert 0.99 * 0.5 < pace < 1.2 * 0.5


def test_all_reduce_and_agreement_by_hand(cluster):
    machines = cluster.Cluster(inside=1e9, between=1e8, hop=0.0, host_hop=1e-3)
    assert machines.all_reduce(1e9, 1) == 0
    assert machines.all_reduce(1e9, 2) == pytest.approx(1.0)
    assert machines.all_reduce(1e9, 8) == pytest.approx(1.75)
    assert machines.all_reduce(1e9, 16) == pytest.approx(18.75)
    assert cluster.Cluster(hop=0.5).all_reduce(0, 8) == pytest.approx(3.0)
    assert machines.agreed(64) == pytest.approx(0.012)


def test_validation_keeps_as_many_ranks_busy_as_it_has_batches(cluster):
    """22 passes of 256 images, where a step is 22 passes of 256 images in a second."""
    work = cluster.Work("a", 1.0, 10, 256, 22, 1, 0, 0)
    assert [work.validating(ranks) for ranks in (1, 2, 4, 64)] == [4.0, 2.0, 1.0, 1.0]


def test_an_epoch_of_equal_ranks_by_hand(cluster):
    still = cluster.Cluster(
        inside=1e9, between=1e9, hop=0.0, host_hop=0.0, launch=1e-3, draw=1e-3, disk=1e9, jitter=0.0
    )
    work = cluster.Work("a", 1.0, 10, 8, 2, 5, 25e6, 10, copies=2, validation=0)
    alone, shared = (cluster.epoch(draw(), work, still, ranks) for ranks in (1, 8))
    assert (alone.device, alone.host) == (1.0, pytest.approx(0.08 + 0.01))
    assert alone.seconds == pytest.approx(10 * 1.0 + 0.2)
    assert shared.device == pytest.approx(0.125)
    assert shared.messages == pytest.approx(0.175)  # 2 · 7/8 · 100 MB at 1 GB/s
    assert shared.seconds == pytest.approx(10 * 0.3 + 0.2)
    assert shared.largest == "messages"


def test_what_the_host_draws_does_not_shrink(cluster, tool):
    drawn, left = tool.scaling.WORKS[-2:]
    speeds = []
    for work in (drawn, left):
        alone, shared = (cluster.epoch(draw(), work, cluster.Cluster(), ranks) for ranks in (1, 8))
        speeds.append(alone.seconds / shared.seconds)
    assert speeds[0] < 1 < 6 < speeds[1]
    assert cluster.epoch(draw(), drawn, cluster.Cluster(), 8).largest == "the host"


def test_the_simulation_has_the_codes_sizes(cluster):
    from advkit.images import ahead
    from advkit.training import selection

    assert selection.CHUNK == cluster.CHUNK
    assert ahead.Ahead(lambda epoch, step: None, 1, 1, 1)._loader.prefetch_factor == cluster.AHEAD
