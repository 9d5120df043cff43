"""AutoAttack's attacks one at a time: against upstream, torchattacks and a closed form."""

import logging

import pyautoattack
import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import nn
from torch.nn.functional import softplus

from advkit import registry
from advkit.attacks import apgd_ce, pgd
from advkit.attacks.upstream import autoattack
from advkit.errors import UsageError
from advkit.evaluation.run import Evaluation
from advkit.evaluation.settings import AttackSettings, part_options
from advkit.formulas.losses import cross_entropy
from advkit.formulas.threat import Threat
from tests.attacks.planted import known
from tests.attacks.test_autoattack import ENVIRONMENT

NAMES = ("apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square")
QUICK = {
    "apgd-ce": {"steps": 8, "restarts": 2},
    "apgd-dlr": {"steps": 8},
    "apgd-t": {"steps": 8, "targets": 2},
    "fab-t": {"steps": 5, "restarts": 2},
    "square": {"queries": 80},
}
UPSTREAM = {"linf": "Linf", "l2": "L2", "l1": "L1"}
LEAST = {"apgd-dlr": 3, "apgd-t": 4}
ROUNDING = 1e-6
names = pytest.mark.parametrize("name", NAMES)
balls = pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.15)])


class Ball:
    """What the package asks of a threat model, for norms that `Threat` need not know."""

    def __init__(self, norm, eps):
        self.norm, self.eps = norm, eps


def attack(name, model, x, y, threat, seed=0, **options):
    module = registry.load("attacks", name)
    return module.attack(
        model, x, y, threat, generator=torch.Generator().manual_seed(seed), **options
    )


def case(classes=5, norm="linf", eps=0.05):
    """(planted net and what is known of it, x, y): half of the examples stand in the ball."""
    found = known(classes, 10, norm, eps)
    return found, found.x, found.y


def direct(name, model, norm, eps, seed, classes=5, steps=100, restarts=1, targets=9, queries=5000):
    """The upstream class of an attack, set up as its authors' AutoAttack sets it up."""
    common = {"norm": UPSTREAM[norm], "eps": eps, "seed": seed, "n_restarts": restarts}
    apgd = {**common, "n_iter": steps, "rho": 0.75, "eot_iter": 1, "use_largereps": norm == "l1",
            "logger": logging.getLogger("auto-attack")}  # fmt: skip
    count = min(targets, classes - 1)
    return {
        "apgd-ce": lambda: APGDAttack(model, loss="ce", **apgd),
        "apgd-dlr": lambda: APGDAttack(model, loss="dlr", **apgd),
        "apgd-t": lambda: APGDAttack_targeted(model, n_target_classes=count, **apgd),
        "fab-t": lambda: FABAttack_PT(
            model, targeted=True, n_target_classes=count, n_iter=steps, **common
        ),
        "square": lambda: SquareAttack(
            model, p_init=0.8, resc_schedule=False, n_queries=queries, **common
        ),
    }[name]()


def same(name, norm, mine, theirs):
    """Whether images are the very same; but for rounding where what runs an attack is ours."""
    rounding = ROUNDING if norm == "linf" and name in ("fab-t", "square") else 0
    return float((mine - theirs).abs().max()) <= rounding


@names
@balls
def test_equals_the_upstream_class(name, norm, eps):
    planted, x, y = case(norm=norm, eps=eps)
    with torch.random.fork_rng(), torch.no_grad():
        theirs = direct(name, planted.model, norm, eps, 3, **QUICK[name]).perturb(x, y)
    found = attack(name, planted.model, x, y, Threat(norm, eps), 3, **QUICK[name])
    assert same(name, norm, found, theirs)
    changed = (found != x).flatten(1).any(1)
    assert torch.equal(changed, planted.fooled(found))
    assert not bool(changed[planted.stands].any())
    assert name == "square" or bool(changed[~planted.stands].all())


