"""Evaluation: whose verdict counts, what is refused, and going on after an interruption."""

import copy
import functools
import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn

from advkit import models
from advkit.attacks import fgsm, pgd
from advkit.attacks.upstream import autoattack
from advkit.errors import AdvkitError, MismatchError, NumericalError
from advkit.evaluation import folded
from advkit.evaluation.audit import audited
from advkit.evaluation.run import Evaluation
from advkit.evaluation.settings import AttackSettings, part_options
from advkit.evaluation.verdicts import accuracy_after, figures
from advkit.formulas.threat import Threat
from advkit.images.image_set import Images, fitted, pixels
from advkit.models import require_finite
from advkit.runtime import counting
from advkit.runtime.reporting import Reporter
from tests.attacks.planted import NEAREST, known
from tests.heard import Heard

CLASSES, COUNT, EPS = 5, 22, 0.05
NAMES = tuple("abcde")
INFO = {
    "data": {"name": "digits", "classes": list(NAMES)},
    "model": {"input_shape": [1, 6, 6]},
    "kind": "checkpoint", "digest": "sha256:0", "method": "at", "arch": "x", "role": "best",
    "seed": 0, "parents": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def planted():
    """A net and images of which every second one stands in the ball, whatever the rounding."""
    return known(CLASSES, COUNT, "linf", EPS, names=NAMES)


@pytest.fixture
def model(planted):
    return copy.deepcopy(planted.model)


def labelled(planted):
    """The images, labelled as the model sees them, but for every fifth."""
    labels = planted.y.clone()
    labels[::5] = (labels[::5] + 1) % CLASSES
    return Images("digits", "test", planted.images.images, labels, NAMES, 0, False)


@pytest.fixture
def images(planted):
    return labelled(planted)


@pytest.fixture
def falls(planted):
    """(N,) bool: right when clean, and half of the ball or less from the decision."""
    return ~planted.stands & (torch.arange(COUNT) % 5 > 0)


QUICK = {
    "pgd": {"steps": 8},
    "apgd-ce": {"steps": 8},
    "apgd-dlr": {"steps": 8},
    "apgd-t": {"steps": 8},
    "fab-t": {"steps": 4},
    "square": {"queries": 120},
}


def evaluation(model, images, attack="pgd", eps=EPS, info=INFO, reporter=None, **more):
    if attack in QUICK:
        more.setdefault("options", part_options(attack, QUICK[attack]))
    more = {"batch_size": 4, "save_images": attack != "none", **more}
    settings = AttackSettings(attack, more.pop("norm", "linf"), str(eps), "digits", **more)
    environment = {"device": "cpu", "threads": 1}
    return Evaluation(model, info, images, settings, environment=environment, reporter=reporter)


@contextmanager
def lightened():
    """AutoAttack with fewer iterations and queries."""
    original = autoattack.AutoAttack._set_version

    def lighter(suite, version="standard"):
        original(suite, version)
        suite.fab.n_iter, suite.square.n_queries = 3, 20
        suite.apgd.n_iter = suite.apgd_targeted.n_iter = 6

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoattack.AutoAttack, "_set_version", lighter)
        yield


@pytest.fixture
def light():
    with lightened():
        yield


@pytest.fixture(scope="module")
def attacked_once(planted):
    """Give an attack's evaluation of the planted net, made once for those who only look at it."""

    @functools.cache
    def get(attack):
        with lightened():
            return evaluation(copy.deepcopy(planted.model), labelled(planted), attack).run()

    return get


ATTACKS = (*QUICK, "fgsm", "autoattack", "fast")
WEAK = ("square",)
"""So short that some stand that need not."""
attacked = pytest.mark.parametrize("attack", ATTACKS)


