"""LTD's training: stored labels against the live teacher, binding, masking, resuming."""

import dataclasses
import json
import math
import signal

import numpy as np
import pytest
import scipy.stats
import torch
from safetensors.torch import load_file
from scipy.special import log_softmax, softmax

from advkit import data, models
from advkit.artifacts import checkpoint, soft_labels
from advkit.config.resolve import resolve
from advkit.errors import MismatchError, Stopped, UsageError
from advkit.images.augment import apply_views
from advkit.images.batches import Batches
from advkit.labels.soft import soften
from advkit.runtime.tempered import Tempered
from advkit.softlabels import source as soft_source
from advkit.softlabels.source import Live, Stored
from advkit.training.binding import bound
from advkit.training.run import train
from advkit.training.run_folder import RunFolder
from advkit.training.trainer import Trainer
from tests.conftest import SEED
from tests.softlabels.test_labelling import Heard, label, teach
from tests.training.test_run import contents, stop_at

CPU = torch.device("cpu")
SMALL = {
    "data": "digits", "method": "ltd", "limit": 150, "epochs": 2, "batch_size": 16, "width": 4,
    "lr": 0.05, "attack_steps": 2, "eps": "0.1", "seed": SEED,
}  # fmt: skip
"""Compared with what numpy makes of the same weights, whatever they have learned."""


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return teach(tmp_path_factory.mktemp("teacher") / "run", epochs=3)


@pytest.fixture(scope="module")
def files(teacher):
    """Views → labels file, made when first asked for."""
    made = {}

    def get(views="all"):
        if views not in made:
            made[views] = teacher.parent / f"{views}.h5"
            label(teacher, made[views], views=views)
        return made[views]

    return get


def settings_of(**more):
    return resolve(({**SMALL, **{k: str(v) if k in PATHS else v for k, v in more.items()}}, "flag"))


PATHS = ("soft_labels", "teacher")


def trainer(images=None, reporter=None, **more):
    return Trainer(
        settings_of(**more).settings, images or data.load("digits", "train"),
        device=CPU, threads=1, reporter=reporter or Heard(),
    )  # fmt: skip


def go(path, resume=False, reporter=None, **more):
    return train(
        settings_of(**more), RunFolder(path), device=CPU, threads=1, resume=resume,
        reporter=reporter,
    )  # fmt: skip


def batch_at(made, number):
    epoch, step = divmod(number, len(made.batches))
    return made.batches.at(made.batches.order(epoch), epoch, step)


def test_all_views_equal_the_live_teacher(files, teacher):
    stored, live = trainer(soft_labels=files()), trainer(teacher=teacher)
    assert (type(stored.soft), type(live.soft)) == (Stored, Live)
    views = set()
    for number in range(2 * len(stored.batches)):
        batch = batch_at(stored, number)
        views |= {tuple(view) for view in batch.views.tolist()}
        for t in (1.0, 5.0):
            here, there = (soften(each.soft(batch), t) for each in (stored, live))
            np.testing.assert_allclose(here, there, atol=1e-5)
    assert len(views) == 9


def test_seeded_views_are_the_only_ones_drawn(files, teacher):
    stored, live = trainer(soft_labels=files("3")), trainer(teacher=teacher)
    for number in range(4):
        batch = batch_at(stored, number)
        assert torch.equal(batch.views, stored.soft.views[batch.index, batch.view])
        assert batch.view.unique().tolist() == [0, 1, 2]
        np.testing.assert_allclose(stored.soft(batch), live.soft(batch), atol=1e-4)


def of_labels(heard: Heard) -> list[str]:
    """Return the notes but for the one on images that fill no batch."""
    return [note for note in heard.notes if "--last-batch" not in note]


def test_the_plain_image_alone_differs_and_says_so(files, teacher):
    heard = Heard()
    stored, live = trainer(soft_labels=files("1"), reporter=heard), trainer(teacher=teacher)
    (note,) = of_labels(heard)
    assert "plain image only" in note
    batch = batch_at(stored, 0)
    moved = (batch.views != torch.tensor([1, 1, 0])).any(1)
    gap = (stored.soft(batch).softmax(1) - live.soft(batch).softmax(1)).abs().amax(1)
    assert bool(moved.any())
    assert float(gap[moved].max()) > 1e-3
    assert bool((gap[~moved] < 1e-5).all())


