"""A description checked against the definition of its kind, when written and when read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import cast

from advkit.artifacts.descriptions import (
    DEEPEST,
    DEFINITIONS,
    JUDGED,
    PARENTS,
    TRAINED,
    Checkpoint,
    Described,
    Description,
    Labelling,
    Labels,
    Logits,
    Parent,
    Trial,
)
from advkit.artifacts.schema import fault
from advkit.errors import InputError


def require(info: Description, where: object) -> None:
    """Check a description that was read against the definition of its kind.

    Raises:
        InputError: a key is missing, of another type or out of range; it names the first.
    """
    wrong = _fault(info)
    if wrong:
        raise InputError(f"{where}: corrupt: in its description {wrong}")


def require_whole(info: Description) -> None:
    """Check a description that is to be written, but for the digest, which it does not have yet.

    Raises:
        ValueError: the stage that made it forgot a key, or fills it in wrongly.
    """
    wrong = _fault({**info, "digest": "later"})
    if wrong:
        raise ValueError(f"the description of a {info['kind']} file in which {wrong}")


def trial_fault(trial: object) -> str:
    """Return the first thing that keeps a line of a ledger from being a trial; empty if nothing."""
    wrong = fault(trial, Trial)
    if wrong:
        return wrong
    described = cast(Trial, trial)
    return _missing(described, JUDGED) if described["kind"] == "ltd" else ""


def _fault(info: Description) -> str:
    kind = str(info["kind"])
    try:
        wrong = fault(info, DEFINITIONS[kind])
        if wrong or "parents" not in info:
            return wrong
        described = cast(Described, info)
        return _chain_fault(described["parents"]) or _kind_fault(described)
    except RecursionError:
        return "something is nested too deep"


def _chain_fault(parents: Sequence[object]) -> str:
    """Check all ancestors, each against what its kind always says."""
    # With a list of those still to be looked at: a forged chain may be deeper than Python's stack.
    waiting = [(f"parents.{place}", parent, 1) for place, parent in enumerate(parents)]
    while waiting:
        key, claimed, depth = waiting.pop()
        wrong = fault(claimed, Parent)
        if wrong:
            return f"{key}.{wrong}" if isinstance(claimed, dict) else f"{key} is no object"
        parent = cast(Parent, claimed)
        missing = _missing(parent, PARENTS.get(parent["kind"], ()))
        if missing:
            return f"{key}.{missing}"
        if depth > DEEPEST:
            return f"{key} is more than {DEEPEST} generations deep"
        own = enumerate(parent.get("parents", []))
        waiting += [(f"{key}.parents.{place}", older, depth + 1) for place, older in own]
    return ""


def _kind_fault(info: Described) -> str:
    """Check what the keys of one kind owe each other."""
    if info["kind"] in ("checkpoint", "state"):
        return _training_fault(cast(Checkpoint, info))
    if info["seed"] is None:
        return "seed is no whole number"
    if info["kind"] == "labels":
        wrong = _labelling_fault(cast(Labels, info)["config"])
    elif info["kind"] == "logits":
        wrong = _evaluation_fault(cast(Logits, info))
    else:
        return ""
    kinds = [parent["kind"] for parent in info["parents"]]
    if not wrong and (len(kinds) < 2 or kinds[0] != "checkpoint" or kinds[-1] != "data"):
        return "parents are not a checkpoint first and data last"
    return wrong


def _training_fault(info: Checkpoint) -> str:
    if info.get("imported"):
        return _missing(info, ("source",))
    if info["kind"] == "checkpoint" and "metrics" not in info:
        return "metrics is missing"
    if info["seed"] is None:
        return "seed is no whole number"
    null = next((key for key in TRAINED if info["config"].get(key) is None), "")
    return f"config.{null} is null, and it is not imported" if null else ""


def _labelling_fault(config: Labelling) -> str:
    views = config["views"]
    if views != "all" and not (views.isascii() and views.isdecimal() and 0 < int(views) <= 2**31):
        return "config.views is no count and not all"
    wrong = _missing(config, ("batch_size", "examples")) if "shard" in config else ""
    return f"config.{wrong}" if wrong else ""


def _evaluation_fault(info: Logits) -> str:
    if info["config"]["attack"] == "none":
        return ""
    wrong = _missing(info["config"], ("norm", "eps"))
    if wrong:
        return f"config.{wrong}"
    return "" if info["attacks"] else "attacks is empty"


def _missing(keys: Collection[str], wanted: Iterable[str]) -> str:
    return next((f"{key} is missing" for key in wanted if key not in keys), "")
