"""The stage that imports a net: a foreign state dict becomes a checkpoint like any other."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from advkit import data, models, registry
from advkit.artifacts import checkpoint, files, identity, locks, provenance
from advkit.artifacts import record as records
from advkit.artifacts.descriptions import TRAINED, Checkpoint
from advkit.artifacts.record import Record
from advkit.config.location import UNKNOWN
from advkit.config.machine import computing
from advkit.doors import names, reading
from advkit.doors.names import Fitted
from advkit.doors.options import ImportOptions, numbers, shape
from advkit.doors.options import names as class_names
from advkit.doors.reading import Foreign
from advkit.doors.trying import Setting, Trial
from advkit.errors import MismatchError, UsageError, few
from advkit.images.image_set import ImageSet
from advkit.registry import sources
from advkit.runtime.reporting import Reporter

ROLE = "imported"
Statistics = tuple[list[float], list[float]]


@dataclass(frozen=True)
class Imported:
    """A net in place as a checkpoint, and its accuracy where it could be measured."""

    path: Path
    digest: str
    record: Record


def bring_in(path: Path, options: ImportOptions, reporter: Reporter) -> Imported:
    """Import a file of weights or a Hugging Face folder, or find that done.

    Raises:
        InputError: no weights, corrupt ones, or a pickle that is more than data.
        MismatchError: not the weights of the architecture, or something else lies in the place.
        NumericalError: a weight or a logit is not finite.
        UsageError: options that do not go together, or that are missing.
    """
    started = time.monotonic()
    options = replace(options, arch=registry.arch_named(options.arch))
    registry.split_numbers(options.arch)  # a wrong name is told before a long read
    models.require(options.arch)
    place = Path(options.out) if options.out else _place(path)
    files.require_apart([place], [path])
    foreign = reading.read(path, options.key)
    options = _completed(options, foreign, reporter)
    setting = _setting(options, foreign, reporter)
    chosen, net = _fitted(foreign, options, setting)
    statistics, assumed = _statistics(foreign, chosen, options, setting, reporter)
    for remark in chosen.remarks:
        reporter.note(f"{path}: {remark}")
    description = _described(foreign, options, setting, net, statistics)
    tensors = {**_buffers(statistics), **chosen.tensors}
    with computing(options.torch_device(), options.threads_for(options.arch)):
        model = models.restore(tensors, cast(Checkpoint, description), path)
        models.require_finite(model.state_dict(), path)
        trial = Trial(model.to(options.torch_device()).eval(), setting, path)
        trial.forward()
        figures = trial.figures(options.limit, reporter, assumed)
    digest = _written(place, tensors, description, options.overwrite, reporter)
    record = records.make(
        "checkpoint",
        place,
        digest,
        run=place.resolve().parent.name,
        **({"data": setting.data} if setting.data else {}),
        arch=options.arch,
        method=options.method,
        role=ROLE,
        imported=True,
        **figures,
        seconds=round(time.monotonic() - started, 3),
    )
    return Imported(place, digest, record)


def _place(path: Path) -> Path:
    """Return where the checkpoint goes: beside the file or folder, never onto it."""
    path = files.named(path)
    # Training scripts call theirs NAME.pth.tar.
    stem = path.name if path.is_dir() else Path(path.name.removesuffix(".tar")).stem
    return path.with_name(f"{stem}.imported.safetensors")


def _completed(options: ImportOptions, foreign: Foreign, reporter: Reporter) -> ImportOptions:
    """Return the options with a timm net's arguments, where a configuration beside it has them."""
    if options.arch != f"timm:{foreign.architecture}":
        return options
    said = models.arguments(foreign.arguments)
    if not said:
        return options
    arch = ",".join([options.arch, *(f"{name}={value}" for name, value in said.items())])
    reporter.note(f"{foreign.path}: its configuration makes it --arch {arch}")
    return replace(options, arch=arch)


def _setting(options: ImportOptions, foreign: Foreign, reporter: Reporter) -> Setting:
    if options.data:
        part = registry.part("data", registry.split_path(options.data)[0])
        if "corruption" in {option.name for option in part.options}:
            raise UsageError(
                f"--data {options.data}: name the set itself: its corruptions are for attack --data"
            )
        images = data.load(
            options.data,
            "test",
            root=options.root,
            reporter=reporter,
            image_size=options.image_size,
            test_fraction=options.test_fraction,
            skip_broken=options.skip_broken or None,
        )
        _require_same_classes(foreign, images, reporter)
        return Setting(options.data, images.classes, images.shape, images)
    classes = class_names(options.classes) if options.classes else list(foreign.classes)
    known = models.published(options.arch)
    usual = list(foreign.input_shape) or (known[0] if known else [])
    sides = shape(options.input_shape) if options.input_shape else usual
    if not classes or not sides:
        raise UsageError("give --data NAME[:PATH], or --classes and --input-shape CxHxW")
    return Setting("", classes, sides, None)