@names
def test_defaults_are_those_of_autoattack(name, monkeypatch):
    """Every attribute of the upstream object is that of the standard suite's own."""
    planted, x, y = case(11)
    model = planted.model
    suite = pyautoattack.AutoAttack(model, eps=0.03, seed=4)
    suite.apgd.loss, suite.fab.targeted = name.removeprefix("apgd-"), True
    theirs = {"apgd-t": suite.apgd_targeted, "fab-t": suite.fab, "square": suite.square}
    theirs = theirs.get(name, suite.apgd)
    seen = []

    def perturb(attack, x, y, **_):
        seen.append({k: v for k, v in vars(attack).items() if k != "attack_single_run"})
        return x

    monkeypatch.setattr(type(theirs), "perturb", perturb)
    attack(name, model, x, y, Threat("linf", 0.03), 4)
    expected = {**vars(theirs), "device": torch.device("cpu")}
    assert seen == [expected]


def alone(name, quick):
    slow = not quick and name != "apgd-ce"
    return pytest.param(name, quick, marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize(
    ("name", "options"), [alone(name, quick) for name in NAMES for quick in ({}, QUICK[name])]
)
@pytest.mark.parametrize("seed", [pytest.param(0, marks=pytest.mark.slow), 5])
def test_evaluation_equals_the_attack_alone_in_autoattack(name, options, seed):
    """An example wrong when clean, and a last batch that is not full."""
    planted, x, y = case()
    model, info, images = planted.model, planted.info, planted.images
    y[3] = (y[3] + 1) % 5
    options = {key: value for key, value in options.items() if (name, key) != ("fab-t", "restarts")}
    suite = pyautoattack.AutoAttack(model, eps=0.05, seed=seed)
    place = {"apgd-t": "apgd_targeted", "fab-t": "fab", "square": "square"}.get(name, "apgd")
    suite.attacks_to_run = [name]
    suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = 4
    if options:
        setattr(suite, place, direct(name, model, "linf", 0.05, seed, **options))
    with torch.random.fork_rng():
        theirs, classes = suite.run_standard_evaluation(x, y, batch_size=4)
    settings = AttackSettings(
        name, "linf", "0.05", "digits", seed, 4, save_images=True,
        options=part_options(name, options),
    )  # fmt: skip
    found = Evaluation(model, info, images, settings, environment=ENVIRONMENT).run()
    broken = found.broken_by == 0
    assert torch.equal(found.broken_by == -1, classes == y)
    assert found.broken_by[3] == -2
    assert same(name, "linf", found.images[broken], theirs[broken])
    assert not bool((broken & planted.stands).any())
    assert int(broken.sum()) > 0
    assert name == "square" or bool((broken | planted.stands).all())
    assert found.attacks == [name]
    assert found.info["implementation"].startswith("pyautoattack ")
    targets = min(options.get("targets", 9), 4)
    assert found.info.get("target_classes") == (targets if name in ("apgd-t", "fab-t") else None)


@pytest.mark.parametrize("name", NAMES[:-1])
@balls
def test_breaks_what_torchattacks_breaks(name, norm, eps):
    """Its Square is left out: it stretches the schedule over the queries, AutoAttack does not."""
    import torchattacks

    planted, x, y = case(norm=norm, eps=eps)
    model = planted.model
    common = {"norm": UPSTREAM[norm], "eps": eps, "seed": 0}
    theirs = {
        "apgd-ce": lambda: torchattacks.APGD(model, steps=20, loss="ce", **common),
        "apgd-dlr": lambda: torchattacks.APGD(model, steps=20, loss="dlr", **common),
        "apgd-t": lambda: torchattacks.APGDT(model, steps=20, n_classes=5, **common),
        "fab-t": lambda: torchattacks.FAB(
            model, steps=20, n_classes=5, multi_targeted=True, **common
        ),
    }[name]()
    with torch.random.fork_rng():
        expected = planted.fooled(theirs(x, y))
    found = planted.fooled(attack(name, model, x, y, Threat(norm, eps), steps=20))
    assert torch.equal(found, expected)
    assert torch.equal(found, ~planted.stands)


class Plane(nn.Module):
    """Classes 0 and 1 divided by w·x = c, all others far below: distances are known exactly."""

    def __init__(self, classes):
        super().__init__()
        draw = torch.Generator().manual_seed(2)
        self.w = nn.Parameter(torch.randn(25, generator=draw))
        self.below = -20.0 - torch.arange(classes - 2)

    def forward(self, x):
        f = (x.flatten(1) - 0.5) @ self.w
        rest = self.below.expand(len(x), -1) + 0 * f[:, None]
        return torch.cat([-f[:, None] / 2, f[:, None] / 2, rest], 1)


@pytest.mark.parametrize(
    ("classes", "norm"), [(2, "linf"), (3, "l2"), (3, "linf"), (4, "l2"), (5, "linf")]
)
@pytest.mark.parametrize("name", NAMES[:-1])
def test_closed_form_victim(name, classes, norm):
    """An example falls exactly when ε exceeds its distance to the plane."""
    model = Plane(classes)
    x = 0.5 + 0.08 * torch.randn(24, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    assert int(y.max()) == 1
    f = ((x.flatten(1) - 0.5) @ model.w.detach()).abs()
    distance = f / model.w.detach().norm(p=1 if norm == "linf" else 2)
    eps = float(distance.median())
    if classes < LEAST.get(name, 2):
        with pytest.raises(UsageError, match=f"{name} needs at least .* {classes}"):
            attack(name, model, x, y, Threat(norm, eps), steps=30)
        return
    found = attack(name, model, x, y, Threat(norm, eps), steps=30)
    clear = (distance / eps - 1).abs() > 0.01
    assert int(clear.sum()) > 20
    assert torch.equal((model(found).argmax(1) != y)[clear], (distance < eps)[clear])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_breaks_only_what_can_be_broken(norm):
    model = Plane(3)
    x = 0.5 + 0.08 * torch.randn(48, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    f = ((x.flatten(1) - 0.5) @ model.w.detach()).abs()
    distance = f / model.w.detach().norm(p=1 if norm == "linf" else 2)
    eps = float(distance.median())
    found = attack("square", model, x, y, Threat(norm, eps), queries=200)
    fell = model(found).argmax(1) != y
    assert bool((distance[fell] <= eps * 1.001).all())
    assert bool(fell[distance < 0.3 * eps].all())
    assert int((distance < 0.3 * eps).sum()) > 2


class Tied(nn.Module):
    """All classes alike, whatever the image: the first is the answer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return x.flatten(1).sum(1, keepdim=True) * self.weight


@pytest.mark.parametrize("suite", [False, True])
@balls
def test_square_gives_a_verdict_where_all_logits_are_tied(norm, eps, suite):
    model, x = Tied(), torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(4, dtype=torch.int64)
    if suite:
        judge = autoattack.Judge(model, Threat(norm, eps), "standard", 3, 0)
        judge.suite.square.n_queries = 5
        found = judge.attack("square", x, y)
    else:
        found = attack("square", model, x, y, Threat(norm, eps), queries=5)
    assert torch.equal(found, x)  # the class named stays the first: nobody is broken


SQUARE = (4, 5, 11, 12, 13, 14, 24, 25, 28, 32)
SIZES = [*zip(SQUARE, SQUARE, strict=True), (3, 8), (5, 3), (28, 20)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_square_refuses_just_the_sizes_that_upstream_fails_on(norm, size):
    model = nn.Sequential(nn.Flatten(), nn.Linear(size[0] * size[1], 3))
    x = torch.rand(3, 1, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(1)
    try:
        with torch.random.fork_rng(), torch.no_grad():
            theirs = direct("square", model, norm, 0.5, 0, queries=5).perturb(x, y)
    except (RuntimeError, ZeroDivisionError):
        with pytest.raises(UsageError, match=rf"square in {norm} .*{size[0]}x{size[1]}"):
            attack("square", model, x, y, Threat(norm, 0.5), queries=5)
    else:
        found = attack("square", model, x, y, Threat(norm, 0.5), queries=5)
        assert torch.equal(found, theirs)


@pytest.mark.parametrize("name", ["square", "autoattack"])
def test_images_too_small_for_square_are_refused_before_any_work(name):
    planted, _, _ = case(3)
    height = planted.info["model"]["input_shape"][1]
    info = {**planted.info, "model": {**planted.info["model"], "input_shape": [1, 4, 4]}}
    assert height >= 5
    settings = AttackSettings(
        name, "l2", "0.5", "digits", 0, 4,
        options=part_options(name, {}) if name == "square" else {},
    )  # fmt: skip
    with pytest.raises(UsageError, match="square in l2 needs images at least 5 pixels high"):
        Evaluation(planted.model, info, planted.images, settings, environment=ENVIRONMENT)


@pytest.mark.parametrize("classes", [2, 3, 4])  # five: every other test
@names
def test_any_number_of_classes(name, classes):
    planted, _, y = case(classes)
    model, info, images = planted.model, planted.info, planted.images
    settings = AttackSettings(
        name, "linf", "0.05", "digits", 0, 4, save_images=True,
        options=part_options(name, QUICK[name]),
    )  # fmt: skip
    if classes < LEAST.get(name, 2):
        with pytest.raises(UsageError, match=f"{name} needs at least .* {classes}"):
            Evaluation(model, info, images, settings, environment=ENVIRONMENT)
        return
    found = Evaluation(model, info, images, settings, environment=ENVIRONMENT).run()
    fell = found.broken_by == 0
    assert bool((found.adversarial.argmax(1) != y)[fell].all())
    assert torch.allclose(found.adversarial, model(found.images), atol=1e-4)
    assert not bool((fell & planted.stands).any())
    assert int(fell.sum()) > 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_highest_loss_iterates(norm):
    """Of all examples, inside the ball, and the highest loss that the ball holds.

    Between two classes that a plane divides the loss rises with the distance gone towards it, so
    that its highest value is known, on which PGD ends too.
    """
    model = Plane(5)
    x = 0.5 + 0.08 * torch.randn(24, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    y = torch.where(torch.arange(len(y)) % 3 == 0, 1 - y, y)
    eps = {"linf": 0.02, "l2": 0.1}[norm]
    threat, draw = Threat(norm, eps), torch.Generator().manual_seed(0)
    before = torch.get_rng_state()
    found, again = (
        apgd_ce.highest(model, x, y, threat, generator=draw, steps=30, restarts=2) for _ in "ab"
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found, again)
    assert float(threat.distance(found, x).max()) <= eps + 1e-6
    assert bool(((found > 0) & (found < 1)).all()), "the box must not matter here"
    own = (2 * y - 1) * ((x.flatten(1) - 0.5) @ model.w)
    most = softplus(eps * model.w.norm(p=1 if norm == "linf" else 2) - own)
    reached, plain = (
        cross_entropy(model(each), y).detach()
        for each in (found, pgd.pgd(model, x, y, threat, steps=30, generator=draw))
    )
    torch.testing.assert_close(reached, most.detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plain, most.detach(), atol=1e-4, rtol=1e-4)


@names
def test_other_seeds_draw_other_noise(name):
    planted, x, y = case()
    model = planted.model
    options = {**QUICK[name], "restarts": 2}
    found = [attack(name, model, x, y, Threat("linf", 0.05), seed, **options) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert name == "fab-t" or not torch.equal(found[0], found[2])


# --- l1 ---


L1 = {"apgd-ce": {"restarts": 5}, "apgd-t": {"targets": 5}, "fab-t": {}, "square": {}}


@pytest.mark.parametrize("name", L1)
def test_l1_equals_the_suite_of_upstream(name):
    """`--restarts 5` of APGD-CE and `--targets 5` of APGD-T are the suite's own in l1."""
    planted, x, y = case(11, "l1", 0.3)
    model = planted.model
    quick = {"square": {"queries": 40}, "fab-t": {"steps": 5}}.get(name, {"steps": 20})
    suite = pyautoattack.AutoAttack(model, norm="L1", eps=0.3, seed=1)
    suite.fab.targeted, suite.fab.n_iter, suite.square.n_queries = True, 5, 40
    for each in (suite.apgd, suite.apgd_targeted):
        each.n_iter = each.n_iter_orig = 20
        each.n_iter_2, each.n_iter_min, each.size_decr = 4, 1, 1
    theirs = {"apgd-t": suite.apgd_targeted, "fab-t": suite.fab, "square": suite.square}
    with torch.random.fork_rng(), torch.no_grad():
        expected = theirs.get(name, suite.apgd).perturb(x, y)
    found = attack(name, model, x, y, Ball("l1", 0.3), 1, **quick, **L1[name])
    assert torch.equal(found, expected)
    assert float((found - x).abs().flatten(1).sum(1).max()) <= 0.3 + 1e-5
    changed = (found != x).flatten(1).any(1)
    assert not bool((changed & planted.stands).any())
    assert name == "square" or bool((changed | planted.stands).all())


def test_l1_judge_equals_upstream(monkeypatch):
    original = pyautoattack.AutoAttack._set_version

    def lighter(suite, version="standard"):
        original(suite, version)
        suite.fab.n_iter, suite.square.n_queries = 4, 30
        for each in (suite.apgd, suite.apgd_targeted):
            each.n_iter = each.n_iter_orig = 10

    monkeypatch.setattr(pyautoattack.AutoAttack, "_set_version", lighter)
    planted, x, y = case(11, "l1", 0.3)
    model = planted.model
    suite = pyautoattack.AutoAttack(model, norm="L1", eps=0.3, seed=2)
    with torch.random.fork_rng():
        theirs, _ = suite.run_standard_evaluation(x, y, batch_size=50)
    judge = autoattack.Judge(model, Threat("l1", 0.3), "standard", 11, 2)
    assert (judge.suite.apgd.n_restarts, judge.suite.apgd.use_largereps) == (5, True)
    mine, left = x.clone(), torch.arange(len(y))
    for name in autoattack.attacks("standard", 11):
        for target in judge.targets(name):
            found = judge.attack(name, x[left], y[left], target)
            wrong = model(found).argmax(1) != y[left]
            mine[left[wrong]] = found[wrong]
            left = left[~wrong]
    assert torch.equal((mine != x).flatten(1).any(1), (theirs != x).flatten(1).any(1))
    assert torch.equal(left, planted.stands.nonzero().flatten())


@pytest.mark.parametrize(
    ("norm", "version", "classes", "counts"),
    [("linf", "standard", 10, (9, 9)), ("l1", "standard", 10, (5, 9)), ("l1", "plus", 10, (9, 9)),
     ("l1", "standard", 4, (3, 3)), ("l2", "standard", 3, (2, 2))],
)  # fmt: skip
def test_target_classes(norm, version, classes, counts):
    found = autoattack.target_classes(version, norm, classes)
    assert (found["apgd-t"], found["fab-t"]) == counts


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t"])
def test_l1_needs_a_step_for_each_radius(name):
    planted, x, y = case()
    model = planted.model
    with pytest.raises(UsageError, match="at least 3"):
        attack(name, model, x, y, Ball("l1", 0.3), steps=2)
    attack(name, model, x, y, Ball("l1", 0.3), steps=3)


@names
def test_l1_evaluation(name):
    planted = known(5, 10, "l1", 0.8)
    model, info, images = planted.model, planted.info, planted.images
    options = part_options(name, QUICK[name])
    settings = AttackSettings(name, "l1", "0.8", "digits", 0, 4, save_images=True, options=options)
    found = Evaluation(model, info, images, settings, environment=ENVIRONMENT).run()
    assert 0 < float(found.norm.max()) <= 0.8 + 1e-5
