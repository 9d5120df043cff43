"""LTD's G(Z) against scipy, Theorem 1 against its own claim, oracles joined by path."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
import torch
from PIL import Image
from scipy.special import log_softmax, softmax

from advkit import data
from advkit.analyses.discrepancy import Row, analyze, condition, discrepancy, read_oracle
from advkit.analyses.statistics import simulate as _simulate
from advkit.artifacts import rows
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.soft_labels import SoftLabels
from advkit.errors import InputError, MismatchError, UsageError

NAMES = ("cat", "dog", "owl")
CIFAR10H = Path(__file__).parents[3] / "shared" / "data" / "cifar10h.csv"


def info(split="test", names=NAMES):
    source = {"kind": "data", "name": "folder", "split": split, "digest": "sha256:0"}
    return {"data": {"name": "folder", "classes": list(names)}, "parents": [{}, source]}


@pytest.fixture
def place(tmp_path):
    """A folder of 4 test images for each of three classes, 2 of each to train on."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("test", 4)):
        for name in NAMES:
            top = tmp_path / "set" / split / name
            top.mkdir(parents=True)
            for k in range(count):
                pixels = rng.integers(256, size=(6, 6, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(top / f"{k:04}.png")
    return tmp_path / "set"


def counts_of(place):
    """Return path → counts, made from the path alone."""
    found = {}
    for path in sorted(place.glob("*/*/*.png")):
        name = path.relative_to(place).as_posix()
        draw = np.random.default_rng(list(name.encode()))
        found[name] = draw.integers(0, 9, size=3) + 20 * np.eye(3)[NAMES.index(path.parent.name)]
    return found


def table(path, rows, names=NAMES):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *names])
        writer.writerows([key, *(f"{value:g}" for value in row)] for key, row in rows)
    return str(path)


@pytest.fixture
def oracle(place, tmp_path):
    """The table of all images, its lines and columns in an order of their own."""
    rows = sorted(counts_of(place).items(), key=lambda each: each[0][::-1])
    return table(tmp_path / "o.csv", [(k, v[[2, 0, 1]]) for k, v in rows], ("owl", "cat", "dog"))