def _require_same_classes(foreign: Foreign, images: ImageSet, reporter: Reporter) -> None:
    """Hold the classes and sides that a configuration names to the data's.

    Raises:
        MismatchError: the same classes in another order: each logit would be taken for another's.
    """
    theirs, ours = list(foreign.classes), list(images.classes)
    if theirs != ours and sorted(theirs) == sorted(ours):
        raise MismatchError(
            f"{foreign.path}: its classes are in another order ({few(theirs)}) than the data's "
            f"({few(ours)})"
        )
    named = not all(name.isdecimal() for name in theirs)  # mere numbers are a count
    if theirs and theirs != ours and (named or len(theirs) != len(ours)):
        reporter.warn(
            f"{foreign.path}: its classes ({few(theirs)}) are not called as the data's "
            f"({few(ours)}): they are taken for them in this order"
        )
    if foreign.input_shape and list(foreign.input_shape) != list(images.shape):
        sides = ["×".join(map(str, shape)) for shape in (foreign.input_shape, images.shape)]
        reporter.note(f"{foreign.path}: made for images of {sides[0]}, used for {sides[1]}")


def _fitted(
    foreign: Foreign, options: ImportOptions, setting: Setting
) -> tuple[Fitted, Mapping[str, object]]:
    """Return the tensors under our names, and the options of the architecture they are of.

    A `form` that nobody named is the one whose names and shapes the file has.

    Raises:
        MismatchError: they are not those of the architecture.
    """
    name, own = registry.split_numbers(options.arch)
    known = {option.name: option for option in registry.part("models", name).options}
    given = {key: value for key, value in options.parts.items() if value is not None}
    defaults = {key: option.default for key, option in known.items() if key not in own}
    tries = [{**defaults, **given}]
    if "form" in known and "form" not in given:
        tries += [{**tries[0], "form": form} for form in known["form"].choices
                  if form != known["form"].default]  # fmt: skip
    results = []
    for net in tries:
        expected = _expected(options.arch, net, setting)
        try:
            result = names.fitted(foreign.tensors, expected, setting.input_shape[0])
        except MismatchError as error:
            raise MismatchError(f"{foreign.path}: {error}") from None
        if not result.problem:
            if net is not tries[0]:
                result.remarks.append(f"its names are those of --form {net['form']}")
            return result, net
        results.append(result)
    raise MismatchError(
        f"{foreign.path}: its tensors are not those of {options.arch} with "
        f"{len(setting.classes)} classes: {results[0].problem}{_hint(options.arch, foreign)}"
    )


def _hint(arch: str, foreign: Foreign) -> str:
    """Return what to try where a ResNet of ImageNet form was taken for one of CIFAR form."""
    large = any(name.endswith("conv1.weight") and tuple(tensor.shape[2:]) == (7, 7)
                for name, tensor in foreign.tensors.items())  # fmt: skip
    return "; torchvision's own is --arch torchvision:resnet18" * (arch == "resnet18" and large)


def _expected(arch: str, net: Mapping[str, object], setting: Setting) -> Mapping[str, Tensor]:
    channels = setting.input_shape[0]
    neutral = ([0.0] * channels, [1.0] * channels)

    def build() -> nn.Module:
        return models.build(
            arch,
            len(setting.classes),
            channels=channels,
            statistics=neutral,
            seed=0,
            size=setting.input_shape[1],
            **net,
        )

    try:
        with torch.device("meta"):  # names and shapes cost no memory
            return build().state_dict()
    except (RuntimeError, NotImplementedError):
        # Some nets of other packages compute with their weights while they are built, which meta
        # tensors do not have; what fails for another reason fails here again.
        return build().state_dict()


