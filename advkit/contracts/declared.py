"""What every part promises, whatever its shelf: what its file says is what it does."""

from __future__ import annotations

import inspect

from advkit import registry
from advkit.contracts.scene import demand
from advkit.registry import Part
from advkit.registry.declarations import DECLARATIONS, KINDS


def has_one_line_of_help(part: Part) -> None:
    """Its first docstring line is a sentence of 11 to 100 characters."""
    short = 10 < len(part.help) <= 100
    demand(
        short and part.help.endswith((".", ")")),
        f"its help is no sentence of 11 to 100 characters: {part.help!r}",
    )


def options_have_help_and_fitting_defaults(part: Part) -> None:
    """Each option has a line in `Args:` and a default of its kind."""
    for option in part.options:
        default = option.default
        demand(option.help, f"{option.flag} has no line in the docstring's Args")
        kind = KINDS.get(option.kind, object)
        demand(
            default is None or isinstance(default, kind),
            f"the default of {option.flag}, {default!r}, is no {option.kind}",
        )
        demand(
            not option.choices or default in (None, *option.choices),
            f"the default of {option.flag}, {default!r}, is not among {option.choices}",
        )
        numeric = option.kind in ("int", "float")
        both = option.limits.startswith(("[", "("))
        demand(
            not numeric or both or not part.foreign,
            f'{option.flag} has no limits on both sides: LIMITS = {{"{option.name}": "[0, 1]"}}',
        )


def imports_as_it_was_read(part: Part) -> None:
    """Import gives the functions and declarations that the syntax tree shows."""
    module = registry.load(part.folder, part.name)
    for contract, expected in registry.CONTRACTS[part.folder].items():
        entry = part.place.function or contract
        parameters = inspect.signature(getattr(module, entry)).parameters.values()
        positional = tuple(one.name for one in parameters if one.kind is not one.KEYWORD_ONLY)
        demand(positional == expected, f"{entry} takes {positional}, not {expected}")
        for one in parameters:
            demand(one.annotation is not one.empty, f"{entry}: {one.name} has no annotation")
    for name in DECLARATIONS[part.folder]:
        read, there = part.constants.get(name), getattr(module, name, None)
        demand(read == there, f"{name} is {there!r}, and was read as {read!r}")
