"""What a part needs or suits, in the words of the options that give it."""

from __future__ import annotations

from advkit.registry import Part

GIVEN = {
    "teacher": "--teacher",
    "natural-teacher": "--natural-teacher",
    "surrogate": "--surrogate",
    "soft": "--soft-labels or --teacher",
    "ema": "",  # it makes its own
}
"""What a part may declare that it needs → the option that gives it, if there is one."""
STORED, PLAIN = "--soft-labels of stored views too", "--soft-labels of --views 1 alone"


def marked(part: Part) -> str:
    """Return a part's help with what it needs, or which stored labels it suits, behind it."""
    marker = _marker(part)
    return f"{part.help} [{marker}]" if marker else part.help


def _marker(part: Part) -> str:
    if part.folder == "augment":
        return STORED if part.constants.get("VIEWS") else PLAIN
    needs = [GIVEN.get(name, "") for name in part.constants.get("NEEDS", ())]
    options = " and ".join(option for option in needs if option)
    return f"needs {options}" if options else ""
