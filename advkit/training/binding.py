"""From the options of a run to its configuration: layers, and inputs bound by their digests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from advkit import registry
from advkit.artifacts.descriptions import Checkpoint, Labels
from advkit.artifacts.record import Record
from advkit.config import origins, resolve, stored
from advkit.config.location import location
from advkit.errors import MismatchError, UsageError
from advkit.registry.declarations import TEACHERS
from advkit.training.options import TrainOptions
from advkit.training.run_folder import RunFolder

if TYPE_CHECKING:
    from advkit.softlabels.source import Info

Upstream = Callable[[str], Record]
"""Gives the record of a labels file or teacher where the options name neither.

It is told what is wanted and how it is made, for the message where there is none.
"""
SOFT = (
    "soft labels: give --teacher CHECKPOINT (`advkit pretrain-teacher` makes one) or "
    "--soft-labels FILE (`advkit softlabels CHECKPOINT` makes one)"
)
MADE_BY = {"teacher": "train", "natural-teacher": "pretrain-teacher"}
"""Role of an objective's teacher → the command that makes one."""


def configuration(options: TrainOptions, upstream: Upstream | None = None) -> resolve.Resolved:
    """Resolve the configuration of a run.

    Raises:
        UsageError: an option that the run has no use for, or soft labels that nobody named.
        MismatchError: inputs other than those that the configuration names.
    """
    known = layers(options)
    if not options.print_config:  # which asks for no file
        known = bound_init(known)  # first: its net is the student's, whatever the teacher's is
        if resolve.labels_of(*(layer for layer, _ in known)) == "soft":
            known = bound(known, upstream)
        known = bound_teachers(known, upstream)
        known = bound_extra(known)
    resolved = resolve.resolve(*known, preset=options.preset)
    resolve.refuse_idle(options.settings, resolved.settings)
    return resolved


def layers(options: TrainOptions) -> list[resolve.Layer]:
    """Return what was given, the strongest last: configuration file, then flags."""
    flags = options.settings
    if options.config:
        path = Path(options.config)
        return [(stored.read(path), f"from {path.name}"), (flags, origins.FLAG)]
    folder = RunFolder(Path(options.out)) if options.out else None
    if options.going_on and folder is not None and folder.config_file.exists():
        # A run that goes on needs no option repeated; one that differs is refused by its folder.
        return [(folder.own_values(), "the run's own"), (flags, origins.FLAG)]
    soft = resolve.labels_of(flags) == "soft"  # the labels know their data set
    if options.going_on and folder is not None and not flags.get("data") and not soft:
        folder.require_config()
        raise UsageError(f"{options.out}: no run to go on with; give --data to start one")
    return [(flags, origins.FLAG)]


def bound(known: list[resolve.Layer], upstream: Upstream | None = None) -> list[resolve.Layer]:
    """Find the soft labels, named or from the stage before, and bind them by their digest.

    What they know, data set and architecture, becomes the weakest layer.

    Raises:
        MismatchError: they are not those that the configuration names.
        UsageError: nobody names any.
    """
    from advkit.softlabels import source as soft_source

    named = _named(known)
    source: Record = {}
    if not (named.get("soft_labels") or named.get("teacher")):
        if upstream is None:
            raise UsageError(f"no {SOFT}")
        source = upstream(SOFT)
        # A bare path on standard input tells its kind by its name alone.
        teacher = source.get("kind") == "checkpoint" or source["path"].endswith(".safetensors")
        named["teacher" if teacher else "soft_labels"] = source["path"]
    pair = named.get("soft_labels"), named.get("teacher")
    info = soft_source.info(*pair)
    require_digest(named.get("labels_digest"), "labels", info["digest"], str(pair[0] or pair[1]))
    inherited = _inherited(named, str(pair[0] or pair[1]), info, source.get("data"))
    binding = {"soft_labels": pair[0], "teacher": pair[1], "labels_digest": info["digest"]}
    return [(inherited, "the soft labels'"), *known, (binding, "bound at the start of the run")]


def _inherited(named: Mapping[str, Any], path: str, info: Info, place: object) -> dict[str, object]:
    """Return what a student takes from its teacher or labels file, unless a layer says otherwise.

    Args:
        named: what the layers say.
        path: of the teacher or labels file.
        info: its description.
        place: where a record says that its data lie.
    """
    from advkit.softlabels.labelling import SPLIT

    # A teacher says in its configuration how it was split, a labels file beside its own.
    split = cast(
        Mapping[str, object],
        info["config"] if info["kind"] == "checkpoint" else info.get("split", {}),
    )
    # A net that was imported without its data knows no place of them.
    place = place if isinstance(place, str) else named.get("data")
    inherited = {
        "data": location(Path(path), info, place),
        "arch": info["arch"],
        # Teacher and student share the validation split.
        **{key: split.get(key) for key in SPLIT},
    }
    if registry.split_path(named.get("data", inherited["data"]))[0] == info["data"]["name"]:
        inherited["image_size"] = info["config"].get("image_size")
        inherited |= _reading(info, elsewhere="data" in named)
    return inherited