@attacked
def test_verdicts_come_from_the_images(attacked_once, model, images, falls, attack):
    """Every verdict and every logit is what the model says of the images in the file."""
    found = attacked_once(attack)
    x = pixels(images.images, "cpu")
    wrong_clean = torch.arange(COUNT) % 5 == 0
    broken = found.broken_by >= 0
    assert torch.equal(found.broken_by == -2, wrong_clean)
    assert bool((found.adversarial.argmax(1) != images.labels)[broken].all())
    assert not bool((broken & ~falls).any())
    assert bool(broken[NEAREST])
    assert attack in WEAK or torch.equal(broken, falls)
    assert int(found.broken_by.max()) < len(found.attacks)
    assert torch.allclose(found.adversarial, model(found.images), atol=1e-4)
    assert torch.allclose(found.clean, model(x), atol=1e-4)
    distance = (found.images - x).flatten(1).abs().amax(1)
    assert torch.allclose(found.norm, distance, atol=1e-7)
    assert float(distance.max()) <= EPS + 1e-6


@attacked
def test_every_example_is_attacked(attacked_once, images, attack):
    """Wrong and unbroken examples too have logits of an attack that raised their loss."""
    found = attacked_once(attack)
    rows, y = np.arange(COUNT), images.labels.numpy()
    clean, adversarial = (
        -log_softmax(z.double().numpy(), axis=1)[rows, y] for z in (found.clean, found.adversarial)
    )
    raised = adversarial > clean
    assert raised[found.broken_by.numpy() < 0].all()
    raised[NEAREST] = True  # right with less than even odds: it may break and lose no likelihood
    assert raised.all()
    assert float(found.norm.min()) > 0


def test_position_of_the_breaking_attack(model, images, monkeypatch):
    """Each attack breaks one example of its choice; the first to break it is named."""
    prey = {"apgd-ce": 1, "apgd-t": 2, "fab-t": 3, "square": 4}
    x = pixels(images.images, "cpu")
    visited = {}

    class Mock(nn.Module):
        """Right on every clean image but the fifths, wrong on those that were marked."""

        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, batch):
            z = self.net(batch)
            return torch.where(batch[:, 0, :1, 0] == 0.123, -z, z)

    def attack(judge, name, batch, y, target):
        rows = [int((x == each).flatten(1).all(1).nonzero()) for each in batch]
        if target < 2:
            visited.setdefault(name, []).extend(rows)
        elif target == 2 and name == "apgd-t":
            assert 2 not in rows, "what the first target broke has left the batches"
        marked = batch.clone()
        for place, row in enumerate(rows):
            if row == prey[name]:
                marked[place, 0, 0, 0] = 0.123
        return marked

    monkeypatch.setattr(autoattack.Judge, "attack", attack)
    found = evaluation(Mock(), images, "autoattack", eps=1).run()
    right = [row for row in range(COUNT) if row % 5]
    assert visited["apgd-ce"] == right, "only examples that are right when clean"
    assert visited["square"] == [row for row in right if row not in (1, 2, 3)], "still standing"
    assert found.broken_by[:6].tolist() == [-2, 0, 1, 2, 3, -2]
    assert (found.broken_by[6:] < 0).all()
    n = len(right)
    expected = [(n - k) / COUNT for k in (1, 2, 3, 4)]
    assert list(accuracy_after(found).values()) == pytest.approx(expected)
    assert list(accuracy_after(found)) == list(prey)


@attacked
def test_accuracy_after_falls_to_the_robust_one(attacked_once, falls, attack):
    found = attacked_once(attack)
    numbers = figures(found)
    left = [numbers["clean_accuracy"], *numbers["accuracy_after"].values()]
    assert left == sorted(left, reverse=True)
    assert left[-1] == numbers["robust_accuracy"]
    right = 1 - math.ceil(COUNT / 5) / COUNT
    assert numbers["clean_accuracy"] == pytest.approx(right)
    standing = found.broken_by == -1
    assert numbers["robust_accuracy"] == pytest.approx(float(standing.float().mean()))
    if attack not in WEAK:
        assert numbers["robust_accuracy"] == pytest.approx(right - int(falls.sum()) / COUNT)
    low, high = numbers["ci95"]
    assert low < numbers["robust_accuracy"] < high