def _statistics(
    foreign: Foreign,
    chosen: Fitted,
    options: ImportOptions,
    setting: Setting,
    reporter: Reporter,
) -> tuple[Statistics, bool]:
    """Return mean and deviation, and whether they are a guess.

    Raises:
        MismatchError: the file normalises in another way than the options say.
    """
    channels = setting.input_shape[0]
    neutral = ([0.0] * channels, [1.0] * channels)
    wanted: Statistics | None = neutral if options.normalise is False else None
    if options.mean is not None and options.std is not None:
        wanted = (
            numbers("--mean", options.mean, channels),
            numbers("--std", options.std, channels),
        )
    inside = chosen.statistics or foreign.statistics
    if inside is not None and {len(values) for values in inside} != {channels}:
        raise MismatchError(f"{foreign.path}: normalises {len(inside[0])} channels, not {channels}")
    if inside is not None and wanted is not None and not _close(inside, wanted):
        raise MismatchError(
            f"{foreign.path}: holds a normalisation of its own (mean {_shown(inside[0])}, std "
            f"{_shown(inside[1])}): leave out the options for one"
        )
    known = models.published(options.arch)
    if inside is None and wanted is None and known and not options.normalise:
        reporter.note(
            f"{foreign.path}: pixels are normalised as timm's configuration of {options.arch} says "
            f"(mean {_shown(known[1])}, std {_shown(known[2])}); --mean and --std or "
            "--no-normalise say otherwise"
        )
        return (known[1], known[2]), True
    if inside is not None or wanted is not None:
        return inside or wanted or neutral, False
    if setting.images is None:
        reporter.warn(
            f"{foreign.path}: neither the file nor an option says how pixels are normalised: "
            "taken as they are (--mean and --std, or --no-normalise)"
        )
        return neutral, False
    mean, std = setting.images.normalisation
    reporter.note(
        f"{foreign.path}: pixels are normalised by the statistics of {options.data} (mean "
        f"{_shown(mean)}, std {_shown(std)}); --mean and --std or --no-normalise say otherwise"
    )
    return (list(mean), list(std)), options.normalise is None


def _close(first_pair: Statistics, second: Statistics) -> bool:
    return all(
        math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-7)
        for one, other in zip(first_pair, second, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def _shown(values: Sequence[float]) -> str:
    return ",".join(f"{value:.4g}" for value in values)


def _buffers(statistics: Statistics) -> dict[str, Tensor]:
    pairs = zip(("mean", "std"), statistics, strict=True)
    return {name: torch.tensor(values).float().view(-1, 1, 1) for name, values in pairs}


def _described(
    foreign: Foreign,
    options: ImportOptions,
    setting: Setting,
    net: Mapping[str, object],
    statistics: Statistics,
) -> dict[str, object]:
    name = registry.split_path(setting.data)[0] or UNKNOWN
    family = [part for part in sources.family(options.arch) if sources.foreign(*part)]
    read = {
        "image_size": options.image_size,
        "test_fraction": options.test_fraction,
        "skip_broken": options.skip_broken or None,
    }
    known = {key: value for key, value in read.items() if value is not None}
    return provenance.describe(
        "checkpoint",
        config={"data": name, "arch": options.arch, **dict.fromkeys(TRAINED), **known},
        seed=None,
        parents=[],
        environment={},
        method=options.method,
        arch=options.arch,
        role=ROLE,
        data={"name": name, "classes": list(setting.classes)},
        model={
            "arch": options.arch,
            "options": dict(net),
            "input_shape": list(setting.input_shape),
            "mean": list(statistics[0]),
            "std": list(statistics[1]),
        },
        imported=True,
        source={"digest": foreign.digest, "format": foreign.format,
                **({"key": foreign.place} if foreign.place else {})},
        **({"parts": sources.digests(*family)} if family else {}),
    )  # fmt: skip


def _written(
    place: Path,
    tensors: Mapping[str, Tensor],
    description: Mapping[str, object],
    overwrite: bool,
    reporter: Reporter,
) -> str:
    """Put the checkpoint in place, or find it there; return its digest.

    Raises:
        MismatchError: something else lies there.
        UsageError: its name is none of a checkpoint.
    """
    if place.suffix != ".safetensors":
        raise UsageError(f"-o {place}: a checkpoint's name ends in .safetensors")
    files.folder(place.parent)
    with locks.lock(place):
        if place.exists() and not overwrite:
            there = checkpoint.read_info(place)
            now = {key: description.get(key) for key in _SAME}
            identity.require_same({key: there.get(key) for key in _SAME}, now, place)
            reporter.note(f"{place}: already done")
            return there["digest"]
        return checkpoint.write(place, tensors, description)


_SAME = ("arch", "config", "data", "imported", "method", "model", "parts", "source")
"""What makes two imports the same work."""
