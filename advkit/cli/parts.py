"""`advkit parts`: what parts there are, whether one's own keep the contract, and a new one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advkit import registry
from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli.common.options import Call, Command
from advkit.errors import UsageError, Verdict
from advkit.registry import Part, sources

KIND = "part"


def listed(call: Call) -> Iterator[Record]:
    """Yield a record for each part there is."""
    for shelf in registry.CONTRACTS:
        for part in registry.parts(shelf).values():
            yield _record(part, **({"problem": part.breach} if part.problems else {}))


def _record(part: Part, **figures: object) -> Record:
    digest = "" if part.problems else sources.digest(part.folder, part.name)
    return records.make(
        KIND,
        part.path,
        digest,
        shelf=part.folder,
        name=part.name,
        help=part.help,
        options=[option.flag for option in part.options],
        origin=part.place.kind,
        **({"of": part.place.name} if part.foreign else {}),
        **figures,
    )


def checked(call: Call) -> Iterator[Record]:
    """Run the contract's checks on every part of the folders and yield a record for each.

    Raises:
        UsageError: a file does not parse or misdeclares.
        Verdict: a part does not keep a promise.
    """
    if not call.files:
        raise UsageError("name a folder of parts, or FILE.py of a net")
    with registry.using(*call.files):
        chosen = [registry.places.named(text, registry.CONTRACTS) for text in call.files]
        roots = {(place.root.resolve(), place.function) for place in chosen}
        mine = [
            part
            for shelf in registry.CONTRACTS
            for part in registry.parts(shelf).values()
            if (part.place.root.resolve(), part.place.function) in roots
        ]
        if not mine:
            raise UsageError(f"{', '.join(call.files)}: no parts lie there")
        yield from _checked(mine)


def _checked(mine: list[Part]) -> Iterator[Record]:
    from advkit import contracts  # imports torch, which --help does without

    wrong: list[str] = []
    for part in mine:
        failures = list(contracts.breaches(part))
        wrong += [f"{part.folder}/{part.name}"] if failures else []
        yield _record(
            part,
            passed=not failures,
            checks=len(contracts.checks(part.folder)),
            failures=[{"check": one.check, "problem": one.problem} for one in failures],
        )
    improper = [part.breach for part in mine if part.problems]
    if improper:
        raise UsageError("; ".join(improper))
    if wrong:
        raise Verdict(f"{', '.join(wrong)}: promises not kept, see the records")


def begun(call: Call) -> Iterator[Record]:
    """Write a part and its golden test and yield the part's record."""
    if len(call.files) not in (2, 3):
        raise UsageError("name a shelf and a part: advkit parts new labels halved [DIR]")
    from advkit.contracts import new

    shelf, name, *rest = call.files
    root = Path(rest[0] if rest else ".")
    _, test = new.begin(shelf, name, root)
    with registry.using(str(root)):
        yield _record(registry.part(shelf, name), test=records.relative(test))


COMMANDS = (
    Command(
        "list",
        "List every part: its shelf, help, options, and where it comes from.",
        (),
        listed,
        example="advkit parts list --parts mine",
    ),
    Command(
        "check",
        "Run the checks that every part must pass on those of a folder; exit 8 where one fails.",
        (),
        checked,
        argument="DIR|FILE.py...",
        about="folders of parts, or files of nets",
        example="advkit parts check mine",
    ),
    Command(
        "new",
        "Write a part to begin with, and a test of it with values worked by hand.",
        (),
        begun,
        argument="SHELF NAME [DIR]",
        about=f"one of {', '.join(registry.CONTRACTS)}; the part's name; where its folder lies",
        example="advkit parts new labels halved mine",
    ),
)


def commands() -> tuple[Command, ...]:
    """Return the commands of the group."""
    return COMMANDS
