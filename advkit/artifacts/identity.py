"""Whether two artifacts were made by the same work, and in what they differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import cast

from advkit import __version__
from advkit.artifacts.descriptions import Described, Description, Labels, Logits
from advkit.errors import MismatchError

LOSSES = ("fgsm", "pgd", "transfer")
"""Attacks with a choice of loss."""
PLAIN = "ce"
"""The loss of papers' figures under an attack's name, and of all files before the choice."""
Identity = Mapping[str, object]
"""What a piece of work is, by name; equal for equal work."""


def identity(info: Description, called: str = "checkpoint") -> dict[str, object]:
    """Return what the work was that made an artifact of a net and data, from its description."""
    made = cast(Labels | Logits, info)
    # Parents are the net first and the data last; a transfer attack's surrogate stands between.
    net, *_, data = (parent["digest"] for parent in made["parents"])
    return of_work(made["config"], net, data, cast(Logits, info).get("implementation"), called)


def as_meant(config: Mapping[str, object]) -> Mapping[str, object]:
    """Return the configuration of an attack with what files of earlier versions had not to say."""
    if "loss" in config or config.get("attack") not in LOSSES:
        return config
    return {**config, "loss": PLAIN}


def of_work(
    config: Mapping[str, object],
    net: str,
    data: str,
    implementation: str | None = None,
    called: str = "checkpoint",
) -> dict[str, object]:
    """Return what a piece of work is that may not have been done yet.

    Args:
        config: its configuration.
        net: digest of the checkpoint.
        data: digest of the data.
        implementation: the package behind an attack, if there is one.
        called: what messages call the net.
    """
    made = {called: net, "data digest": data, "implementation": implementation}
    return {**as_meant(config), **made}


def require_same(before: Identity, now: Identity, out: Path) -> None:
    """Check that the file in place was made by the same work.

    Raises:
        MismatchError: it was not; the message lists what differs.
    """
    changed = differences(before, now)
    if changed:
        raise MismatchError(
            f"{out} was made otherwise ({', '.join(changed)}): choose another -o, or --overwrite"
        )


def require_parts(
    info: Description, now: Mapping[str, str], path: Path, foreign: Collection[str] = ()
) -> None:
    """Check that no part was edited since the file in place was made.

    Args:
        info: its description; files of the first versions say nothing of their parts.
        now: what its parts mean today, by `shelf/name`.
        path: the file.
        foreign: those that do not come with advkit, whatever its version.

    Raises:
        MismatchError: one was; the message names it.
    """
    made = cast(Described, info)
    # Another version's parts are other files; within one version they are the same, or edited.
    same = made.get("versions", {}).get("advkit") == __version__
    then = cast(Mapping[str, str], info.get("parts", {}))
    edited = sorted(
        name for name in then if (same or name in foreign) and then[name] != now.get(name)
    )
    if edited:
        raise MismatchError(
            f"{path} was made before {', '.join(edited)} was edited: undo the edit, choose "
            "another -o, or --overwrite"
        )


def differences(before: Identity, now: Identity, *, brief: bool = False) -> list[str]:
    """Return in what two identities differ: `key: before -> now`, in the order of the keys.

    Args:
        before: of what is there.
        now: of what is wanted.
        brief: of objects and lists the key alone.

    >>> differences({"eps": "0.1", "n": 3}, {"eps": "0.2", "n": 3})
    ['eps: 0.1 -> 0.2']
    >>> differences({"model": {"arch": "wrn", "mean": 0.5}}, {"model": {"arch": "wrn"}})
    ['model.mean: 0.5 -> None']
    """
    found = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if brief and isinstance(new if old is None else old, dict | list):
            found.append(key)
        elif isinstance(old, dict) and isinstance(new, dict):
            found += [f"{key}.{inner}" for inner in differences(old, new)]
        else:
            found.append(f"{key}: {old} -> {new}")
    return found
