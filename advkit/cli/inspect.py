"""`advkit inspect FILE`: what an artifact is, where it comes from, and whether it is whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from advkit.artifacts import record as records
from advkit.artifacts.descriptions import Parent
from advkit.artifacts.record import Record
from advkit.cli import listing
from advkit.cli.common import stage
from advkit.cli.common.options import Call, Command


def run(call: Call) -> Iterator[Record]:
    """Check every file and describe it."""
    return stage.each(call, "inspect", records.KINDS, _inspected, noun="artifact")


def _inspected(source: Record) -> Record:
    from advkit.artifacts import artifact

    path = Path(records.wanted(source, records.KINDS))
    info = artifact.read_info(path)
    chain = [f"{info['kind']} {_short(info['digest'])}", *_chain(info["parents"])]
    return records.make(
        info["kind"],
        path,
        info["digest"],
        whole=True,
        bytes=path.stat().st_size,
        chain=chain,
        description={key: value for key, value in info.items() if key != "digest"},
    )


def _chain(parents: Sequence[Parent], depth: int = 1) -> Iterator[str]:
    """Yield the ancestors, nearest first, indented by generation."""
    for parent in parents:
        names = [parent.get(key) for key in ("method", "name", "role", "split")]
        words = [parent["kind"], *(str(name) for name in names if name is not None)]
        yield "  " * depth + " ".join(words) + f" {_short(parent['digest'])}"
        yield from _chain(parent.get("parents", []), depth + 1)


def _short(digest: str) -> str:
    return digest[:19]


COMMAND = Command(
    "inspect",
    listing.COMMANDS["inspect"].help,
    (),
    run,
    argument="[FILE]...",
    example="advkit inspect runs/digits-small-cnn-adr-s0/best.safetensors",
)