def test_all_views_say_nothing(files):
    heard = Heard()
    trainer(soft_labels=files(), reporter=heard)
    assert (of_labels(heard), heard.warnings) == ([], [])


@pytest.fixture
def doubled(monkeypatch):
    """Batches and noise in float64."""
    original = Batches.at

    def at(*arguments):
        batch = original(*arguments)
        return dataclasses.replace(batch, x=batch.x.double())

    monkeypatch.setattr(Batches, "at", at)


def replaced(made, **parts):
    """Give a trainer other parts: `inner`, `outer`."""
    made.learner.parts = dataclasses.replace(made.learner.parts, **parts)


def losses(made, count):
    """Return the first training losses, with the student in float64."""
    made.learner.model.double()
    outputs = []
    for number in range(count):
        epoch, step = divmod(number, len(made.batches))
        outputs.append(made.learner.learn(batch_at(made, number), epoch, step))
    dtypes = {dtype for output in outputs for dtype in (output.loss.dtype, output.targets.dtype)}
    assert dtypes == {torch.float64}
    return [float(output.loss.detach()) for output in outputs]


def in_double(found, model, digits):
    """Return the labels with logits computed in float64 under the same views."""
    rows = []
    for view in range(found.logits.shape[1]):
        moved = apply_views(digits.images, found.views[:, view], digits.pad)
        with torch.no_grad():
            z = model(moved.float().div(255).double())
        rows.append(z - z.amax(1, keepdim=True))
    return dataclasses.replace(found, logits=torch.stack(rows, 1))


@pytest.mark.parametrize("inner", ["ce", "kl"])
def test_losses_of_stored_and_live_labels_agree_in_float64(doubled, files, teacher, digits, inner):
    found, model = soft_labels.read(files()), models.load(teacher)[0].double()
    wide = in_double(found, model, digits)
    made = {}
    for name, source in (("stored", Stored(wide, digits, Heard())), ("live", Live(model))):
        one = trainer(soft_labels=files(), epochs=3, inner=inner)
        assert one.batches.table is not None
        one.learner.soft = source
        made[name] = losses(one, 8)
    assert len(set(made["live"])) == 8
    np.testing.assert_allclose(made["stored"], made["live"], rtol=0, atol=1e-9)


def test_temperature_reaches_the_targets(files):
    for t in (1.0, 8.0):
        made = trainer(soft_labels=files(), temperature=t)
        batch = batch_at(made, 0)
        targets = made.learner.learn(batch, 0, 0).targets
        z = made.soft(batch).double().numpy()
        np.testing.assert_allclose(targets, softmax(z / t, axis=1), atol=1e-6)


def test_objective_of_a_step(files):
    """Eq. 9: the soft label alone in the clean term, β·KL(clean ‖ adversarial), no τ² factor."""
    made, seen = trainer(soft_labels=files(), temperature=3.0, beta=2.5), {}
    original = made.learner.parts.outer

    def outer(model, x, x_adv, given):
        loss, stats = original(model, x, x_adv, given)
        seen.update(stats, loss=float(loss.detach()), targets=given.targets)
        return loss, stats

    replaced(made, outer=outer)
    batch = batch_at(made, 0)
    made.step(batch, 0, 0)
    clean, adversarial = (
        log_softmax(seen[name].double().numpy(), axis=1) for name in ("clean", "adversarial")
    )
    target = softmax(made.soft(batch).double().numpy() / 3, axis=1)
    natural = -(target * clean).sum(1).mean()
    robust = scipy.stats.entropy(np.exp(clean), np.exp(adversarial), axis=1).mean()
    assert robust > 1e-4
    assert seen["loss"] == pytest.approx(natural + 2.5 * robust, abs=1e-5)


