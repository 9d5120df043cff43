"""What the ranks of a test run: `_ranks.py TASK,... FOLDER`, under torchrun or alone."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from advkit import data
from advkit.config import resolve
from advkit.images.batches import Batches
from advkit.labels import soft
from advkit.parallel import world as distributed
from advkit.runtime.reporting import Reporter
from advkit.training.remembering import packed
from advkit.training.trainer import Trainer
from advkit.weights.swa import recompute
from tests.training._teaching import widen, write_teacher

CPU = torch.device("cpu")
STEPS = 20
RUNS = {
    "at": {"method": "at"},
    "trades": {"method": "trades"},
    "mart": {"method": "mart"},
    "adr": {"method": "adr-wa"},
    "adr-noise": {"method": "adr", "teacher_noise": "logits:1"},
    "device": {"method": "adr", "teacher_noise": "weights:0.1", "noise": "device"},
    "ltd": {"method": "ltd"},
    "awp": {"method": "trades-awp"},
    "awp-adr": {"method": "trades-adr-awp", "awp_form": "adr"},
    "adr-cutmix": {"method": "adr", "augment": "cutmix"},
    "l1": {"method": "at", "norm": "l1", "eps": "2"},
    "score": {"method": "score", "attack_bn": "eval"},
    "n-fgsm": {"method": "at", "train_attack": "n-fgsm", "attack_steps": 1, "attack_bn": "eval"},
    "clipped": {"method": "at", "clip_grad_norm": 0.5, "warmup_steps": 5},
    "iad": {"method": "iad", "introspect_from": 1},
    "adaad": {"method": "adaad", "alpha": 0.5},
    "sat": {"method": "sat", "memory_from": 1},
    "sat-wa": {"method": "sat-awp-wa", "memory_from": 1},
    "te": {"method": "te", "ramp": "1:2"},
    "ikl": {"method": "ikl"},
    "gkl": {"method": "ikl", "divergence": "gkl", "gkl_power": 0.4},
    "hat": {"method": "hat"},
    "saad": {"method": "saad"},
    "swa": {"method": "at-wa", "swa_start": 2, "batch_size": 256},
}
"""The memories are compared too. `swa`: four steps an epoch, so that four epochs are averaged."""


class Teacher:
    """Logits that are a fixed function of the example."""

    views = None

    def __call__(self, batch):
        draw = torch.Generator().manual_seed(3)
        return torch.randn(2000, 10, generator=draw, dtype=torch.float64)[batch.index]


def trainer(world, double=True, **flags):
    """A small net in float64, BN in eval mode throughout unless `double` is off."""
    given = {"data": "digits", "batch_size": 64, "width": 4, "attack_steps": 2, "lr": 0.05, **flags}
    if given["method"] == "ltd":
        given |= {"method": "trades", "inner": "ce"}  # its labels come from Teacher below
    settings = resolve.resolve((given, "test")).settings
    if settings.teachers:
        given |= {role.replace("-", "_"): teacher_file() for role in settings.teachers}
        settings = resolve.resolve((given, "test")).settings
    made = Trainer(settings, data.load("digits", "train"), device=CPU, threads=1,
                   reporter=Reporter(), world=world)  # fmt: skip
    learner = made.learner
    if flags["method"] == "ltd":
        learner.soft = Teacher()
        targets = functools.partial(soft.targets, temperature=2.0)
        learner.parts = dataclasses.replace(learner.parts, targets=targets)
    if double:
        for net in (learner.model, learner.average):
            if net is not None:
                net.double()
        widen(made)
        learner.model.train = lambda mode=True: learner.model
        for module in learner.model.modules():
            module.training = False
        learner.shared = world.wrapped(learner.student)
    return made


@functools.cache
def teacher_file():
    """The checkpoint of a net whose weights are drawn."""
    folder = Path(tempfile.mkdtemp())
    return write_teacher(data.load("digits", "train"), folder / "teacher.safetensors", 11)


def weights(made):
    found = dict(made.learner.model.state_dict()) | packed(made.learner.memory)
    if made.learner.average is not None:
        found |= {f"ema.{k}": v for k, v in made.learner.average.state_dict().items()}
    return {name: value.clone().contiguous() for name, value in found.items()}


def doubled(batch):
    mix = batch.mix
    if mix is not None:
        sides = {side: doubled(getattr(mix, side)) for side in ("first", "second")}
        mix = dataclasses.replace(mix, **sides)
    return dataclasses.replace(batch, x=batch.x.double(), mix=mix)


def equal_weights(world, folder, double):
    """Train each method for some steps and write the weights."""
    if double:
        original = Batches.at
        Batches.at = lambda *a, **k: doubled(original(*a, **k))
    for name, flags in RUNS.items():
        made = trainer(world, double=True, **flags) if double else plain(world, flags)
        for number in range(STEPS):
            epoch, step = divmod(number, len(made.batches))
            made.step(made.batches.at(made.batches.order(epoch), epoch, step), epoch, step)
        if world.leads:
            kind = "double" if double else "single"
            save_file(weights(made), folder / f"{name}.{kind}.{world.size}")
    if double:
        Batches.at = original


def plain(world, flags):
    """The same in float32, BN still in eval mode."""
    made = trainer(world, double=False, **flags)
    made.learner.model.train = lambda mode=True: made.learner.model
    for module in made.learner.model.modules():
        module.training = False
    return made


def train_mode(world, folder):
    """One step with BN in train mode against halves computed apart in one process."""
    made = trainer(world, double=False, method="at", momentum=0.0, weight_decay=0.0, lr=0.1)
    learner = made.learner
    before = copy.deepcopy(learner.model)
    whole = Batches(made.images, made.batches.positions, 64, 0, CPU)
    order = whole.order(0)
    attacked = {}
    original = learner._attacked
    learner._attacked = lambda *a: attacked.setdefault("x", original(*a))
    batch = made.batches.at(order, 0, 0)
    learner.learn(batch, 0, 0)
    save_file({"x": attacked["x"].contiguous(), "y": batch.y}, folder / f"part{world.rank}")
    distributed.dist.barrier()
    if not world.leads:
        return
    gradients, buffers = [], []
    for rank in range(world.size):
        part = load_file(folder / f"part{rank}")
        net = copy.deepcopy(before).train()
        nn.functional.cross_entropy(net(part["x"]), part["y"]).backward()
        gradients.append({n: p.grad for n, p in net.named_parameters()})
        buffers.append({n: b for n, b in net.named_buffers() if b.is_floating_point()})
    worst = 0.0
    now = dict(learner.model.named_parameters())
    for name, was in before.named_parameters():
        mean = sum(each[name] for each in gradients) / world.size
        worst = max(worst, float((now[name] - (was - 0.1 * mean)).abs().max()))
    for name, value in learner.model.named_buffers():
        if value.is_floating_point():
            mean = sum(each[name] for each in buffers) / world.size
            worst = max(worst, float((value - mean).abs().max()))
    (folder / "train_mode.json").write_text(json.dumps({"worst": worst}))


def settled(world, folder):
    """BN's statistics of an even average, beside each share's own passes in one process."""
    made = trainer(world, double=False, method="at-wa", swa_start=1)
    order = made.batches.order(0)
    images = [made.batches.at(order, 0, step).x for step in range(3)]
    learner = made.learner
    begun = copy.deepcopy(learner.average)
    learner.settle(images, 1)
    save_file({"x": torch.cat(images).contiguous()}, folder / f"images{world.rank}")
    distributed.dist.barrier()
    if not world.leads:
        return
    shares = []
    for rank in range(world.size):
        net = copy.deepcopy(begun)
        own = load_file(folder / f"images{rank}")["x"].chunk(3)
        recompute(net, net, own, lambda _: None)
        shares.append(dict(net.named_buffers()))
    worst = 0.0
    for name, value in learner.average.named_buffers():
        mean = sum(share[name].double() for share in shares) / world.size
        worst = max(worst, float((value.double() - mean).abs().max()))
    moved = max(float((value - dict(begun.named_buffers())[name]).abs().max())
                for name, value in learner.average.named_buffers())  # fmt: skip
    (folder / "settled.json").write_text(json.dumps({"worst": worst, "moved": moved}))


def counted(world, folder):
    """Which collectives a step runs, and which of them inside the attack."""
    from torch.profiler import ProfilerActivity, profile

    names = {}
    for method in ("at", "trades", "trades-adr-awp"):
        made = trainer(world, double=False, method=method)
        batch = made.batches.at(made.batches.order(0), 0, 0)
        made.step(batch, 0, 0)
        inside = {}
        original = made.learner._attacked

        def attacked(*arguments, original=original, inside=inside):
            with profile(activities=[ProfilerActivity.CPU]) as seen:
                found = original(*arguments)
            inside["attack"] = collectives(seen)
            return found

        batch = made.batches.at(made.batches.order(0), 0, 1)
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            made.step(batch, 0, 1)
        made.learner._attacked = attacked
        made.step(made.batches.at(made.batches.order(0), 0, 2), 0, 2)
        names[method] = {"step": collectives(seen), **inside}
    if world.leads:
        (folder / "counted.json").write_text(json.dumps(names))


def collectives(seen):
    words = ("gloo:", "c10d::", "allreduce", "all_reduce", "broadcast")
    return sorted(
        event.name for event in seen.events() if any(word in event.name for word in words)
    )


def refused(world, folder):
    """A rank learns that rank 0 failed."""
    from advkit.errors import AdvkitError, MismatchError

    def work():
        raise MismatchError("no")

    try:
        world.led(work)
    except AdvkitError as error:
        (folder / f"refused{world.rank}").write_text(f"{type(error).__name__} {error.code}")


TASKS = {
    "double": lambda world, folder: equal_weights(world, folder, True),
    "single": lambda world, folder: equal_weights(world, folder, False),
    "train_mode": train_mode,
    "settled": settled,
    "counted": counted,
    "refused": refused,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    joined = distributed.start(CPU)
    for task in sys.argv[1].split(","):
        TASKS[task](joined, Path(sys.argv[2]))
    distributed.stop()
