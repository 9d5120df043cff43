"""Transfer: images made on one net and judged on another."""

import pytest
import torch
from torch import nn

from advkit import data, models
from advkit.attacks import pgd, transfer
from advkit.errors import MismatchError, UsageError
from advkit.evaluation.passes import Surrogate
from advkit.evaluation.run import Evaluation
from advkit.evaluation.settings import AttackSettings, part_options
from advkit.formulas.threat import Threat
from advkit.images.image_set import pixels
from tests.attacks.planted import NEAREST, known
from tests.attacks.test_autoattack import ENVIRONMENT


def random_case():
    found = known(5)
    return found.model, found.info, found.images


def other(classes=5, seed=7):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.Tanh(), nn.Linear(16, classes)).eval()


class Deaf(nn.Module):
    """A model that must not be asked."""

    def forward(self, x):
        raise AssertionError("the model was asked")


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.5)])
def test_is_pgd_on_the_surrogate(norm, eps):
    _, _, images = random_case()
    x, y, surrogate = pixels(images.images, "cpu"), images.labels, other()
    found, expected = (
        each(net, x, y, Threat(norm, eps), generator=torch.Generator().manual_seed(1), steps=4,
             restarts=2, **more)
        for each, net, more in ((transfer.attack, Deaf(), {"surrogate": surrogate}),
                                (pgd.attack, surrogate, {}))
    )  # fmt: skip
    assert torch.equal(found, expected)


def test_surrogate_is_asked_in_eval_mode_and_left_as_it_was():
    images = data.load("digits", "test")
    net = models.build("small-cnn", 10, channels=1, statistics=images.normalisation, seed=0)
    x, y = pixels(images.batch(torch.arange(6)), "cpu"), images.labels[:6]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    draws = [torch.Generator().manual_seed(0) for _ in "ab"]
    ball = Threat("linf", 0.1)
    found = transfer.attack(Deaf(), x, y, ball, generator=draws[0], surrogate=net.train(), steps=3)
    assert all(module.training for module in net.modules())
    assert all(each.requires_grad for each in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(found, pgd.attack(net.eval(), x, y, ball, generator=draws[1], steps=3))


class Half(nn.Module):
    """The model itself for every fourth image; for the others its gradient leads away."""

    def __init__(self, model, images):
        super().__init__()
        self.net = model
        self.known = pixels(images.images, "cpu")

    def forward(self, x):
        z = self.net(x)
        nearest = torch.cdist(x.detach().flatten(1), self.known.flatten(1)).argmin(1)
        return torch.where(nearest[:, None] % 4 == 0, z, -z)


def evaluation(model, info, images, surrogate, attack="transfer", digest="sha256:s"):
    options = part_options(attack, {})
    settings = AttackSettings(
        attack, "linf", "0.05", "digits", 0, 4, save_images=True, options=options, surrogate=digest
    )
    return Evaluation(model, info, images, settings, environment=ENVIRONMENT, surrogate=surrogate)


def test_verdicts_are_the_models():
    planted = known(5)
    model, info, images = planted.model, planted.info, planted.images
    half = Half(model, images)
    net = Surrogate(half, {**info, "digest": "sha256:s", "role": "final"})
    found = evaluation(model, info, images, net).run()
    fell = planted.fooled(found.images)
    assert torch.equal(found.broken_by == 0, fell)
    led = torch.arange(len(fell)) % 4 == 0
    expected = led & ~planted.stands
    expected[NEAREST] = fell[NEAREST]  # its random start may be enough
    assert torch.equal(fell, expected), "those fall that are led to where they can"
    fooled = half(found.images).argmax(1) != images.labels
    assert bool(fooled[~led].all()), "the surrogate's verdict is another"
    digests = [(each["kind"], each["digest"]) for each in found.info["parents"]]
    assert digests[:2] == [("checkpoint", "sha256:0"), ("checkpoint", "sha256:s")]
    assert [kind for kind, _ in digests[2:]] == ["data"]
    assert found.info["config"]["surrogate"] == "sha256:s"


def test_surrogate_where_none_is_needed_and_none_where_one_is():
    model, info, images = random_case()
    net = Surrogate(other(), {**info, "digest": "sha256:s"})
    with pytest.raises(UsageError, match="no meaning for --attack pgd"):
        evaluation(model, info, images, net, "pgd")
    with pytest.raises(UsageError, match="needs --surrogate"):
        evaluation(model, info, images, None)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"data": {"name": "digits", "classes": list("abcde")}}, "classes"),
        ({"data": {"name": "digits", "classes": ["c0"]}}, "classes"),
        ({"model": {"input_shape": [1, 8, 8]}}, "input shape"),
        ({"digest": "sha256:t"}, "named"),
    ],
)
def test_surrogate_must_fit(change, word):
    model, info, images = random_case()
    net = Surrogate(other(), {**info, "digest": "sha256:s", **change})
    with pytest.raises(MismatchError, match=word):
        evaluation(model, info, images, net)


@pytest.mark.parametrize("surrogate", ["sha256:s", "sha256:t"])
def test_partial_work_with_another_surrogate(tmp_path, surrogate):
    model, info, images = random_case()
    partial = tmp_path / "it.h5.part"
    first = Surrogate(other(), {**info, "digest": "sha256:s"})
    evaluation(model, info, images, first).run(partial)
    second = Surrogate(other(seed=8), {**info, "digest": surrogate})
    found = evaluation(model, info, images, second, digest=surrogate).run(partial)
    afresh = evaluation(model, info, images, second, digest=surrogate).run()
    taken_over = surrogate == "sha256:s"  # the digest says it is the first one's work
    assert torch.equal(found.images, afresh.images) is not taken_over