@pytest.mark.parametrize("given", ["ce", "kl", None])
def test_inner(files, given):
    """LTD's text attacks the true label, its code base the clean outputs; the text is default."""
    made = trainer(soft_labels=files(), **({"inner": given} if given else {}))
    assert made.settings.options_of("objectives")["inner"] == (given or "ce")
    seen, original = [], made.learner.parts.inner

    def inner(logits, what):
        seen.append((logits.detach(), what, original(logits, what)))
        return seen[-1][-1]

    replaced(made, inner=inner)
    made.step(batch_at(made, 0), 0, 0)
    assert len(seen) == 2
    for logits, what, value in seen:
        log_p = log_softmax(logits.double().numpy(), axis=1)
        p = softmax(what.clean().double().numpy(), axis=1)
        ce = -log_p[np.arange(16), what.y]
        kl = scipy.stats.entropy(p, np.exp(log_p), axis=1)
        expected, other = (kl, ce) if given == "kl" else (ce, kl)
        np.testing.assert_allclose(value.detach(), expected, atol=1e-5)
        assert np.abs(value.detach().numpy() - other).max() > 0.1


def test_inner_of_plain_trades_stays_kl():
    assert resolve(({**SMALL, "method": "trades"}, "flag")).settings.parts["objectives"][
        "inner"
    ] == "kl"  # fmt: skip


