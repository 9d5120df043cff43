"""t-SNE against scikit-learn's own call, and what is said of it against numpy and scikit-learn."""

import functools
import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from sklearn.manifold import TSNE
from sklearn.manifold import trustworthiness as theirs
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from advkit.analyses.embedding import analyze
from advkit.analyses.statistics.neighbours import agreement, trustworthiness
from advkit.artifacts.hdf5 import Logits
from advkit.errors import InputError, UsageError
from advkit.labels.adr import rectify


def logits_of(clean, y, adversarial=None):
    tensors = [None if z is None else torch.tensor(z).float() for z in (clean, adversarial)]
    info = {"data": {"classes": [str(c) for c in range(tensors[0].shape[1])]}}
    index = 100 + torch.arange(len(y))
    return Logits(index, torch.as_tensor(y), tensors[0], info, tensors[1], path="it.h5")


def case(n=40, classes=4, seed=0):
    """(clean, adversarial, y); the labels in no order."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % classes)
    clean = np.float32(rng.normal(size=(n, classes)) + 3 * np.eye(classes)[y])
    return clean, clean + np.float32(rng.normal(size=(n, classes))), y


def points_of(result, space, condition):
    return np.array([row[4:] for row in result.rows if row[:2] == (space, condition)])


@pytest.fixture
def fitted(monkeypatch):
    """What was given to scikit-learn and what it made of it: [(parameters, points, fit)].

    t-SNE enlarges rounding without bound, so that two calls need not agree; what goes in and
    comes out of one must.
    """
    seen = []

    class Seen(TSNE):
        def fit(self, X, y=None):
            found = super().fit(X.copy(), y)
            seen.append((self.get_params(), X, found))
            return found

    monkeypatch.setattr("sklearn.manifold.TSNE", Seen)
    return seen


@pytest.fixture
def flat(monkeypatch):
    """The first two coordinates in t-SNE's place."""

    class Flat(TSNE):
        def fit(self, X, y=None):
            self.embedding_, self.kl_divergence_ = np.float32(X[:, :2]), 0.0
            return self

    monkeypatch.setattr("sklearn.manifold.TSNE", Flat)


def test_against_scikit_learn(fitted):
    clean, adversarial, y = case()
    result = analyze([logits_of(clean, y, adversarial)], perplexity=7.0, seed=3)
    p, q = (softmax(z.astype(float), axis=1) for z in (clean, adversarial))
    z, a, target = (torch.tensor(each) for each in (clean.astype(float), adversarial, y))
    labels = [rectify(each.double(), target, 2.0, 0.95).numpy() for each in (z, a)]
    expected = TSNE(2, perplexity=7.0, init="pca", random_state=3).get_params()
    spaces = (("outputs", [p, q]), ("adr", [*labels, np.eye(4)]))
    for (space, points), (parameters, given, fit) in zip(spaces, fitted, strict=True):
        assert parameters == expected
        np.testing.assert_allclose(given, np.concatenate(points), atol=1e-12)
        found = [points_of(result, space, "clean"), points_of(result, space, "adversarial")]
        found += [points_of(result, space, "onehot")] if space == "adr" else []
        np.testing.assert_allclose(np.concatenate(found), fit.embedding_, rtol=1e-6)
        assert result.numbers[f"{space}_kl_divergence"] == pytest.approx(fit.kl_divergence_)


@pytest.fixture
def few_steps(monkeypatch):
    """t-SNE that stops at scikit-learn's least number of steps."""
    monkeypatch.setattr("sklearn.manifold.TSNE", functools.partial(TSNE, max_iter=250))


@pytest.mark.usefixtures("few_steps")
def test_same_seed_same_picture_and_another_thread_count():
    file, threads = logits_of(*case()[::2]), torch.get_num_threads()
    first = analyze([file], seed=1)
    with threadpool_limits(2):
        assert analyze([file], seed=1).rows == first.rows
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("k", [1, 5])
def test_trustworthiness_against_scikit_learn(k):
    rng = np.random.default_rng(k)
    points, plane = rng.normal(size=(300, 6)), rng.normal(size=(300, 2))
    plane[:150] = points[:150, :2]
    found = trustworthiness(torch.tensor(points), torch.tensor(plane), k)
    assert found == pytest.approx(theirs(points, plane, n_neighbors=k), abs=1e-12)


def test_equal_points_do_not_count_against_it():
    """Of six equal points any may be the neighbour."""
    points = torch.cat([torch.zeros(6, 3), torch.eye(3)]).double()
    plane = torch.arange(9.0)[:, None].expand(9, 2).double()
    assert trustworthiness(points[:6], plane[:6], 2) == 1.0


def test_agreement_against_scikit_learn():
    rng = np.random.default_rng(0)
    plane, y = rng.normal(size=(300, 2)), rng.integers(3, size=300)
    near = NearestNeighbors(n_neighbors=4).fit(plane).kneighbors(return_distance=False)
    expected = (y[near] == y[:, None]).mean()
    assert agreement(torch.tensor(plane), torch.tensor(y), 4) == pytest.approx(expected)