def bound_teachers(
    known: list[resolve.Layer], upstream: Upstream | None = None
) -> list[resolve.Layer]:
    """Bind the teachers that the objective asks by their digests.

    What the first knows, data set and architecture, becomes the weakest layer.

    Raises:
        InputError: a checkpoint cannot be read.
        MismatchError: one is not that which the configuration names.
        UsageError: nobody names one.
    """
    objective = resolve.objective_of(*(layer for layer, _ in known))
    roles = registry.part("objectives", objective).constants.get("NEEDS", ())
    if not roles:
        return known
    from advkit.artifacts import checkpoint

    named, binding = _named(known), dict[str, object]()
    asked = [role.replace("-", "_") for role in TEACHERS]
    for role in roles:
        option, place = role.replace("-", "_"), None
        # Who names one of them does not pipe the other in.
        piped = role == roles[0] and upstream is not None and not any(key in named for key in asked)
        if option not in named and piped and upstream is not None:
            source = upstream(_asked(role))
            named[option], place = source["path"], source.get("data")
        if option not in named:
            raise lacking(objective, role)
        info = checkpoint.read_info(named[option])
        require_digest(named.get(f"{option}_digest"), role, info["digest"], named[option])
        binding |= {option: named[option], f"{option}_digest": info["digest"]}
        if role == roles[0]:
            weakest = _inherited(named, named[option], info, place)
    return [(weakest, f"the {roles[0]}'s"), *known, (binding, "bound at the start of the run")]


def lacking(objective: str, role: str) -> UsageError:
    """Return the error of an objective without a teacher that it asks."""
    return UsageError(f"--objective {objective} asks a {_asked(role)}")


def _asked(role: str) -> str:
    """Return what a teacher is called, how it is given, and how it is made."""
    made = f"(`advkit {MADE_BY[role]}` makes one)"
    return f"{role}: give --{role} CHECKPOINT {made}"


def _reading(info: Labels | Checkpoint, *, elsewhere: bool) -> dict[str, object]:
    """Return how a folder was read that soft labels are of, or that their teacher learned from."""
    if info["kind"] != "checkpoint":
        source = info["parents"][-1]
        return {
            "test_fraction": source.get("test_fraction"),
            "skip_broken": "broken" in source or None,
        }
    config = info["config"]
    # Another folder than the teacher's may be divided otherwise.
    fraction = None if elsewhere else config.get("test_fraction")
    return {"test_fraction": fraction, "skip_broken": config.get("skip_broken") or None}


def bound_extra(known: list[resolve.Layer]) -> list[resolve.Layer]:
    """Bind extra data by its digest, so that a run never goes on with another file.

    Raises:
        InputError: the file cannot be read.
        MismatchError: it is not the one that the configuration names.
    """
    named = _named(known)
    if "extra_data" not in named:
        return known
    from advkit.images import extra

    digest = extra.digest(named["extra_data"])
    require_digest(named.get("extra_digest"), "extra data", digest, named["extra_data"])
    return [*known, ({"extra_digest": digest}, "bound at the start of the run")]


def bound_init(known: list[resolve.Layer]) -> list[resolve.Layer]:
    """Bind the checkpoint that training starts from by its digest; its net is the run's.

    Raises:
        InputError: the checkpoint cannot be read.
        MismatchError: it is not the one that the configuration names.
    """
    named = _named(known)
    if "init" not in named:
        return known
    from advkit.artifacts import checkpoint

    info = checkpoint.read_info(named["init"])
    require_digest(named.get("init_digest"), "weights", info["digest"], named["init"])
    inherited: dict[str, Any] = {"arch": info["arch"]}
    if named.get("arch", info["arch"]) == info["arch"]:
        inherited |= info["model"]["options"]
    data = registry.split_path(str(named.get("data", "")))[0]
    if data == info["data"]["name"] and not info.get("imported"):
        # What the net has seen is not to choose the best epoch.
        inherited |= {key: info["config"].get(key) for key in ("split_seed", "val_size")}
    return [
        (inherited, "the net's of --init"),
        *known,
        ({"init_digest": info["digest"]}, "bound at the start of the run"),
    ]


def require_digest(wanted: str | None, what: str, digest: str, where: str) -> None:
    """Check that an input is the one that a configuration names, if it names one.

    Raises:
        MismatchError: it is not.
    """
    if wanted is not None and wanted != digest:
        raise MismatchError(
            f"{where}: its digest is {digest[:19]}, the configuration names {wanted[:19]}: "
            f"other {what} than the run began with"
        )


def _named(known: list[resolve.Layer]) -> dict[str, Any]:
    """Return what the layers name, the strongest last."""
    return {key: value for layer, _ in known for key, value in layer.items() if value is not None}
