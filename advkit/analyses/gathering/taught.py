"""What taught a student, and when another teacher makes another recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from advkit.artifacts import descriptions

TAUGHT_BY = ("labels_digest", "teacher_digest", "natural_teacher_digest")
"""Digests of what taught a student, one a role; each seed may have a teacher of its own."""
Digests = Mapping[str, object]
"""Role, as in `TAUGHT_BY`, → whole digest; None for a role that nothing has."""


def taught_by(config: Mapping[str, object]) -> Digests:
    """Return the digest of each role from a run's configuration."""
    return {role: config.get(role) for role in TAUGHT_BY}


def teachers(parents: Sequence[descriptions.Parent]) -> str | None:
    """Return what taught a student, without its seed: kind, method and architecture of each.

    Args:
        parents: of the student's checkpoint, without the one that it began from.
    """
    named = [
        f"{parent['kind']} {parent.get('method')} {parent.get('arch')}"
        for parent in parents
        if parent["kind"] != "data"
    ]
    return " + ".join(dict.fromkeys(named)) or None


def parting(runs: Sequence[tuple[int | None, Digests]]) -> list[str]:
    """Return the roles whose digests part runs that are alike in all else.

    A role's digest is such a setting, unless all have the same one or each seed has its own: then
    the teacher was trained seed by seed, and the runs are of one recipe. Each role is judged by
    itself: a natural teacher that differs tells, also beside a robust one that is the same.

    Args:
        runs: seed and digests of each; a run may come twice, as with its best and its final net.

    >>> one, two = {"teacher_digest": "sha256:a"}, {"teacher_digest": "sha256:b"}
    >>> parting([(1, one), (2, two)]), parting([(1, one), (2, two), (3, two)])
    ([], ['teacher_digest'])
    """
    return [
        role for role in TAUGHT_BY if _parts({(seed, digests.get(role)) for seed, digests in runs})
    ]


def _parts(pairs: set[tuple[int | None, object]]) -> bool:
    """Whether pairs of seed and digest are neither of one digest nor one to one."""
    seeds, digests = {seed for seed, _ in pairs}, {digest for _, digest in pairs}
    one_each = len(pairs) == len(seeds) == len(digests) and None not in digests
    return len(digests) > 1 and not one_each