@pytest.mark.parametrize(
    ("norm", "delta"),
    [("linf", 0.1001), ("l2", 0.0301), ("linf", float("nan")), ("l2", float("nan"))],
)
def test_audit_refuses_the_ball(norm, delta):
    x = torch.full((3, 1, 4, 4), 0.5)
    x_adv = x.clone()
    x_adv[1] += delta
    with pytest.raises(AdvkitError, match="left the threat model"):
        audited(x_adv, x, Threat(norm, 0.1 if norm == "linf" else 0.12), "it")


@pytest.mark.parametrize("pixel", [-0.001, 1.001, float("inf")])
def test_audit_refuses_the_box(pixel):
    x = torch.full((2, 1, 2, 2), 0.5).index_fill(0, torch.tensor([1]), round(min(pixel, 1.0)))
    x_adv = x.clone()
    x_adv[1, 0, 0, 0] = pixel
    with pytest.raises(AdvkitError, match="left the threat model"):
        audited(x_adv, x, Threat("linf", 0.1), "it")


@pytest.mark.parametrize(("norm", "distance"), [("linf", 0.1), ("l2", 0.4)])
def test_audit_measures(norm, distance):
    x = torch.full((2, 1, 4, 4), 0.5)
    x_adv = x.clone()
    x_adv[1] -= 0.1
    found = audited(x_adv, x, Threat(norm, distance), "it")
    np.testing.assert_allclose(found, [0, distance], atol=1e-6)


def test_illegal_attack_is_no_verdict(model, images, monkeypatch):
    monkeypatch.setattr(fgsm, "attack", lambda net, x, y, threat, *, generator: (x + 0.2) % 1)
    with pytest.raises(AdvkitError, match="fgsm left the threat model"):
        evaluation(model, images, "fgsm").run()


@pytest.mark.parametrize("attack", ["none", "pgd"])
def test_nan_logits(model, images, attack):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, x):
            z = self.net(x)
            bad = (x == pixels(images.images[13:14], "cpu")).flatten(1).all(1)
            return z + torch.where(bad, torch.nan, 0)[:, None]

    with pytest.raises(NumericalError, match="example 13"):
        evaluation(Broken(), images, attack).run()


def test_nan_weights():
    with pytest.raises(NumericalError, match="b holds NaN"):
        require_finite({"a": torch.ones(2), "b": torch.tensor([1.0, torch.inf])}, "it")


class Interrupted(Exception):
    pass


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize(
    ("attack", "owner", "name"),
    [
        ("pgd", pgd, "attack"),
        ("autoattack", autoattack.Judge, "attack"),
        ("apgd-ce", autoattack, "apgd"),
    ],
)
@pytest.mark.parametrize("stop", [0, 1, 5])
def test_interrupted_goes_on(model, images, monkeypatch, tmp_path, attack, owner, name, stop):
    size = 8 if attack == "autoattack" else 4
    original, calls, cut = getattr(owner, name), [], []

    def counted(*arguments, **options):
        calls.append(1)
        if [len(calls)] == cut:
            raise Interrupted
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, counted)
    expected = evaluation(model, images, attack, batch_size=size).run()
    needed, partial = len(calls), tmp_path / "it.h5.part"
    calls.clear()
    cut.append(stop + 1)
    with pytest.raises(Interrupted):
        evaluation(model, images, attack, batch_size=size).run(partial)
    assert partial.exists() == (stop > 0)
    cut.clear()
    found = evaluation(model, images, attack, batch_size=size).run(partial)
    assert len(calls) == needed + 1, "only the batch that was cut off is done twice"
    for field in ("index", "labels", "clean", "adversarial", "norm", "broken_by", "images"):
        assert torch.equal(getattr(found, field), getattr(expected, field)), field
    assert found.info == expected.info


