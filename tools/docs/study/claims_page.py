"""docs/claims.md: what was written down before the study, made of claims.toml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from string import Template

from study.asked import Asked, Claims

NAMES = {
    "natural": "natural",
    "at": "AT",
    "ls": "AT+LS",
    "adr": "ADR",
    "adr-searched": "ADR, searched",
    "at-awp": "AT+AWP",
    "adr-awp": "ADR+AWP",
    "trades": "TRADES",
    "trades-adr": "TRADES+ADR",
    "ltd-T1": "LTD, T = 1",
    "ltd-T2": "LTD, T = 2",
    "ltd-T5": "LTD, T = 5",
    "ltd-T20": "LTD, T = 20",
    "rslad": "RSLAD",
    "score": "SCORE",
    "ikl": "IKL",
    "sat": "SAT",
    "te": "TE",
}
"""The study's rows, in the order of its tables."""


def name(row: str) -> str:
    """What a page calls RUN/POINT."""
    run, point = row.split("/")
    return NAMES[run] + ("+WA" if point.endswith("-ema") else "")


def page(claims: Claims, template: Path) -> str:
    """Return the whole page."""
    text = Template(template.read_text(encoding="utf-8"))
    filled = {"sizes": sizes(claims), "claims": "\n".join(table(claims))}
    return text.substitute(filled, margin=f"{claims.margin:g}")


def sizes(claims: Claims) -> str:
    """Say what each size is."""
    told = (
        f"*{name}*: {size.train:,} training images, {size.epochs} epochs in batches of {size.batch}"
        for name, size in claims.sizes.items()
    )
    return f"Two sizes: {'; '.join(told)}."


def table(claims: Claims) -> Iterator[str]:
    """Yield a table for each family, with the number of its tests."""
    for family, says in claims.families.items():
        tests = [test for test in claims.tests if test.family == family]
        yield f"### {says[0].upper()}{says[1:]}: {len(tests)} tests"
        yield from ("", "| claim | who says | effect | sizes | paper |", "|---|---|---|---|---|")
        for claim in dict.fromkeys(test.id for test in tests):
            first, *others = (test for test in tests if test.id == claim)
            at = ", ".join(test.size for test in (first, *others))
            paper = "–" if first.paper is None else f"{first.paper:+.2f}"
            who = f"{first.by}, {first.source}" if first.source else first.by
            yield f"| {first.said} | {who} | {effect(first, claims)} | {at} | {paper} |"
        yield ""


def effect(test: Asked, claims: Claims) -> str:
    """Write the effect out: rows with their signs, and what is measured of them."""
    words = []
    across = len({term.size for term in test.terms}) > 1
    for place, term in enumerate(test.terms):
        sign = "−" if term.sign < 0 else "+" if place else ""
        end = ", final" if "/final" in term.row else ""
        row = f"({name(term.row)})" if "+" in name(term.row) else name(term.row)
        words.append(f"{sign} {row}{end}{f' at {term.size}' if across else ''}".strip())
    measured = "" if test.measure == "robust" else f"; {claims.measures[test.measure].says}"
    return " ".join(words) + measured
