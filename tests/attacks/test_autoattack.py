"""AutoAttack against its authors' package, example by example, and what it leaves untouched."""

import random

import numpy as np
import pyautoattack
import pytest
import torch
from torch import nn

from advkit.attacks.upstream import autoattack
from advkit.errors import UsageError
from advkit.evaluation.run import Evaluation
from advkit.evaluation.settings import AttackSettings
from advkit.formulas.threat import Threat
from advkit.images.image_set import pixels
from advkit.runtime import modes
from tests.attacks.planted import known

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


def same_verdicts(found, theirs, case):
    """Each example's, and the planted ones; images differ by rounding and by later targets' noise.

    No verdict hangs on rounding: see `planted`.
    """
    adversarial, classes = theirs
    assert torch.equal(classes == case.y, case.stands)
    assert torch.equal(found.broken_by == -1, case.stands)
    changed = (adversarial != case.x).flatten(1).any(1)
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
def test_verdicts_equal_upstream(norm, eps, version, seed):
    """A net whose normalisation is folded in ours alone, blunt against APGD-CE on some images."""
    case = known(10, 8, norm, eps, conv=True, blunt=True)
    found = ours(case.model, case.info, case.images, norm, eps, 7, seed, version)
    same_verdicts(found, upstream(case.model, case.images, norm, eps, 7, seed, version), case)
    assert len(set(found.broken_by.tolist())) > 2, "APGD-CE and a later attack break some"


FULL = [
    pytest.param(8, True, {0, 1}, id="nothing stands"),
    pytest.param(8, False, {-1, 0, 1}, id="all four attacks", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("count", "none_stands", "verdicts"), FULL)
def test_verdicts_equal_upstream_at_full_length(count, none_stands, verdicts):
    case = known(10, count, conv=True, blunt=True, none_stands=none_stands)
    found = ours(case.model, case.info, case.images, "linf", 0.05, 7)
    same_verdicts(found, upstream(case.model, case.images, "linf", 0.05, 7), case)
    assert set(found.broken_by.tolist()) == verdicts


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
@pytest.mark.parametrize("classes", [2, 3, 4])  # ten: test_verdicts_equal_upstream
def test_any_number_of_classes(classes, version):
    case = known(classes)
    found = ours(case.model, case.info, case.images, "linf", 0.05, 4, version=version)
    assert torch.equal(found.broken_by == -1, case.stands)
    assert torch.equal(found.adversarial.argmax(1) != case.y, found.broken_by >= 0)
    assert torch.allclose(found.adversarial, case.model(found.images), atol=1e-4)
    assert found.info["target_classes"] == min(9, classes - 1)


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize(
    ("classes", "names"),
    [(2, ["apgd-ce", "square"]), (3, ["apgd-ce", "fab-t", "square"]),
     (5, ["apgd-ce", "apgd-t", "fab-t", "square"])],
)  # fmt: skip
def test_few_classes_equal_upstream_told_how_many(classes, names):
    """Upstream itself works below 10 classes once its target count is set by hand."""
    case = known(classes)
    model, x, y = case.model, case.x, case.y
    suite = pyautoattack.AutoAttack(model, eps=0.05, seed=0)
    suite.attacks_to_run = names
    suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = classes - 1
    with torch.random.fork_rng():
        theirs, _ = suite.run_standard_evaluation(x, y, batch_size=50)
    judge = autoattack.Judge(model, Threat("linf", 0.05), "standard", classes, 0)
    mine, left = judged(judge, names, x, y)
    assert torch.equal((mine != x).flatten(1).any(1), (theirs != x).flatten(1).any(1))
    assert torch.equal(left, case.stands.nonzero().flatten())
    if classes < 4:  # without APGD-T, whose noise is each target's own
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-6)


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
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.15), ("l1", 0.3)])
@pytest.mark.parametrize("name", ["apgd-t", "fab-t"])
def test_a_target_is_upstream_told_to_stop_there(norm, eps, name):
    """The same images for the first target; FAB-T, without noise, for each of them.

    In l∞ FAB's step is found in another way, with other rounding.
    """
    case = known(6, 30, norm, eps)
    model, x, y = case.model, case.x, case.y
    judge = autoattack.Judge(model, Threat(norm, eps), "standard", 6, 0)
    suite = pyautoattack.AutoAttack(model, norm=autoattack.NORM[norm], eps=eps, seed=0)
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
    rounding = 1e-6 if (name, norm) == ("fab-t", "linf") else 0
    assert float((mine - theirs).abs().max()) <= rounding
    assert set(case.stands.nonzero().flatten().tolist()) <= set(left.tolist())
    assert len(left) < len(y)


def test_targets_have_noise_of_their_own():
    """Every target from its own start, and the same one in each call."""
    case = known(6, 12)
    model, x, y = case.model, case.x, case.y
    starts = {}

    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, batch):
            if batch.requires_grad:
                starts.setdefault(key, batch.detach().clone())
            return self.net(batch)

    judge = autoattack.Judge(Watching(), Threat("linf", 0.02), "standard", 6, 0)
    for key in ((1, 0), (1, 1), (2, 0), (2, 1), (3, 0)):
        judge.attack("apgd-t", x, y, key[0])
    assert torch.equal(starts[1, 0], starts[1, 1])
    assert torch.equal(starts[2, 0], starts[2, 1])
    assert len({float(starts[target, 0].sum()) for target in (1, 2, 3)}) == 3


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.15)])
def test_verdicts_where_they_are_known(norm, eps):
    """Ours, upstream's and the planted ones agree for every example, refilled or not."""
    case = known(5, 16, norm, eps)
    judge = autoattack.Judge(case.model, Threat(norm, eps), "standard", 5, 0)
    _, left = judged(judge, ["apgd-t"], case.x, case.y)
    assert torch.equal(left, case.stands.nonzero().flatten())
    suite = pyautoattack.AutoAttack(case.model, norm=autoattack.NORM[norm], eps=eps, seed=0)
    suite.attacks_to_run, suite.apgd_targeted.n_target_classes = ["apgd-t"], 4
    with torch.random.fork_rng():
        _, classes = suite.run_standard_evaluation(case.x, case.y, batch_size=9)
    assert torch.equal(classes == case.y, case.stands)


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
    assert autoattack.attacks(version, classes) == names


def test_unknown_version():
    with pytest.raises(UsageError, match="standard"):
        autoattack.attacks("standart", 10)


@pytest.mark.parametrize(("classes", "targets"), [(2, 1), (3, 2), (10, 9), (11, 9), (200, 9)])
def test_targets_are_clamped(classes, targets):
    judge = autoattack.Judge(nn.Linear(1, 1), Threat("linf", 0.1), "standard", classes, 0)
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
    judge = autoattack.Judge(model, Threat("linf", 0.05), "plus", 5, 3)
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
    case = known(5)
    x, y = case.x, case.y
    judge = autoattack.Judge(case.model, Threat("linf", 0.05), "standard", 5, 0)
    for name in ("apgd-ce", "square", "apgd-t", "fab-t"):
        target = judge.targets(name)[-1]
        first = judge.attack(name, x, y, target)
        judge.attack("square", x[:3], y[:3])
        assert torch.equal(judge.attack(name, x, y, target), first)