def test_interrupted_between_two_batches_of_a_target(model, images, monkeypatch, tmp_path):
    """At every place: what a target broke before the cut is not taken for another batch's.

    In the attacks' place stands one that breaks three examples at each of five targets.
    """
    places = [("apgd-ce", 0), ("apgd-t", 1), ("apgd-t", 3), ("fab-t", 1), ("fab-t", 2)]
    right = [row for row in range(COUNT) if row % 5]
    prey = {row: places[place % 5] for place, row in enumerate(right[:15])}
    clean, seen, cut = pixels(images.images, "cpu"), [], []

    class Marked(nn.Module):
        """The model, but for images with a mark: those it takes for anything else."""

        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, batch):
            z = self.net(batch)
            return torch.where(batch[:, 0, :1, 0] == 0.123, -z, z)

    def attack(judge, name, x, y, target):
        if [len(seen)] == cut:
            raise Interrupted
        rows = [int((clean == each).flatten(1).all(1).nonzero()) for each in x]
        seen.append((name, target, rows))
        found = x.clone()
        for place, row in enumerate(rows):
            if prey.get(row) == (name, target):
                found[place, 0, 0, 0] = 0.123
        return found

    def run(partial=None):
        return evaluation(Marked(), images, "autoattack", eps=1, batch_size=6).run(partial)

    monkeypatch.setattr(autoattack.Judge, "attack", attack)
    expected = run()
    assert {row: by for row, by in enumerate(expected.broken_by.tolist()) if by >= 0} == {
        row: ["apgd-ce", "apgd-t", "fab-t"].index(name) for row, (name, _) in prey.items()
    }
    whole = list(seen)
    within = [k for k in range(1, len(whole)) if whole[k][:2] == whole[k - 1][:2] and whole[k][1]]
    assert {whole[k][1] for k in within} >= {1, 2}, "in the first target and a later one"
    assert {whole[k][0] for k in within} == {"apgd-t", "fab-t"}
    for place in within:
        seen.clear()
        cut[:] = [place]
        partial = tmp_path / f"{place}.part"
        with pytest.raises(Interrupted):
            run(partial)
        cut.clear()
        found = run(partial)
        assert seen == whole
        for field in ("adversarial", "norm", "broken_by", "images"):
            assert torch.equal(getattr(found, field), getattr(expected, field)), field


class Normed(nn.Module):
    """A net whose normalisation can be folded, beside one that counts who asks it."""

    def __init__(self, net):
        super().__init__()
        self.net, self.asked = net, []

    def forward(self, x):
        self.note(x)
        return self.net(x)

    def note(self, x):
        if isinstance(x, torch.Tensor):  # not while it is traced
            self.asked.append(len(x))


@pytest.fixture
def normed():
    """(a net that can be folded, its images, which of them stand)."""
    planted = known(CLASSES, COUNT, "linf", EPS, conv=True, names=NAMES)
    return Normed(planted.model).eval(), planted.images, planted.stands


@pytest.mark.usefixtures("light")
def test_attacks_search_on_a_copy_and_the_model_judges(normed):
    """The model is asked for verdicts alone: a forward pass of each batch that an attack saw."""
    net, images, stands = normed
    found = evaluation(net, images, "autoattack", batch_size=COUNT).run()
    passes = 1 + 4 + 4 + 1 + 1
    # Twice the clean pass, once the zero gradients, once the copy's check, then a pass each.
    assert len(net.asked) <= 2 + 1 + 1 + passes
    assert torch.equal(found.broken_by == -1, stands)
    assert torch.equal(found.adversarial.argmax(1) != images.labels, found.broken_by >= 0)
    assert torch.allclose(found.adversarial, net(found.images), atol=1e-4)


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("more", [{"version": "rand"}, {"wrong": True}])
def test_the_model_itself_where_a_copy_may_not_stand_for_it(normed, monkeypatch, more):
    net, images, _ = normed
    notes, original = [], folded.folded

    class Listening(Reporter):
        def note(self, text):
            notes.append(text)

    def wrong(model):
        found = original(model)
        (*_, last) = (each for each in found.modules() if isinstance(each, nn.Linear))
        last.bias.data += torch.arange(CLASSES)
        return found

    if more.pop("wrong", False):
        monkeypatch.setattr(folded, "folded", wrong)
    evaluation(net, images, "autoattack", batch_size=COUNT, reporter=Listening(), **more).run()
    assert len(net.asked) > 50
    assert any("cannot be folded" in note for note in notes) == (not more)


