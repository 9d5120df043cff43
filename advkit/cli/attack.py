"""`advkit attack`: clean and adversarial logits of checkpoints, with verdicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advkit import registry
from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli.common import logits_files, machine, options, shards, stage
from advkit.cli.common.options import Command, Given
from advkit.errors import UsageError, Verdict
from advkit.formulas.threat import parse_eps
from advkit.options import Option

if TYPE_CHECKING:
    import torch

    from advkit.artifacts.hdf5 import Logits
    from advkit.evaluation.passes import Surrogate
    from advkit.evaluation.settings import AttackSettings

PARTS = registry.shared_options("attacks")
VERSIONS = ("standard", "plus", "rand")
OWN = (
    Option("autoattack", "bool", None, "AutoAttack: APGD-CE, APGD-T, FAB-T, Square", "Actions"),
    Option("version", "str", None, "AutoAttack's version (standard)", "Attack", VERSIONS),
    Option("fast", "bool", None, "APGD-CE and APGD-T: an estimate, not AutoAttack", "Actions"),
    Option("attack", "str", None, "one attack by name", "Attack"),
    Option("surrogate", "str", None, "checkpoint that transfer attacks", "Attack"),
    options.NORM,
    options.EPS,
    Option("data", "str", None, "data set; the checkpoint's", "Data"),
    Option("image_size", "int", None, "of folder:DIR; the checkpoint's input size", "Data"),
    Option("image_list", "str", None, "of imagenet: file that names the test images", "Data"),
    Option("limit", "int", None, "first N test examples, class balanced", "Data"),
    Option("seed", "int", None, "seed of starts and searches (0)", "Attack"),
    Option("batch_size", "int", None, "examples in a batch (250)", "Machine"),
    Option("save_images", "bool", None, "keep the adversarial images too", "Actions"),
    Option("fail_under", "float", None, "exit 8 if robust accuracy is below this", "Attack"),
)


def run(given: Given) -> Iterator[Record]:
    """Evaluate every checkpoint that comes in, or join the shards of one evaluation."""
    shards.check(given)
    if given["merge"]:
        return _joined(given)
    _check(given)
    return stage.each(
        given,
        "attack",
        ("checkpoint",),
        lambda source: _evaluated(given, source),
        lambda record: _judge(given, record),
    )


def _joined(given: Given) -> Iterator[Record]:
    import time

    from advkit.artifacts import files

    _check_fail_under(given)
    found = shards.inputs(given, "logits")
    out = shards.merged_place(given, found)
    stage.require_file_name(out)
    started = time.monotonic()
    with files.lock(out):
        logits = logits_files.merged(given, [Path(each["path"]) for each in found], out)
    if logits.broken_by is None and given["fail_under"] is not None:
        raise UsageError("--fail-under has no meaning for --attack none")
    checkpoint = shards.parent_file(found, logits.info)
    record = logits_files.record(logits, out, checkpoint, round(time.monotonic() - started, 3))
    yield record
    _judge(given, record)


def _check(given: Given) -> None:
    if sum(bool(given[name]) for name in ("autoattack", "fast", "attack")) != 1:
        raise UsageError("choose one: --autoattack, --fast, or --attack NAME")
    if not given["autoattack"] and given["version"]:
        raise UsageError("--version belongs to --autoattack")
    _check_surrogate(given)
    stage.require_one(given)
    if given["limit"] is not None and given["limit"] < 1:
        raise UsageError("--limit must be at least 1")
    _check_fail_under(given)
    if given["eps"] is not None:
        parse_eps(given["eps"], given["norm"] or "linf")
    for name in ("eps", "norm", "save_images", "fail_under"):
        if given["attack"] == "none" and given[name] is not None:
            raise UsageError(f"--{name.replace('_', '-')} has no meaning for --attack none")
    if given["batch_size"] is not None and given["batch_size"] < 1:
        raise UsageError("--batch-size must be at least 1")


def _check_fail_under(given: Given) -> None:
    if given["fail_under"] is not None and not 0 <= given["fail_under"] <= 1:
        raise UsageError(f"--fail-under {given['fail_under']:g} is not an accuracy in [0, 1]")


def _check_surrogate(given: Given) -> None:
    needs: Sequence[str] = ()
    if given["attack"]:
        needs = registry.part("attacks", given["attack"]).constants.get("NEEDS", ())
    if given["surrogate"] and "surrogate" not in needs:
        raise UsageError("--surrogate belongs to --attack transfer")
    if "surrogate" in needs and not given["surrogate"]:
        raise UsageError(f"--attack {given['attack']} needs --surrogate CHECKPOINT")


def _evaluated(given: Given, source: Record) -> Record | None:
    import time

    started = time.monotonic()
    path = Path(records.wanted(source, ("checkpoint",)))
    settings, info = _settings(given, source, path)
    place = stage.output(given) or _place(path, settings, info, given["image_list"])
    stage.require_file_name(place)
    if not shards.launched(given):
        out = settings.shard.beside(place) if settings.shard else place
        result, seconds = _logits(given, path, settings, out)
        return logits_files.record(result, out, path, seconds)
    shared = shards.together(
        given, "attack", place, "logits",
        find=lambda: _logits(given, path, dataclasses.replace(settings, shard=None), place)[0],
        work=lambda out: _logits(given, path, settings, out, place),
        merge=lambda paths: logits_files.merged(given, paths, place),
    )  # fmt: skip
    if shared is None:
        return None
    result, done = shared
    return logits_files.record(
        result, place, path, 0.0 if done else round(time.monotonic() - started, 3)
    )


def _judge(given: Given, record: Record) -> None:
    robust, least = record["robust_accuracy"], given["fail_under"]
    if least is not None and robust < least:
        raise Verdict(f"{record['path']}: robust accuracy {robust:.4f} is under {least:g}")


def _settings(given: Given, source: Record, path: Path) -> tuple[AttackSettings, Mapping[str, Any]]:
    from advkit.artifacts import checkpoint
    from advkit.evaluation import settings as attack_settings

    info = checkpoint.read_info(path)
    trained = info["config"]
    name = _name(given)
    extra = stage.chosen(given, [option.name for option in PARTS])
    if given["attack"]:
        extra = attack_settings.part_options(name, extra)
    else:
        for key in (key for key, value in extra.items() if value is not None):
            raise UsageError(f"--{key.replace('_', '-')} has no meaning for --{name}")
    settings = attack_settings.AttackSettings(
        attack=name,
        norm=given["norm"] or trained["norm"],
        eps=given["eps"] or trained["eps"],
        data=stage.location(given, source, path, info),
        seed=given["seed"] or 0,
        batch_size=given["batch_size"] or 250,
        version=given["version"] or "standard",
        limit=given["limit"],
        save_images=bool(given["save_images"]),
        options=extra,
        surrogate=checkpoint.read_info(given["surrogate"])["digest"]
        if given["surrogate"]
        else None,
        shard=shards.chosen(given),
    )
    if settings.norm != trained["norm"] and given["eps"] is None:
        raise UsageError(
            f"--norm {settings.norm}: the checkpoint's eps {trained['eps']} is one of "
            f"{trained['norm']}; give --eps too"
        )
    settings.threat  # noqa: B018  (refuses an impossible ε before any work)
    return settings, info


def _name(given: Given) -> str:
    from advkit.evaluation import settings as attack_settings

    if given["attack"]:
        return str(given["attack"])
    return attack_settings.FAST if given["fast"] else attack_settings.AUTOATTACK


def _place(
    path: Path, settings: AttackSettings, info: Mapping[str, Any], image_list: str | None
) -> Path:
    name, where = registry.split_path(settings.data)
    other = "" if name == info["data"]["name"] else f"-on-{name}"
    if other and where:
        other += f"-{Path(where).resolve().name}"
    if image_list:
        other += f"-{Path(image_list).stem}"
    return path.with_name(f"{path.stem}.{settings.file_stem}{other}.h5")


def _logits(
    given: Given, path: Path, settings: AttackSettings, out: Path, whole: Path | None = None
) -> tuple[Logits, float]:
    """Return the logits in place at `out`, made now or found there, and the seconds it took.

    Where the shard is gone because it is merged already, they are those of the `whole`.
    """
    import time

    from advkit import models
    from advkit.artifacts import files, hdf5
    from advkit.evaluation import partial
    from advkit.evaluation.run import Evaluation
    from advkit.models import require_finite

    reporter = machine.speaker("attack", given)
    stage.require_file_name(out)
    unfinished = out.with_name(f"{out.name}.part")
    with files.lock(out):
        device = machine.device(given["device"])
        model, info = models.load(path, device)
        images = stage.images(given, settings.data, info, "test")
        threads = machine.threads(given, info["arch"])
        if out.exists() and not given["overwrite"]:
            found = logits_files.found(out, settings, info, images.fingerprint)
            partial.remove(unfinished)  # a kill may have come between the two
            reporter.note(f"{out}: already done")
            return found, 0.0
        if whole is not None and whole.exists() and not given["overwrite"]:
            return hdf5.read_logits(whole), 0.0
        require_finite(model.state_dict(), path)
        surrogate = _surrogate(given, device)
        started = time.monotonic()
        machine.use_threads(threads)
        evaluation = Evaluation(
            model, info, images, settings,
            environment={"device": device.type, "threads": threads}, reporter=reporter,
            surrogate=surrogate,
        )  # fmt: skip
        result = evaluation.run(unfinished)
        hdf5.write_logits(out, result)
        partial.remove(unfinished)
        return hdf5.read_logits(out), round(time.monotonic() - started, 3)


def _surrogate(given: Given, device: torch.device) -> Surrogate | None:
    from advkit import models
    from advkit.evaluation.passes import Surrogate
    from advkit.models import require_finite

    path = given["surrogate"]
    if not path:
        return None
    model, info = models.load(path, device)
    require_finite(model.state_dict(), path)
    return Surrogate(model, info)


COMMAND = Command(
    "attack",
    "Attack checkpoints and write clean and adversarial logits with a verdict per example.",
    (
        *OWN,
        options.MERGE,
        *PARTS,
        options.DATA_ROOT,
        *options.MACHINE,
        options.SHARD,
        options.OUT,
        options.OVERWRITE,
    ),
    run,
    argument="[CHECKPOINT]...",
    listing=("attacks",),
    example="advkit attack runs/digits-small-cnn-adr-s0/best.safetensors --autoattack",
)
