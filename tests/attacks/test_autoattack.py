"""AutoAttack against its authors' package, example by example, and what it leaves untouched."""

import random

import numpy as np
import pyautoattack
import pytest
import torch
from torch import nn

from advkit import data, models, modes
from advkit.attack_settings import AttackSettings
from advkit.attacks import _autoattack
from advkit.data._images import Images, pixels
from advkit.errors import UsageError
from advkit.evaluate import Evaluation
from advkit.threat import Threat

ENVIRONMENT = {"device": "cpu", "threads": 1}


@pytest.fixture
def light(monkeypatch):
    """Fewer iterations and queries in every suite that is built, ours and upstream's alike."""
    original = pyautoattack.AutoAttack._set_version

    def lighter(suite, version="standard"):
        original(suite, version)
        suite.apgd.n_restarts = min(2, suite.apgd.n_restarts)
        suite.fab.n_restarts = min(2, suite.fab.n_restarts)
        suite.fab.n_iter = 4
        suite.square.n_queries = 40
        for attack in (suite.apgd, suite.apgd_targeted):
            attack.n_iter = attack.n_iter_orig = 6
            attack.eot_iter = min(2, attack.eot_iter)

    monkeypatch.setattr(pyautoattack.AutoAttack, "_set_version", lighter)


def upstream(model, images, norm, eps, size, seed=0, version="standard"):
    """Return (adversarial images, their classes) of the package called directly."""
    x, y = pixels(images.images, "cpu"), images.labels
    suite = pyautoattack.AutoAttack(
        model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, seed=seed, version=version
    )
    with torch.random.fork_rng(), modes.frozen(model):  # frozen as in ours: the same rounding
        return suite.run_standard_evaluation(x, y, batch_size=size)


def ours(model, info, images, norm, eps, size, seed=0, version="standard"):
    settings = AttackSettings(
        "autoattack", norm, str(eps), "digits", seed, size, version, save_images=True
    )
    return Evaluation(model, info, images, settings, environment=ENVIRONMENT).run()


def part_of(images, count):
    """Examples spread over the classes."""
    chosen = torch.arange(0, len(images.labels), len(images.labels) // count)[:count]
    return Images(
        images.name, images.split, images.images[chosen], images.labels[chosen],
        images.classes, images.pad, images.flip,
    )  # fmt: skip


@pytest.fixture(scope="module")
def victim():
    """(model, description, test images): digits, BN in the net, trained naturally for a second."""
    images = data.load("digits", "train")
    model = models.build(
        "small-cnn", 10, channels=1, statistics=images.normalisation, seed=0, width=8
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    rng = torch.Generator().manual_seed(0)
    for _ in range(60):
        chosen = torch.randint(len(images.labels), (128,), generator=rng)
        logits = model(pixels(images.batch(chosen), "cpu"))
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, images.labels[chosen]).backward()
        optimizer.step()
    info = description(images.classes, images.shape)
    return model.eval(), info, data.load("digits", "test")


def description(classes, shape):
    """What an evaluation reads of a checkpoint's description."""
    return {
        "data": {"name": "digits", "classes": list(classes)},
        "model": {"input_shape": list(shape)},
        "kind": "checkpoint", "digest": "sha256:0", "method": "at", "arch": "x", "role": "best",
    }  # fmt: skip


def same_verdicts(found, theirs, images):
    """Each example's; images differ by rounding and from the second target on by the noise."""
    adversarial, classes = theirs
    x, y = pixels(images.images, "cpu"), images.labels
    assert torch.equal(found.broken_by == -1, classes == y)
    changed = (adversarial != x).flatten(1).any(1)
    assert torch.equal(changed, found.broken_by >= 0), "upstream returns clean images elsewhere"


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize(
    ("norm", "eps", "version", "seed"),
    [
        ("linf", 0.05, "standard", 0),
        ("linf", 0.05, "plus", 7),
        ("linf", 0.05, "rand", 1),
        ("l2", 0.25, "standard", 3),
    ],
)
def test_verdicts_equal_upstream(victim, norm, eps, version, seed):
    model, info, images = victim
    images = part_of(images, 24)
    found = ours(model, info, images, norm, eps, 7, seed, version)
    same_verdicts(found, upstream(model, images, norm, eps, 7, seed, version), images)
    assert int((found.broken_by >= 0).sum()) > 2, "the case must hold broken examples"
    assert int((found.broken_by == -1).sum()) > 2, "and robust ones"


def random_case(classes, count=10):
    """(model, description, images labelled as the model sees them): all start correct."""
    names = tuple(f"c{each}" for each in range(classes))
    raw = torch.randint(0, 256, (count, 1, 6, 6), generator=torch.Generator().manual_seed(classes))
    torch.manual_seed(classes)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.Tanh(), nn.Linear(24, classes)).eval()
    with torch.no_grad():
        model[3].bias -= model(pixels(raw, "cpu")).mean(0)  # so that every class is predicted
    labels = model(pixels(raw, "cpu")).argmax(1)
    images = Images("digits", "test", raw.to(torch.uint8), labels, names, 0, False)
    return model, description(names, (1, 6, 6)), images