BOUND = {
    "reordered": (lambda im, order: {"images": im.images[order], "labels": im.labels[order]},
                  "another order or other labels"),
    "other labels": (lambda im, order: {"labels": (im.labels + 1) % 10}, "other labels"),
    "other images": (lambda im, order: {"images": 255 - im.images}, "other images"),
    "more classes": (lambda im, order: {"classes": (*im.classes, "10")}, "11"),
    "renamed classes": (lambda im, order: {"classes": tuple("abcdefghij")}, "a, b, c, d"),
    "fewer rows": (lambda im, order: {"images": im.images[:900], "labels": im.labels[:900]},
                   "900"),
    "other padding": (lambda im, order: {"pad": 2}, "padding 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOUND)
def test_labels_of_other_data_train_nothing(files, digits, tmp_path, monkeypatch, name):
    labels = files()  # made before the data change
    change, what = BOUND[name]
    order = torch.randperm(len(digits.labels), generator=torch.Generator().manual_seed(1))
    other = dataclasses.replace(digits, **change(digits, order))
    monkeypatch.setattr(data, "load", lambda *_, **__: other)
    monkeypatch.setattr(Trainer, "step", lambda *_: pytest.fail("it trains"))
    with pytest.raises(MismatchError) as refused:
        go(tmp_path / "run", soft_labels=labels)
    assert what in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["more classes", "renamed classes"])
def test_a_live_teacher_of_other_classes_trains_nothing(
    teacher, digits, tmp_path, monkeypatch, name
):
    other = dataclasses.replace(digits, **BOUND[name][0](digits, None))
    monkeypatch.setattr(data, "load", lambda *_, **__: other)
    with pytest.raises(MismatchError):
        go(tmp_path / "run", teacher=teacher)
    assert not (tmp_path / "run").exists()


def test_a_copy_of_the_same_data_fits(files, digits):
    copy = dataclasses.replace(digits, images=digits.images.clone(), labels=digits.labels.clone())
    assert trainer(copy, soft_labels=files()).soft.views.shape[1] == 9


def test_flips_that_were_not_labelled_are_never_drawn(files, digits):
    flipping = dataclasses.replace(digits, flip=True)
    made = trainer(flipping, soft_labels=files())
    assert not bool(torch.cat([batch_at(made, n).views[:, 2] for n in range(7)]).any())


class TestStudentTemperature:
    def test_divides_in_training_alone(self, files):
        made, seen = trainer(soft_labels=files(), student_temperature=4.0), {}
        original = made.learner.parts.outer

        def outer(model, x, x_adv, given):
            loss, stats = original(model, x, x_adv, given)
            with torch.no_grad():
                seen.update(tempered=model(x), plain=made.learner.model(x))
            return loss, stats

        replaced(made, outer=outer)
        made.step(batch_at(made, 0), 0, 0)
        assert isinstance(made.learner.student, Tempered)
        np.testing.assert_allclose(seen["tempered"] * 4, seen["plain"], atol=1e-5)

    def test_is_gone_from_checkpoint_and_validation(self, files, tmp_path):
        go(tmp_path / "run", soft_labels=files(), student_temperature=4.0, epochs=1)
        best = tmp_path / "run" / "best.safetensors"
        model, info = models.load(best)
        assert not any(name.startswith("model.") for name in load_file(best))
        assert info["config"]["student_temperature"] == 4.0
        made = trainer(soft_labels=files(), student_temperature=4.0)
        made.learner.model.load_state_dict(model.state_dict())
        x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            np.testing.assert_allclose(made.learner.student.eval()(x) * 4, model(x), atol=1e-5)
        assert made._candidates()[0][1] is made.learner.model

    def test_one_leaves_the_student_as_it_is(self, files):
        made = trainer(soft_labels=files())
        assert made.learner.student is made.learner.model


def rows_for(made, robust, share):
    """Plant an epoch's sums: robust accuracy, and target entropy as a share of ln C."""
    made.progress.sums = torch.tensor(
        [100, 50, 100 * share * math.log(10), 90, 100 * robust, 100, 100, 100, 100, 0, 100],
        dtype=torch.float64,
    )
    return made._row()


@pytest.mark.parametrize(
    ("robust", "share", "rings"),
    [
        (1.0, 0.99, True), (0.99, 0.95, True), (1.0, 0.5, False), (0.6, 0.99, False),
        (0.9, 0.999, False), (0.5, 0.1, False),
    ],
)  # fmt: skip
def test_masking_alarm(files, robust, share, rings):
    heard = Heard()
    made = trainer(soft_labels=files(), reporter=heard)
    row = rows_for(made, robust, share)
    assert row["train_robust_accuracy"] == pytest.approx(robust)
    assert row["target_entropy"] == pytest.approx(share * math.log(10))
    assert row.get("masking_alarm", False) is rings
    assert len(heard.warnings) == rings
    assert all("masked" in each for each in heard.warnings)


def test_masking_alarm_warns_once_and_marks_every_epoch(files):
    heard = Heard()
    made = trainer(soft_labels=files(), reporter=heard)
    rows = [rows_for(made, 1.0, 0.99) for _ in range(3)]
    assert [row["masking_alarm"] for row in rows] == [True] * 3
    assert len(heard.warnings) == 1


def test_masking_alarm_needs_an_attack(files):
    made = trainer(soft_labels=files(), method="natural+soft", attack_steps=0)
    assert "masking_alarm" not in rows_for(made, 1.0, 0.99)


def test_masking_alarm_in_a_real_run(files, tmp_path, monkeypatch):
    """Targets flattened to nothing, and every example counted as robust."""
    monkeypatch.setattr("advkit.training.alarms.PERFECT", -1.0)
    heard = Heard()
    go(tmp_path / "run", soft_labels=files(), temperature=1000.0, epochs=1, reporter=heard)
    (row,) = RunFolder(tmp_path / "run").rows()
    assert row["masking_alarm"] is True
    assert row["target_entropy"] > 0.999 * math.log(10)
    assert sum("masked" in each for each in heard.warnings) == 1


@pytest.fixture(scope="module")
def whole(files, teacher, tmp_path_factory):
    """Contents of runs that were never stopped."""
    made = {}

    def get(key):
        if key not in made:
            path = tmp_path_factory.mktemp(key) / "run"
            assert go(path, **source(key, files, teacher))
            made[key] = contents(path)
        return made[key]

    return get


def source(key, files, teacher):
    more = {"batch_size": 32}
    return {**more, "teacher": teacher} if key == "live" else {**more, "soft_labels": files()}


@pytest.mark.parametrize(("key", "call"), [("stored", 0), ("stored", 6), ("live", 4)])
def test_resumed_is_never_stopped(whole, files, teacher, tmp_path, monkeypatch, key, call):
    given = source(key, files, teacher)
    with monkeypatch.context() as patch:
        stop_at(patch, call)
        with pytest.raises(Stopped, match="--resume") as stopped:
            go(tmp_path / "run", **given)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert not (tmp_path / "run" / "final.safetensors").exists()
    assert go(tmp_path / "run", resume=True, **given)
    assert contents(tmp_path / "run") == whole(key)


def test_labels_replaced_while_a_run_was_stopped(files, teacher, tmp_path, monkeypatch):
    path = tmp_path / "labels.h5"
    path.write_bytes(files().read_bytes())
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        with pytest.raises(Stopped):
            go(tmp_path / "run", soft_labels=path)
    path.write_bytes(files("3").read_bytes())
    with pytest.raises(MismatchError, match="soft labels changed"):
        go(tmp_path / "run", resume=True, soft_labels=path)
    assert not (tmp_path / "run" / "final.safetensors").exists()


def test_another_digest_than_the_configurations(files, teacher):
    digest = soft_labels.read(files()).info["digest"]
    named = {"method": "ltd", "soft_labels": str(files()), "labels_digest": digest}
    *_, (found, _) = bound([(named, "flag")])
    assert found["labels_digest"] == digest
    named["labels_digest"] = soft_labels.read(files("1")).info["digest"]
    with pytest.raises(MismatchError, match="other labels than the run began with"):
        bound([(named, "flag")])
    live = {"method": "ltd", "teacher": str(teacher), "labels_digest": digest}
    with pytest.raises(MismatchError, match="other labels"):
        bound([(live, "flag")])


def test_the_engine_too_checks_the_digest(files, tmp_path):
    digest = soft_labels.read(files("1")).info["digest"]
    with pytest.raises(MismatchError):
        go(tmp_path / "run", soft_labels=files(), labels_digest=digest)


@pytest.mark.parametrize("key", ["stored", "live"])
def test_provenance_walks_back_to_the_data(whole, files, teacher, digits, tmp_path, key):
    path = tmp_path / "final.safetensors"
    path.write_bytes(whole(key)["final.safetensors"])
    info = checkpoint.read_info(path)
    taught = checkpoint.read_info(teacher)
    first, second = info["parents"]
    assert (first["kind"], first["digest"]) == ("data", digits.fingerprint)
    if key == "stored":
        assert second["kind"] == "labels"
        assert second["digest"] == soft_labels.read(files()).info["digest"]
        second, last = second["parents"]
        assert last["digest"] == digits.fingerprint
    assert (second["kind"], second["digest"]) == ("checkpoint", taught["digest"])
    assert (second["method"], second["parents"][0]["digest"]) == ("natural", digits.fingerprint)
    assert info["config"]["temperature"] == 5.0
    assert not {"soft_labels", "teacher"} & info["config"].keys()
    assert str(files().parent) not in json.dumps(info)


@pytest.mark.parametrize("method", ["at+soft", "natural+soft", "ltd-wa"])
def test_soft_labels_under_other_objectives(files, tmp_path, method):
    steps = {"attack_steps": 0} if method.startswith("natural") else {}
    go(tmp_path / "run", soft_labels=files(), method=method, epochs=1, limit=80, **steps)
    (row,) = RunFolder(tmp_path / "run").rows()
    assert 0 < row["target_entropy"] < math.log(10)
    names = {each.name for each in (tmp_path / "run").glob("*.safetensors")}
    assert ("best-ema.safetensors" in names) == (method == "ltd-wa")


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"method": "at"}, "belong to --labels soft"),
        ({"temperature": 0.0}, "temperature"),
        ({"student_temperature": -1.0}, "student-temperature"),
        ({"teacher": "x.safetensors"}, "not both"),
    ],
)
def test_wrong_usage(files, more, what):
    with pytest.raises(UsageError, match=what):
        settings_of(soft_labels=files(), **more)


def test_soft_source_info_names_what_it_read(files, teacher):
    assert soft_source.info(str(files()), None)["kind"] == "labels"
    assert soft_source.info(None, str(teacher))["kind"] == "checkpoint"