@pytest.mark.usefixtures("light")
def test_partial_work_of_another_scheme_is_started_anew(model, images, monkeypatch, tmp_path):
    partial, notes = tmp_path / "it.h5.part", []

    class Listening(Reporter):
        def note(self, text):
            notes.append(text)

    evaluation(model, images, "fast").run(partial)
    monkeypatch.setattr(autoattack, "SCHEME", "another")
    evaluation(model, images, "fast", reporter=Listening()).run(partial)
    assert "started anew" in notes[0]


@pytest.mark.parametrize("cut", ["books", "images"])
def test_torn_partial_work_is_started_anew(model, images, tmp_path, cut):
    partial, notes = tmp_path / "it.h5.part", []
    expected = evaluation(model, images).run(partial)
    (partial if cut == "books" else tmp_path / "it.h5.part.2").write_bytes(b"torn")

    class Listening(Reporter):
        def note(self, text):
            notes.append(text)

    found = evaluation(model, images, reporter=Listening()).run(partial)
    assert "started anew" in notes[0]
    assert torch.equal(found.images, expected.images)


def test_passes_for_the_rest_change_no_verdict(model, images, monkeypatch):
    """APGD gives up at once; the pass behind it breaks examples, and only their logits say so."""
    original, notes = autoattack.apgd, []

    def lazy(net, x, y, threat, generator, *, highest=False, **options):
        return original(net, x, y, threat, generator, highest=True, **options) if highest else x

    class Listening(Reporter):
        def note(self, text):
            notes.append(text)

    monkeypatch.setattr(autoattack, "apgd", lazy)
    found = evaluation(model, images, "apgd-ce", eps=0.2, reporter=Listening()).run()
    right = found.clean.argmax(1) == images.labels
    assert torch.equal(found.broken_by == -1, right)
    fell = int((found.adversarial.argmax(1) != images.labels)[right].sum())
    assert fell > 0
    assert figures(found)["robust_accuracy"] == pytest.approx(float(right.float().mean()))
    assert f"apgd-ce for the rest) broke {fell} of {int(right.sum())}" in notes[0]


def test_the_fast_suite_is_the_beginning_of_autoattack(attacked_once):
    whole, fast = attacked_once("autoattack"), attacked_once("fast")
    assert fast.attacks == ["apgd-ce", "apgd-t"]
    assert fast.info["config"]["attack"] == "fast"
    by_others = whole.broken_by > 1
    assert torch.equal(fast.broken_by[~by_others], whole.broken_by[~by_others])
    assert bool((fast.broken_by[by_others] == -1).all())
    assert "autoattack" not in str({**fast.info, "implementation": ""}).lower()


@pytest.mark.parametrize("change", [{"eps": 0.04}, {"seed": 1}, {"batch_size": 5}])
def test_partial_of_another_evaluation(model, images, monkeypatch, tmp_path, change):
    partial = tmp_path / "it.h5.part"
    evaluation(model, images).run(partial)
    found = evaluation(model, images, **change).run(partial)
    afresh = evaluation(model, images, **change).run()
    assert torch.equal(found.adversarial, afresh.adversarial)
    assert torch.equal(found.broken_by, afresh.broken_by)


@pytest.fixture
def others():
    raw = torch.randint(0, 256, (9, 3, 8, 10), generator=torch.Generator().manual_seed(3))
    return Images(
        "folder", "test", raw.to(torch.uint8), torch.zeros(9, dtype=torch.int64), ("x",), 0, False
    )


@attacked
def test_other_classes_cannot_be_attacked(model, others, attack):
    with pytest.raises(MismatchError, match="--attack none"):
        evaluation(model, others, attack)