FULL = [
    pytest.param(24, 0.085, {0, 1}, id="nothing stands"),
    pytest.param(5, 0.03, {-1, 0}, id="all four attacks", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("count", "eps", "verdicts"), FULL)
def test_verdicts_equal_upstream_at_full_length(victim, count, eps, verdicts):
    model, info, images = victim
    images = part_of(images, count)
    found = ours(model, info, images, "linf", eps, 7)
    same_verdicts(found, upstream(model, images, "linf", eps, 7), images)
    assert verdicts <= set(found.broken_by.tolist())


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
@pytest.mark.parametrize("classes", [2, 3, 4, 5, 10])
def test_any_number_of_classes(classes, version):
    model, info, images = random_case(classes)
    found = ours(model, info, images, "linf", 0.04, 4, version=version)
    wrong = model(found.images).argmax(1) != images.labels
    assert torch.equal(wrong, found.broken_by >= 0)
    assert len(set(found.broken_by.tolist())) > 1, "some broken, some robust"
    assert found.info["target_classes"] == min(9, classes - 1)


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize(
    ("classes", "names"),
    [(2, ["apgd-ce", "square"]), (3, ["apgd-ce", "fab-t", "square"]),
     (5, ["apgd-ce", "apgd-t", "fab-t", "square"])],
)  # fmt: skip
def test_few_classes_equal_upstream_told_how_many(classes, names):
    """Upstream itself works below 10 classes once its target count is set by hand."""
    model, _, images = random_case(classes)
    x, y = pixels(images.images, "cpu"), images.labels
    suite = pyautoattack.AutoAttack(model, eps=0.03, seed=0)
    suite.attacks_to_run = names
    suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = classes - 1
    with torch.random.fork_rng():
        theirs, _ = suite.run_standard_evaluation(x, y, batch_size=50)
    judge = _autoattack.Judge(model, Threat("linf", 0.03), "standard", classes, 0)
    mine, left = judged(judge, names, x, y)
    assert torch.equal((mine != x).flatten(1).any(1), (theirs != x).flatten(1).any(1))
    assert 0 < len(left) < len(y)
    if classes < 4:
        assert torch.equal(mine, theirs), "without APGD-T, whose noise is each target's own"


def judged(judge, names, x, y):
    """Return the images after all attacks, clean where none succeeded, and who still stands."""
    mine, left = x.clone(), torch.arange(len(y))
    for name in names:
        for target in judge.targets(name):
            found = judge.attack(name, x[left], y[left], target)
            wrong = judge.model(found).argmax(1) != y[left]
            mine[left[wrong]] = found[wrong]
            left = left[~wrong]
    return mine, left


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.1), ("l1", 0.3)])
@pytest.mark.parametrize("name", ["apgd-t", "fab-t"])
def test_a_target_is_upstream_told_to_stop_there(norm, eps, name):
    """The very same images for the first target; FAB-T, without noise, for each of them."""
    model, _, images = random_case(6, 30)
    x, y = pixels(images.images, "cpu"), images.labels
    judge = _autoattack.Judge(model, Threat(norm, eps), "standard", 6, 0)
    suite = pyautoattack.AutoAttack(model, norm=_autoattack.NORM[norm], eps=eps, seed=0)
    attack = {"apgd-t": suite.apgd_targeted, "fab-t": suite.fab}[name]
    attack.targeted = True
    last = 1 if name == "apgd-t" else 3
    attack.n_target_classes = last
    with torch.random.fork_rng(), torch.no_grad():
        theirs = attack.perturb(x.clone(), y)
    mine, left = x.clone(), torch.arange(len(y))
    for target in range(1, last + 1):
        found = judge.attack(name, x[left], y[left], target)
        wrong = model(found).argmax(1) != y[left]
        assert torch.equal(found[~wrong], x[left[~wrong]]), "clean where it failed"
        mine[left[wrong]], left = found[wrong], left[~wrong]
    assert torch.equal(mine, theirs)
    assert 0 < len(left) < len(y)


def test_targets_have_noise_of_their_own():
    """Every target from its own start, and the same one in each call."""
    model, _, images = random_case(6, 12)
    x, y = pixels(images.images, "cpu"), images.labels
    starts = {}

    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, batch):
            if batch.requires_grad:
                starts.setdefault(key, batch.detach().clone())
            return self.net(batch)

    judge = _autoattack.Judge(Watching(), Threat("linf", 0.02), "standard", 6, 0)
    for key in ((1, 0), (1, 1), (2, 0), (2, 1), (3, 0)):
        judge.attack("apgd-t", x, y, key[0])
    assert torch.equal(starts[1, 0], starts[1, 1])
    assert torch.equal(starts[2, 0], starts[2, 1])
    assert len({float(starts[target, 0].sum()) for target in (1, 2, 3)}) == 3