def test_shifts_by_hand():
    clean, adversarial, y = case()
    numbers = analyze([logits_of(clean, y, adversarial)], tau=3.0, lambda_=0.6).numbers
    p, q = (softmax(z.astype(float), axis=1) for z in (clean, adversarial))
    targets = [
        rectify(torch.tensor(z), torch.tensor(y), 3.0, 0.6).double().numpy()
        for z in (clean, adversarial)
    ]
    expected = {
        "outputs_shift": np.abs(p - q).sum(1).mean() / 2,
        "adr_shift": np.abs(targets[0] - targets[1]).sum(1).mean() / 2,
        "adr_to_adversarial": (jensenshannon(targets[0], q, axis=1) ** 2).mean(),
        "onehot_to_adversarial": (jensenshannon(np.eye(4)[y], q, axis=1) ** 2).mean(),
    }
    assert {key: numbers[key] for key in expected} == pytest.approx(expected, abs=1e-5)
    assert numbers["adr_to_adversarial"] < numbers["onehot_to_adversarial"] < math.log(2)
    assert (numbers["tau"], numbers["lambda"]) == (3.0, 0.6)


@pytest.mark.usefixtures("flat")
def test_classes_that_lie_apart_agree():
    clean, _, y = case(60, 3)
    numbers = analyze([logits_of(np.eye(3)[y] * 9 + 0.3 * clean, y, -clean)]).numbers
    assert numbers["outputs_clean_agreement"] == 1.0
    assert 0 <= numbers["outputs_adversarial_agreement"] < 1


def test_limit_takes_the_first_of_each_class():
    clean, _, y = case(60, 3)
    result = analyze([logits_of(clean, y)], limit=12)
    rows = [row for row in result.rows if row[0] == "outputs"]
    expected = sorted(100 + int(k) for c in range(3) for k in np.flatnonzero(y == c)[:4])
    assert [row[2] for row in rows] == expected
    assert [row[3] for row in rows] == y[np.array(expected) - 100].tolist()
    assert (result.numbers["n"], result.numbers["examples"]) == (12, 60)


def test_logits_are_embedded_less_their_mean(fitted):
    """A constant added to all logits of an example changes no output, and no picture."""
    clean, _, y = case(30)
    shifted = clean + np.float32(2.0 ** np.arange(30)[:, None] % 64)
    for z in (clean, shifted):
        analyze([logits_of(z, y)], space="logits")
    first, _, second, _ = (points for _, points, _ in fitted)  # each before its ADR labels
    np.testing.assert_allclose(first, clean - clean.mean(1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(second, first, atol=1e-5)


@pytest.mark.parametrize("n", [5, 8])
def test_few_examples_and_two_classes(n):
    clean, adversarial, y = case(n, 2)
    result = analyze([logits_of(clean, y, adversarial)])
    assert result.numbers["perplexity"] == (n - 1) / 3
    assert len(result.rows) == 4 * n + 2
    assert len(result.panels) == 4
    assert len(analyze([logits_of(clean, y)]).panels) == 2


@pytest.mark.parametrize("n", [1, 4])
def test_too_few(n):
    clean, _, y = case(n, 2)
    with pytest.raises(InputError, match=rf"it\.h5: embedding needs 5 examples, not {n}"):
        analyze([logits_of(clean, y)])


def test_needs_labels_and_differences():
    clean, _, y = case()
    with pytest.raises(InputError, match="embedding needs labels"):
        analyze([logits_of(clean, np.full_like(y, -1))])
    with pytest.raises(InputError, match=r"it\.h5: all outputs are equal"):
        analyze([logits_of(np.ones((9, 3)), np.arange(9) % 3)])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"perplexity": 40.0}, "--perplexity 40: at least 1 and below the 40 examples"),
        ({"perplexity": 0.5}, "--perplexity"),
        ({"tau": 0.0}, "--tau"),
        ({"lambda_": 1.5}, "--lambda"),
        ({"limit": 0}, "--limit"),
    ],
)
def test_impossible_options(option, message):
    clean, _, y = case()
    with pytest.raises(UsageError, match=message):
        analyze([logits_of(clean, y)], **option)


@pytest.mark.usefixtures("few_steps")
def test_command_line(cli, tiny_logits, tmp_path):
    """`--lambda` reaches the parameter `lambda_`."""
    outcome = cli(
        "analyze", "embedding", tiny_logits, "--lambda", "0.5", "--plot", tmp_path / "e.svg"
    )
    assert outcome.code == 0, outcome.err
    assert outcome.record["lambda"] == 0.5
    text = (tmp_path / "e.svg").read_text()
    assert text.count("<!-- ADR labels, ") == 2