@pytest.fixture
def logits():
    """Logits of 9 of the 12 test images, in an order of their own."""
    rng = np.random.default_rng(3)
    index = torch.tensor([11, 0, 5, 7, 2, 9, 3, 1, 8])
    z = torch.tensor(rng.normal(size=(9, 3)) * 3).float()
    return Logits(index, index // 4, z, info(), path="x.h5")


def people(place, index):
    names = [f"test/{NAMES[k // 4]}/{k % 4:04}.png" for k in index]
    rows = np.stack([counts_of(place)[name] for name in names]).astype(np.float64)
    return rows / rows.sum(1, keepdims=True)


def test_against_scipy():
    rng = np.random.default_rng(0)
    y, p = rng.dirichlet([0.3] * 5, 60), rng.dirichlet([2.0] * 5, 60)
    y[0] = np.eye(5)[2]
    found = discrepancy(torch.tensor(y), torch.tensor(p).log())
    np.testing.assert_allclose(found, scipy.stats.entropy(y, p, axis=1), atol=1e-10)
    itself = discrepancy(torch.tensor(p), torch.tensor(p).log())
    np.testing.assert_allclose(itself, np.zeros(60), atol=1e-12)


@pytest.mark.parametrize(
    ("low", "high", "rhs", "mass"), [(0.999, 0.99, 254, 0.004), (0.80, 0.75, 3.46, 0.224)]
)
def test_the_papers_worked_values(low, high, rhs, mass):
    """Section 4 of the appendix; its 3.88 is a slip."""
    found = float(condition(*torch.tensor([[low], [high]], dtype=torch.float64)))
    assert found == pytest.approx(rhs, rel=2e-3)
    assert 1 / (1 + found) == pytest.approx(mass, abs=5e-4)
    assert found == pytest.approx(math.log((1 - high) / (1 - low)) / math.log(low / high), rel=1e-9)


def test_theorem_1_holds_for_two_classes():
    """Where y₁/y₂ is at most the right-hand side, G falls from t₁ to t₂; else it rises."""
    rng = np.random.default_rng(1)
    z = rng.uniform(0.1, 12, 4000)
    t1 = rng.uniform(1, 8, 4000)
    t2 = t1 * rng.uniform(1.05, 3, 4000)
    y2 = rng.uniform(1e-4, 0.5, 4000)
    p1, p2 = 1 / (1 + np.exp(-z / t1)), 1 / (1 + np.exp(-z / t2))
    rhs = condition(torch.tensor(p1), torch.tensor(p2)).numpy()
    y = np.stack([1 - y2, y2], 1)
    first, second = (scipy.stats.entropy(y, np.stack([p, 1 - p], 1), axis=1) for p in (p1, p2))
    clear = np.abs(first - second) > 1e-9
    holds = (1 - y2) / y2 <= rhs
    assert 400 < holds.sum() < 3600
    np.testing.assert_array_equal((second < first)[clear], holds[clear])
    assert clear.mean() > 0.99


def test_one_hot_oracle_is_the_log_likelihood(logits):
    found = analyze([logits], temperatures="1,3,10")
    assert found.columns == Row._fields
    for t, value, *_ in found.rows:
        log_p = log_softmax(logits.clean.double().numpy() / t, axis=1)
        assert value == pytest.approx(-log_p[np.arange(9), logits.labels].mean(), abs=1e-9)
    values = [row[1] for row in found.rows]
    assert found.numbers["oracle"] == "labels"
    assert found.numbers["discrepancy"] == values[0]
    assert found.numbers["best_discrepancy"] == min(values)
    assert found.numbers["best_temperature"] == found.rows[int(np.argmin(values))][0]
    assert [row[-1] for row in found.rows] == [None] * 3


def test_people_are_joined_by_path(place, oracle, logits):
    found = analyze([logits], oracle=oracle, data=f"folder:{place}", temperatures="1,2,5")
    y = people(place, logits.index.tolist())
    assert found.numbers["oracle"] == "people"
    for t, value, *_ in found.rows:
        p = softmax(logits.clean.double().numpy() / t, axis=1)
        assert value == pytest.approx(scipy.stats.entropy(y, p, axis=1).mean(), abs=1e-9)


def test_condition_columns(place, oracle):
    index = torch.arange(12)
    z = torch.zeros(12, 3)
    z[index, index // 4] = torch.linspace(1.5, 9, 12)
    z[3, 0] = -4.0  # wrong: the theorem says nothing of it
    source = Logits(index, index // 4, z, info())
    grid = {"temperatures": "1,1.5,2"}
    found = analyze([source], oracle=oracle, data=f"folder:{place}", **grid)
    y = people(place, range(12))[index, index // 4]
    p = {t: softmax(z.double().numpy() / t, axis=1)[index, index // 4] for t in (1, 1.5, 2)}
    assert found.rows[0][2:] == (None,) * 4
    for row, before, t in ((found.rows[1], 1, 1.5), (found.rows[2], 1.5, 2)):
        use = (p[before] > 0.5) & (p[t] > 0.5)
        assert 5 < use.sum() < 12
        low, high, mass = p[before][use], p[t][use], y[use]
        rhs = np.log((1 - high) / (1 - low)) / np.log(low / high)
        assert row[2] == before
        assert rhs.min() <= row[3] <= rhs.max()
        assert (rhs <= row[3] + 1e-9).mean() >= 0.5 <= (rhs >= row[3] - 1e-9).mean()
        assert (1 / (1 + rhs) <= row[4] + 1e-9).mean() >= 0.5
        assert row[5] == pytest.approx((mass / (1 - mass) <= rhs).mean())


@pytest.mark.parametrize("piece", [5, 1 << 14])
def test_views_are_averaged_under_the_same_oracle(place, oracle, monkeypatch, piece):
    """However many examples are looked at together."""
    monkeypatch.setattr(rows, "PIECE", piece)
    z = torch.tensor(np.random.default_rng(5).normal(size=(12, 4, 3)) * 3).float()
    index, views = torch.arange(12), torch.zeros(12, 4, 3).byte()
    source = SoftLabels(index, index // 4, z, views, info())
    grid = {"temperatures": "1,4"}
    found = analyze([source], oracle=oracle, data=f"folder:{place}", **grid)
    y = np.repeat(people(place, range(12)), 4, 0)
    for t, value, *_ in found.rows:
        p = softmax(z.double().numpy().reshape(-1, 3) / t, axis=1)
        assert value == pytest.approx(scipy.stats.entropy(y, p, axis=1).mean(), abs=1e-9)


def test_the_split_is_the_files(place, oracle):
    index = torch.arange(6)
    z = torch.zeros(6, 3)
    source = Logits(index, index // 2, z, info("train"))
    found = analyze([source], oracle=oracle, data=f"folder:{place}", temperatures="1")
    names = [f"train/{NAMES[k // 2]}/{k % 2:04}.png" for k in range(6)]
    y = np.stack([counts_of(place)[name] for name in names])
    y = y / y.sum(1, keepdims=True)
    expected = scipy.stats.entropy(y, np.full_like(y, 1 / 3), axis=1).mean()
    assert found.rows[0][1] == pytest.approx(expected)


@pytest.mark.parametrize("where", [None, "digits", "folder"])
def test_an_oracle_needs_the_folder(oracle, logits, where):
    with pytest.raises(UsageError, match="--data folder:DIR"):
        analyze([logits], oracle=oracle, data=where)


def test_missing_rows(place, tmp_path, logits):
    rows = [(k, v) for k, v in counts_of(place).items() if k != "test/owl/0003.png"]
    path = table(tmp_path / "x.csv", rows)
    with pytest.raises(MismatchError, match=r"1 of 9 images, first test/owl/0003\.png"):
        analyze([logits], oracle=path, data=f"folder:{place}")


def test_a_smaller_folder(place, oracle, logits):
    for path in (place / "test").glob("*/0003.png"):
        path.unlink()
    with pytest.raises(MismatchError, match="9 test images"):
        analyze([logits], oracle=oracle, data=f"folder:{place}")


def test_another_folder(place, oracle, logits):
    """As many images, but of other classes at their places."""
    (place / "test" / "cat" / "0003.png").rename(place / "test" / "owl" / "0009.png")
    Path(oracle).write_text(Path(oracle).read_text() + "test/owl/0009.png,9,1,1\n")
    with pytest.raises(MismatchError):
        analyze([logits], oracle=oracle, data=f"folder:{place}")


@pytest.mark.parametrize("names", [("cat", "dog", "emu"), ("cat", "dog"), (*NAMES, "emu")])
def test_other_classes(tmp_path, names):
    path = tmp_path / "x.csv"
    table(path, [("a.png", [1] * len(names))], names)
    with pytest.raises(MismatchError, match="classes cat, dog"):
        read_oracle(path, NAMES)


WRONG = {
    "no counts": "path,cat,dog,owl\na.png,1,2,3\nb.png,0,0,0\n",
    "negative": "path,cat,dog,owl\na.png,1,2,-1\n",
    "nan": "path,cat,dog,owl\na.png,1,2,nan\n",
    "infinite": "path,cat,dog,owl\na.png,1,2,inf\n",
    "words": "path,cat,dog,owl\na.png,1,2,many\n",
    "short row": "path,cat,dog,owl\na.png,1,2\n",
    "long first row": "path,cat,dog,owl\na.png,1,2,3,4\n",
    "empty": "",
    "header alone": "path,cat,dog,owl\n",
    "no path": "name,cat,dog,owl\na.png,1,2,3\n",
    "json": '{"path": 3}',
    "binary": b"\x89HDF\r\n\x1a\n\xff\xfe",
    "twice": "path,cat,dog,owl\na.png,1,2,3\na.png,3,2,1\n",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_oracle(tmp_path, name):
    raw, path = WRONG[name], tmp_path / "x.csv"
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    with pytest.raises(InputError) as refused:
        read_oracle(path, NAMES)
    assert len(str(refused.value).splitlines()) == 1


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_oracle(tmp_path / "x.csv", NAMES)


@pytest.mark.skipif(not CIFAR10H.exists(), reason="shared/data/cifar10h.csv is not here")
def test_cifar_10h():
    with CIFAR10H.open(newline="") as file:
        header, *lines = list(csv.reader(file))
    found = read_oracle(CIFAR10H, header[1:])
    assert len(found) == len(lines) == 5000
    raw = np.array([[float(cell) for cell in line[1:]] for line in lines])
    expected = raw / raw.sum(1, keepdims=True)
    np.testing.assert_allclose(torch.stack([found[line[0]] for line in lines]), expected)
    own = np.array([header[1:].index(line[0].split("/")[1]) for line in lines])
    assert (expected.argmax(1) == own).mean() > 0.98
    assert expected[np.arange(5000), own].mean() == pytest.approx(0.95, abs=0.01)


def test_simulation_binary_is_what_the_appendix_says():
    """Soft labels at s = γ/10 always beat one-hot ones, and get worse as s rises."""
    found = analyze([], simulate="binary")
    cells = {(g, share): (hard, mild) for g, share, _, hard, mild in found.rows}
    for gamma, share, s, hard, mild in found.rows:
        assert s == pytest.approx(gamma * share)
        pairs = [np.array([[1 - q, q]]) for q in (gamma, 1e-4, s)]
        rare, common, p = pairs
        for value, q in ((hard, common), (mild, p)):
            expected = 0.03 * scipy.stats.entropy(rare, q, axis=1)
            expected += 0.97 * scipy.stats.entropy(common, q, axis=1)
            assert value == pytest.approx(expected[0], abs=1e-12)
    gammas = sorted({gamma for gamma, _ in cells})
    assert gammas == sorted(_simulate.GAMMAS)
    assert all(cells[g, 0.1][1] < cells[g, 0.1][0] for g in gammas)
    assert all(cells[g, 2.0][1] > cells[g, 1.0][1] > cells[g, 0.1][1] for g in gammas)
    assert all(cells[g, 2.0][1] > cells[g, 2.0][0] for g in gammas)
    assert found.numbers["wins_at_low_temperature"] == found.numbers["cases"] == len(gammas)
    assert len(found.panels) == 1


def test_simulation_dirichlet():
    """At least 97 % of rows above 0.995; soft labels in the oracle's order beat one-hot ones."""
    found = analyze([], simulate="dirichlet")
    assert found.numbers["share_above_0.995"] >= 0.97
    rows = {row[0]: dict(zip(found.columns, row, strict=True)) for row in found.rows}
    assert len({row["one_hot"] for row in rows.values()}) == 1
    assert all(rows[c]["soft"] < rows[c]["one_hot"] for c in (0.5, 1.0, 2.0))
    assert all(row["soft"] < row["soft_1pct_wrong"] for row in rows.values())
    assert rows[1.0]["soft_1pct_wrong"] < rows[1.0]["one_hot"] < rows[1.0]["unrelated"]
    assert rows[8.0]["soft"] > rows[4.0]["soft"] > rows[1.0]["soft"]
    assert found.rows == analyze([], simulate="dirichlet").rows


def pair(q):
    return np.array([1 - q, q])


def mixed(gamma, s, eps, share):
    """G of (1 − s, s) for fixed γ, by scipy's relative entropy."""
    rare, common = (scipy.stats.entropy(pair(q), pair(s)) for q in (gamma, eps))
    return share * rare + (1 - share) * common


def uniform(mean, s, eps, share):
    """The same with γ ~ U[0, 2·mean], by quadrature."""
    rare = scipy.integrate.quad(lambda g: scipy.stats.entropy(pair(g), pair(s)), 0, 2 * mean)[0]
    return share * rare / (2 * mean) + (1 - share) * scipy.stats.entropy(pair(eps), pair(s))


@pytest.mark.parametrize("gamma", ["fixed", "uniform"])
@pytest.mark.parametrize(("eps", "share"), [(1e-4, 0.03), (1e-3, 0.03), (1e-6, 0.2), (1e-9, 0.1)])
def test_simulation_binary_by_scipy(gamma, eps, share):
    found = analyze([], simulate="binary", epsilon=eps, share=share, gamma=gamma)
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    assert {row["gamma"] for row in rows} == ({0.05} if gamma == "uniform" else {*_simulate.GAMMAS})
    expected = mixed if gamma == "fixed" else uniform
    ends = {group["gamma"]: group["wins_up_to"] for group in found.groups}
    for row in rows:
        g, s = row["gamma"], row["s"]
        assert s == pytest.approx(g * row["s_over_gamma"])
        wanted = (expected(g, eps, eps, share), expected(g, s, eps, share))
        got = (row["one_hot_discrepancy"], row["soft_discrepancy"])
        assert got == pytest.approx(wanted, rel=1e-7, abs=1e-10)
        # Beyond this s the soft model is the worse one.
        edge = ends[g] * g
        assert expected(g, edge, eps, share) == pytest.approx(wanted[0], rel=1e-6)
        assert (
            expected(g, edge * 1.01, eps, share) > wanted[0] > expected(g, edge / 1.01, eps, share)
        )
    low = [row for row in rows if row["s_over_gamma"] == 0.1]
    wins = sum(row["soft_discrepancy"] < row["one_hot_discrepancy"] for row in low)
    assert (found.numbers["wins_at_low_temperature"], found.numbers["cases"]) == (wins, len(low))
    said = {name: found.numbers[name] for name in ("epsilon", "ambiguous", "gamma")}
    assert said == {"epsilon": eps, "ambiguous": share, "gamma": gamma}


DOCUMENTED = {  # ε → wins of 7 at γ/10, least and greatest s/γ that wins, that of U[0, 0.1]
    1e-12: (7, 0.68, 0.72, 0.717),
    1e-6: (7, 0.23, 0.33, 0.286),
    1e-5: (7, 0.16, 0.27, 0.209),
    1e-4: (7, 0.10, 0.20, 0.137),
    1e-3: (5, 0.10, 0.16, 0.099),
}


@pytest.mark.parametrize("eps", DOCUMENTED)
def test_what_the_page_says_of_epsilon(eps):
    """docs/ltd.md's table, by scipy's root finder, and the command's own edges."""
    gammas = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4)

    def edge(g):
        q = 0.03 * g + 0.97 * eps
        gap = lambda s: mixed(g, s, eps, 0.03) - mixed(g, eps, eps, 0.03)  # noqa: E731
        return scipy.optimize.brentq(gap, q, 0.9, xtol=1e-15, rtol=1e-13) / g

    wins = sum(mixed(g, g / 10, eps, 0.03) < mixed(g, eps, eps, 0.03) - 1e-15 for g in gammas)
    edges = [edge(g) for g in gammas]
    found = analyze([], simulate="binary", epsilon=eps)
    assert [group["wins_up_to"] for group in found.groups] == pytest.approx(edges, rel=1e-6)
    assert found.numbers["wins_at_low_temperature"] == wins
    counted, least, greatest, drawn = DOCUMENTED[eps]
    assert wins == counted
    assert (round(min(edges), 2), round(max(edges), 2)) == (least, greatest)
    assert round(edge(0.05), 3) == drawn  # by the mean γ alone: entropies cancel


@pytest.mark.parametrize(
    ("options", "peaked", "wins"),
    [
        ({}, 0.979, [0.5, 1, 2, 4]),
        ({"epsilon": 1e-12}, 0.979, [0.25, 0.5, 1, 2, 4, 8]),
        ({"epsilon": 1e-3}, 0.979, [1, 2, 4]),
        ({"epsilon": 1e-2}, 0.979, [1, 2]),
        ({"alpha": 0.0001}, 0.995, []),
        ({"alpha": 0.002}, 0.911, [0.25, 0.5, 1, 2, 4, 8]),
        ({"classes": 2}, 0.997, []),
    ],
)
def test_what_the_page_says_of_the_dirichlet_simulation(options, peaked, wins):
    found = analyze([], simulate="dirichlet", **options)
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    assert [row["c"] for row in rows if row["soft_1pct_wrong"] < row["one_hot"]] == wins
    assert found.numbers["share_above_0.995"] == pytest.approx(peaked, abs=6e-4)


@pytest.mark.parametrize("classes", [2, 4])
def test_simulation_dirichlet_by_numpy_s_draws(classes):
    """The one-hot model's discrepancy at an α where numpy's own sampler is exact enough."""
    alpha, eps = 0.05, 1e-3
    found = analyze([], simulate="dirichlet", alpha=alpha, epsilon=eps, classes=classes)
    oracle = np.random.default_rng(0).dirichlet([alpha] * classes, 60_000).clip(eps)
    oracle /= oracle.sum(1, keepdims=True)
    hard = np.eye(classes)[oracle.argmax(1)].clip(eps)
    hard /= hard.sum(1, keepdims=True)
    values = scipy.stats.entropy(oracle, hard, axis=1)
    noise = 5 * values.std() * math.sqrt(1 / 60_000 + 1 / _simulate.N)
    assert found.rows[0][1] == pytest.approx(values.mean(), abs=noise)
    raw = np.random.default_rng(1).dirichlet([alpha] * classes, 60_000).max(1)
    assert found.numbers["share_above_0.995"] == pytest.approx((raw > 0.995).mean(), abs=0.02)
    assert {name: found.numbers[name] for name in ("alpha", "epsilon", "classes")} == {
        "alpha": alpha, "epsilon": eps, "classes": classes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"simulate": "dirichlet", "share": 0.1},
            "--share has no meaning for --simulate dirichlet",
        ),
        ({"simulate": "dirichlet", "gamma": "uniform"}, "--gamma has no meaning"),
        ({"simulate": "binary", "alpha": 0.1}, "--alpha has no meaning for --simulate binary"),
        ({"simulate": "binary", "classes": 3}, "--classes has no meaning"),
        ({"simulate": "dirichlet", "epsilon": 0.2}, "not below 1/10"),
        ({"epsilon": 0.1}, "give --simulate"),
    ],
)
def test_options_of_another_simulation(options, words, logits):
    with pytest.raises(UsageError, match=words):
        analyze([logits], **options)


@pytest.mark.parametrize(
    "words",
    [("--epsilon", "0"), ("--epsilon", "0.5"), ("--alpha", "0"), ("--classes", "1"),
     ("--share", "1.5"), ("--gamma", "x")],
)  # fmt: skip
def test_impossible_options_of_simulations(words, cli):
    done = cli("analyze", "discrepancy", "--simulate", "binary", *words)
    assert done.code == 2
    assert words[0] in done.err


def test_dirichlet_draws_have_the_right_moments():
    """Mean 1/C and variance of a symmetric Dirichlet, at an α where both are seen."""
    p = _simulate._draw(0.5, torch.Generator().manual_seed(0))
    assert p.shape == (_simulate.N, 10)
    np.testing.assert_allclose(p.sum(1), np.ones(len(p)))
    np.testing.assert_allclose(p.mean(0), np.full(10, 0.1), atol=0.004)
    np.testing.assert_allclose(p.var(0), np.full(10, 0.1 * 0.9 / 6), rtol=0.06)


def test_paths_are_in_the_order_of_the_images(place):
    images = data.load(f"folder:{place}", "test")
    for row, path in enumerate(data.folder.paths(place, "test")):
        pixels = np.asarray(Image.open(place / path)).transpose(2, 0, 1)
        np.testing.assert_array_equal(images.images[row], pixels)


def test_out_of_distribution(logits):
    other = Logits(logits.index, torch.full((9,), -1), logits.clean, info(), path="x.h5")
    with pytest.raises(InputError, match="needs labels"):
        analyze([other])


@pytest.mark.parametrize(
    "given", [{"share": 0.0}, {"share": 0.0, "gamma": "uniform"}, {"epsilon": 0.05}]
)
def test_a_one_hot_model_that_is_the_oracle_leaves_a_gap(given):
    """Its discrepancy is 0, and no ratio to it is drawn."""
    found = analyze([], simulate="binary", **given)
    columns = found.columns
    assert any(
        dict(zip(columns, row, strict=True))["one_hot_discrepancy"] == 0 for row in found.rows
    )