def line(classes, count, norm, eps):
    """(model, x, y, robust): a linear net, whose margins in the ball are known; no box in reach.

    In the ball of radius ε the margin z_y − z_j falls by at most ε times the dual norm of
    w_y − w_j.
    """
    rng = torch.Generator().manual_seed(classes)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, classes)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(classes, 36, generator=rng) / 6)
        model[1].bias.copy_(-model[1].weight.sum(1) / 2)
    x = 0.25 + 0.5 * torch.rand(count, 1, 6, 6, generator=rng)
    z = model(x).detach()
    y = z.argmax(1)
    gaps = model[1].weight[y][:, None] - model[1].weight[None]
    reach = eps * gaps.norm(p={"linf": 1, "l2": 2}[norm], dim=2)
    left = (z.gather(1, y[:, None]) - z - reach).detach()
    left[torch.arange(count), y] = torch.inf
    assert float(left.abs().amin()) > 1e-4, "no verdict hangs on rounding"
    return model, x, y, left.amin(1) > 0


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.01), ("l2", 0.04)])
def test_verdicts_where_they_are_known(norm, eps):
    """Ours, upstream's and the formula's agree for every example, refilled or not."""
    model, x, y, robust = line(10, 60, norm, eps)
    names = ["apgd-t"]
    judge = _autoattack.Judge(model, Threat(norm, eps), "standard", 10, 0)
    _, left = judged(judge, names, x, y)
    assert torch.equal(left, robust.nonzero().flatten())
    suite = pyautoattack.AutoAttack(model, norm=_autoattack.NORM[norm], eps=eps, seed=0)
    suite.attacks_to_run = names
    with torch.random.fork_rng():
        _, classes = suite.run_standard_evaluation(x, y, batch_size=17)
    assert torch.equal(classes == y, robust)
    assert 10 < len(left) < 50


@pytest.mark.parametrize(
    ("version", "classes", "names"),
    [
        ("standard", 10, ("apgd-ce", "apgd-t", "fab-t", "square")),
        ("standard", 4, ("apgd-ce", "apgd-t", "fab-t", "square")),
        ("standard", 3, ("apgd-ce", "fab-t", "square")),
        ("standard", 2, ("apgd-ce", "fab-t", "square")),
        ("plus", 10, ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t")),
        ("plus", 3, ("apgd-ce", "apgd-dlr", "fab", "square", "fab-t")),
        ("plus", 2, ("apgd-ce", "fab", "square", "fab-t")),
        ("rand", 10, ("apgd-ce", "apgd-dlr")),
        ("rand", 2, ("apgd-ce",)),
    ],
)
def test_attacks_of_a_version(version, classes, names):
    assert _autoattack.attacks(version, classes) == names


def test_unknown_version():
    with pytest.raises(UsageError, match="standard"):
        _autoattack.attacks("standart", 10)


@pytest.mark.parametrize(("classes", "targets"), [(2, 1), (3, 2), (10, 9), (11, 9), (200, 9)])
def test_targets_are_clamped(classes, targets):
    judge = _autoattack.Judge(nn.Linear(1, 1), Threat("linf", 0.1), "standard", classes, 0)
    for name in ("apgd-t", "fab-t"):
        assert list(judge.targets(name)) == list(range(1, targets + 1))
    assert list(judge.targets("square")) == [0]


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"])
def test_leaves_the_process_alone(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 5))
    model.train()
    model[0].bias.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    wanted = [each.requires_grad for each in model.parameters()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    x = torch.rand(5, 1, 6, 6)
    clean, y = x.clone(), torch.arange(5)
    torch.set_rng_state(states[0])
    judge = _autoattack.Judge(model, Threat("linf", 0.05), "plus", 5, 3)
    found = judge.attack(name, x, y, judge.targets(name)[-1])
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    assert all(module.training for module in model.modules())
    assert [each.requires_grad for each in model.parameters()] == wanted
    assert all(each.grad is None for each in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(x, clean)
    assert not found.requires_grad
    assert float((found - x).abs().max()) <= 0.05 + 1e-6


@pytest.mark.usefixtures("light")
def test_each_batch_starts_from_the_seed():
    """As upstream does, so that the order of batches does not matter."""
    model, _, images = random_case(5)
    x, y = pixels(images.images, "cpu"), images.labels
    judge = _autoattack.Judge(model, Threat("linf", 0.03), "standard", 5, 0)
    for name in ("apgd-ce", "square", "apgd-t", "fab-t"):
        target = judge.targets(name)[-1]
        first = judge.attack(name, x, y, target)
        judge.attack("square", x[:3], y[:3])
        assert torch.equal(judge.attack(name, x, y, target), first)