def test_out_of_distribution(model, others):
    found = evaluation(model, others, "none").run()
    assert found.labels.tolist() == [-1] * 9
    assert found.clean.shape == (9, CLASSES)
    assert found.adversarial is found.norm is found.broken_by is found.images is None
    numbers = figures(found)
    assert numbers["n"] == 9
    for name in ("clean_accuracy", "clean_ci95", "robust_accuracy", "ci95"):
        assert numbers[name] is None
    grey = pixels(others.images, "cpu").mean(1, keepdim=True)
    small = nn.functional.interpolate(grey, (6, 6), mode="bilinear", antialias=True)
    assert torch.allclose(found.clean, model(small), atol=1e-5)


def test_no_attack_has_no_robust_figures(model, images):
    numbers = figures(evaluation(model, images, "none").run())
    assert numbers["robust_accuracy"] is None
    assert numbers["clean_accuracy"] == pytest.approx(17 / 22)


@pytest.mark.parametrize(
    ("shape", "target"), [((1, 8, 8), (3, 8, 8)), ((3, 8, 8), (1, 8, 8)), ((3, 4, 6), (3, 8, 8))]
)
def test_fitted(shape, target):
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    found = fitted(x, target)
    assert found.shape == (2, *target)
    assert found.is_contiguous()
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    np.testing.assert_allclose(found.mean(), x.mean(), atol=0.02)


def test_fitted_by_hand():
    x = torch.rand(2, 3, 4, 4)
    assert fitted(x, (3, 4, 4)).equal(x)
    assert fitted(x, (1, 4, 4)).allclose((x[:, :1] + x[:, 1:2] + x[:, 2:]) / 3)
    halves = torch.tensor([0.0, 0, 1, 1]).expand(1, 1, 4, 4)
    np.testing.assert_allclose(fitted(halves, (1, 2, 2))[0, 0, 0], [1 / 7, 6 / 7], atol=1e-6)
    grey = torch.rand(1, 1, 4, 4)
    assert fitted(grey, (3, 4, 4)).equal(torch.cat([grey] * 3, 1))


def test_limit_is_class_balanced(model, images):
    found = evaluation(model, images, limit=10).run()
    assert len(found.labels) == 10
    assert torch.equal(found.labels, images.labels[found.index])
    assert found.index.tolist() == sorted(found.index.tolist())


def test_model_is_left_as_it_was(tiny_run):
    """Handed over in train mode, it is evaluated in eval mode and handed back."""
    model, info = models.load(tiny_run / "best.safetensors")
    raw = torch.randint(0, 256, (9, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    names = tuple(info["data"]["classes"])
    images = Images("digits", "test", raw.to(torch.uint8), torch.arange(9), names, 0, False)
    expected = model(pixels(images.images, "cpu")).detach()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = evaluation(model, images, info=info).run()
    assert torch.allclose(found.clean, expected, atol=1e-5)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_random_model_is_warned_about(images):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.scale * x.flatten(1)[:, :CLASSES] + torch.rand(len(x), CLASSES)

    warned = []

    class Listening(Reporter):
        def warn(self, text):
            warned.append(text)

    evaluation(Noisy(), images, reporter=Listening()).run()
    assert len(warned) == 1
    assert "rand" in warned[0]


@pytest.mark.parametrize("attack", ["pgd", "apgd-ce", "square", "autoattack"])
def test_steps_inside_one_batch_are_told(model, images, light, monkeypatch, attack):
    monkeypatch.setattr(counting, "EVERY", 0.0)
    heard = Heard()
    evaluation(model, images, attack, reporter=heard, batch_size=COUNT).run()
    name = {"autoattack": "apgd-ce"}.get(attack, attack)
    # Eight steps of PGD and a last look, six iterations of APGD, 120 queries.
    least = {"pgd": 9, "square": 100}.get(attack, 6)
    passes = [done for what, _, done in heard.inner if what == f"{name} pass"]
    assert passes == sorted(passes)
    assert max(passes) >= least
    assert heard.inner[-1] == ("", 0, 0)
