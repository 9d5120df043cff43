"""`advkit train`: adversarial training in a run folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advkit import registry
from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli.common import machine, options, stage
from advkit.cli.common.options import Command, Given
from advkit.config import methods, resolve, settings
from advkit.config.settings import Settings
from advkit.errors import InputError, MismatchError, UsageError
from advkit.options import Option
from advkit.parallel import ranks
from advkit.runtime.reporting import Reporter

if TYPE_CHECKING:
    from advkit.training.run_folder import RunFolder

EMIT = ("best", "final", "all")
OWN = (
    Option("preset", "str", None, "numbers of the paper or of its code", settings.METHOD,
           methods.PRESETS),
    Option("config", "str", None, "read options from a TOML file; flags win", settings.RUN),
    Option("print_config", "bool", None, "print the resolved configuration and stop", "Actions"),
    Option("plan", "str", None, "print what each of NODESxRANKS would do, and stop", settings.RUN),
    Option("resume", "bool", None, "go on with the run in its folder, or start it", "Actions"),
    Option("resume_elastic", "bool", None, "--resume with another number of processes", "Actions"),
    Option("name", "str", None, "added to the run folder's name", settings.RUN),
    Option("emit", "str", None, "which checkpoints get a record (best)", settings.RUN, EMIT),
)  # fmt: skip


def run(given: Given, name: str = "train") -> Iterator[Record | str]:
    """Resolve, train, and yield the records of the checkpoints asked for."""
    emit, dry = given["emit"] or "best", given["print_config"] or given["plan"]
    if emit not in EMIT:
        raise UsageError(f"--emit {emit}: one of {', '.join(EMIT)}")
    if given.get("resume_elastic"):
        given = {**given, "resume": True}
    given_layers = layers(given)
    if resolve.labels_of(*(layer for layer, _ in given_layers)) == "soft" and not dry:
        given_layers = bound(given, given_layers)
    if not dry:
        given_layers = bound_extra(given_layers)
    resolved = resolve.resolve(*given_layers, preset=given["preset"])
    resolve.refuse_idle(given, resolved.settings)
    if given["print_config"]:
        yield resolved.toml()
        return
    if given["plan"]:
        yield from _planned(resolved.settings, given)
        return
    yield from trained(name, resolved, given)


def trained(name: str, resolved: resolve.Resolved, given: Given) -> Iterator[Record]:
    """Train one resolved configuration and yield its records."""
    from advkit.parallel import world as distributed
    from advkit.training.run import train
    from advkit.training.run_folder import RunFolder

    emit = given.get("emit") or "best"
    chosen, device = resolved.settings, machine.device(given["device"])
    folder = RunFolder(_place(given, chosen))
    world = distributed.start(device)
    reporter = machine.speaker(name, given) if world.leads else Reporter()
    try:
        fresh = train(
            resolved,
            folder,
            device=device,
            threads=machine.threads(given, chosen.arch),
            data_root=Path(given["data_root"]) if given["data_root"] else None,
            resume=bool(given["resume"]),
            overwrite=bool(given["overwrite"]),
            elastic=bool(given.get("resume_elastic")),
            reporter=reporter,
            world=world,
        )
    finally:
        distributed.stop()
    if not world.leads:
        return
    if not fresh:
        reporter.note(f"{folder.path}: already done")
    found = list(_records(folder, chosen, emit))
    if not found:
        raise InputError(f"{folder.path}: the run is done, but its {emit} checkpoint is gone")
    gap = found[0].get("overfitting_gap")
    if fresh and gap is not None:
        reporter.note(
            f"robust overfitting: best {found[0]['best_robust_accuracy']:.3f}, "
            f"final {found[0]['final_robust_accuracy']:.3f}, gap {gap:.3f} (validation, PGD-10)"
        )
    yield from found


def _planned(chosen: Settings, given: Given) -> Iterator[str]:
    import json

    from advkit.training.plan import parse_ranks, plan

    for row in plan(chosen, *parse_ranks(given["plan"]), given["data_root"]):
        yield json.dumps(row) + "\n"


def layers(given: Given) -> list[resolve.Layer]:
    """Return what was given, the strongest last: configuration file, then flags."""
    flags = stage.chosen(given, [option.name for option in settings.options()])
    if given["config"]:
        path = Path(given["config"])
        return [(resolve.read(path), f"from {path.name}"), (flags, resolve.FLAG)]
    beside = Path(given["out"]) / "config.toml" if given["out"] else None
    if given["resume"] and beside is not None and beside.exists():
        # A run that goes on needs no option repeated; one that differs is refused by its folder.
        return [(resolve.read(beside), "the run's own"), (flags, resolve.FLAG)]
    soft = resolve.labels_of(flags) == "soft"  # the labels know their data set
    if given["resume"] and beside is not None and not given["data"] and not soft:
        raise UsageError(f"{given['out']}: no run to go on with; give --data to start one")
    return [(flags, resolve.FLAG)]


def bound(given: Given, known: list[resolve.Layer]) -> list[resolve.Layer]:
    """Find the soft labels, in the options or on stdin, and bind them by their digest.

    What they know, data set and architecture, becomes the weakest layer.

    Raises:
        MismatchError: they are not those that the configuration names.
    """
    from advkit.softlabels import source as soft_source

    named = {key: value for layer, _ in known for key, value in layer.items() if value is not None}
    source: Record = {}
    if not (named.get("soft_labels") or named.get("teacher")):
        if ranks.world() > 1:
            raise UsageError("several processes share one stdin: give --soft-labels or --teacher")
        noun = "labels or teacher (nor --soft-labels or --teacher)"
        texts = list(stage.sources(given, noun))
        if len(texts) > 1:
            raise UsageError(f"a run takes one labels file or teacher; {len(texts)} came in")
        source = stage.record_of(texts[0], ("labels", "checkpoint"))
        teacher = source.get("kind") == "checkpoint" or source["path"].endswith(".safetensors")
        named["teacher" if teacher else "soft_labels"] = source["path"]
    pair = named.get("soft_labels"), named.get("teacher")
    info = soft_source.info(*pair)
    if named.get("labels_digest") not in (None, info["digest"]):
        raise MismatchError(
            f"{pair[0] or pair[1]}: its digest is {info['digest'][:19]}, the configuration names "
            f"{named['labels_digest'][:19]}: other labels than the run began with"
        )
    inherited = {
        "data": stage.location({}, source, Path(str(pair[0] or pair[1])), info),
        "arch": info["arch"],
        # Teacher and student share the validation split.
        **{key: _split_of(info).get(key) for key in ("split_seed", "val_size", "limit")},
    }
    if registry.split_path(named.get("data", inherited["data"]))[0] == info["data"]["name"]:
        inherited["image_size"] = info["config"].get("image_size")
    found = {"soft_labels": pair[0], "teacher": pair[1], "labels_digest": info["digest"]}
    return [(inherited, "the soft labels'"), *known, (found, "bound at the start of the run")]


def bound_extra(known: list[resolve.Layer]) -> list[resolve.Layer]:
    """Bind extra data by its digest, so that a run never goes on with another file.

    Raises:
        InputError: the file cannot be read.
        MismatchError: it is not the one that the configuration names.
    """
    named = {key: value for layer, _ in known for key, value in layer.items() if value is not None}
    if "extra_data" not in named:
        return known
    from advkit.images import extra

    digest = extra.digest(Path(named["extra_data"]))
    if named.get("extra_digest") not in (None, digest):
        raise MismatchError(
            f"{named['extra_data']}: its digest is {digest[:19]}, the configuration names "
            f"{named['extra_digest'][:19]}: other extra data than the run began with"
        )
    return [*known, ({"extra_digest": digest}, "bound at the start of the run")]


def _split_of(info: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (
        info["config"] if info["kind"] == "checkpoint" else info.get("split", {})
    )
    return found


def _place(given: Given, chosen: Settings) -> Path:
    if given["out"]:
        return Path(given["out"])
    suffix = f"-{given['name']}" if given["name"] else ""
    return Path("runs") / f"{chosen.run_name}{suffix}"


def _records(folder: RunFolder, chosen: Settings, emit: str) -> Iterator[Record]:
    from advkit.artifacts import checkpoint

    suffix = "-ema" if chosen.wa else ""
    roles = {
        "best": [f"best{suffix}"],
        "final": [f"final{suffix}"],
        "all": ["best", "best-ema", "final", "final-ema"],
    }[emit]
    rows = folder.rows()
    seconds = round(sum(row["seconds"] for row in rows), 3)
    for role in roles:
        path = folder.checkpoint(role)
        if path.exists():
            info = checkpoint.read_info(path)
            figures = {**info["metrics"], **_gap(rows, role), "seconds": seconds}
            yield records.make(
                "checkpoint",
                path,
                info["digest"],
                run=folder.path.resolve().name,
                data=chosen.data,
                arch=chosen.arch,
                method=chosen.method,
                role=role,
                seed=chosen.seed,
                **figures,
            )


def _gap(rows: list[dict[str, Any]], role: str) -> dict[str, float]:
    """Return best, final and their difference on the validation split."""
    key = "val_robust_accuracy" + ("-ema" if role.endswith("-ema") else "")
    values = [row[key] for row in rows if key in row]
    if not values:
        return {}
    best, final = max(values), values[-1]
    alarm = {"masking_alarm": True} if any("masking_alarm" in row for row in rows) else {}
    return {
        "best_robust_accuracy": best,
        "final_robust_accuracy": final,
        "overfitting_gap": best - final,
        **alarm,
    }


COMMAND = Command(
    "train",
    "Train a classifier: objective × labels × weight space, by name or one by one.",
    (
        *settings.options(),
        *OWN,
        options.DATA_ROOT,
        *options.MACHINE,
        options.OUT,
        options.OVERWRITE,
    ),
    run,
    listing=("objectives", "labels", "models", "data"),
    example="advkit train --data digits --method adr",
)
