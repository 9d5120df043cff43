"""Write docs/results.md and docs/claims.md from docs/results/; with --check, say if one is stale.

Every figure of a run is read or computed here and every verdict follows from one rule
(`study.judge`), so that old verdicts can't stay beside new figures. The prose is
results/page.md.in and results/claims.md.in.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from string import Template

from study import claims_page, curves, earlier, summaries
from study.asked import Claims, Term, read
from study.claims_page import NAMES, name
from study.earlier import signed
from study.judge import DECIDED, HELD, NONE, OPEN, OPPOSITE, SAME, Judged, judge
from study.parts import Part, hours
from study.summaries import Study
from study.twoway import Estimated, one_way, two_way

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "results.md"
ASKED = DOCS / "claims.md"
CURVES = DOCS / "images" / "results" / "effects.svg"
FOLDER = DOCS / "results"
LIST = FOLDER / "claims.toml"
POINTS = ("best", "final", "best-ema")
EARLIER = {"experiments": ("at", earlier.EXPERIMENTS), "checks": ("adr", earlier.CHECKS)}


def page(claims: Claims, study: Study, judged: Sequence[Judged]) -> str:
    """Return the whole page of results."""
    parts = {each: Part(FOLDER / "cpu" / each) for each in EARLIER}
    spent, steps = hours(FOLDER / "study")
    filled = {
        "summary": summary(judged),
        "claims": table(claims, judged),
        "effects": effects(claims, judged),
        "levels": levels(study),
        "autoattack": autoattack(study),
        "searched": searched(FOLDER / "study"),
        "held_out": held_out(study),
        "coverage": coverage(),
        "experiment_outputs": earlier.outputs(
            parts["experiments"], [f"{run}/best" for run in earlier.EXPERIMENTS]
        ),
        "shifts": earlier.shifts(parts["checks"]),
        "cost": cost(spent, steps),
    }
    filled |= {
        each: earlier.beside(parts[each], base, runs) for each, (base, runs) in EARLIER.items()
    }
    words = {key: "\n".join(each) for key, each in filled.items()}
    text = Template((FOLDER / "page.md.in").read_text(encoding="utf-8"))
    return text.substitute(words, margin=f"{claims.margin:g}")


def summary(judged: Sequence[Judged]) -> Iterator[str]:
    """Count the verdicts, and say what held and what did not, in that order."""
    counts = Counter(each.verdict for each in judged)
    words = {HELD: "held", OPPOSITE: "the opposite held", SAME: "make no difference that matters",
             OPEN: "are open", NONE: "are not run yet"}  # fmt: skip
    told = ", ".join(f"{counts[verdict]} {says}" for verdict, says in words.items())
    decided = sum(counts[verdict] for verdict in DECIDED)
    yield f"Of {len(judged)} tests {decided} are decided: {told}."
    widths = [f"{each.test.size} ± {each.found.half:.2f}" if each.found else f"{each.test.size} –"
              for each in judged if each.test.id in ("adr-best", "trades-adr-best")]  # fmt: skip
    yield (
        "How fine it sees: half the 95 % interval of ADR − AT at best is, in points, at "
        f"{' and at '.join(widths[:2])}; of TRADES+ADR − TRADES at {' and at '.join(widths[2:])}."
    )
    for verdict in (OPPOSITE, HELD, SAME):
        own = [f"{each.test.said} ({each.test.size}: {interval(each.found)})"
               for each in judged if each.verdict == verdict and each.found]  # fmt: skip
        if own:
            yield from ("", f"**{verdict[0].upper()}{verdict[1:]}:** {'; '.join(own)}.")


def table(claims: Claims, judged: Sequence[Judged]) -> Iterator[str]:
    """The table of claims, by family."""
    yield "| claim | who says | size | verdict | effect [95 %] | seeds | paper |"
    yield "|---|---|---|---|---|---|---|"
    for family, says in claims.families.items():
        yield f"| **{says[0].upper()}{says[1:]}** | | | | | | |"
        for each in judged:
            if each.test.family == family:
                yield f"| {' | '.join(cells(each, claims))} |"


def cells(each: Judged, claims: Claims) -> list[str]:
    """A row of it."""
    test, found = each.test, each.found
    who = f"{test.by}, {test.source}" if test.source else test.by
    paper = "–" if test.paper is None else f"{test.paper:+.2f}".replace("-", "−")
    told, seeds = "–", "–"
    if found:
        told = f"{interval(found)} {claims.measures[test.measure].unit}".strip()
        seeds = str(len(found.seeds))
        if test.paper is not None and not found.interval[0] <= test.paper <= found.interval[1]:
            paper += " (outside)"
    return [test.said, who, test.size, each.verdict, told, seeds, paper]


def effects(claims: Claims, judged: Sequence[Judged]) -> Iterator[str]:
    """The table behind the curves: each effect in accuracy at both sizes."""
    found = {(each.test.id, each.test.size): each.found for each in judged}
    yield "| effect, points | S: 500 images | M: 4,000 images |"
    yield "|---|---|---|"
    for claim, says in curves.SHOWN.items():
        both = [interval(found[claim, size]) for size in claims.sizes]
        yield f"| {says} | {' | '.join(both)} |"


def levels(study: Study) -> Iterator[str]:
    """Accuracies of every row: mean and deviation over its own seeds."""
    if not study.runs:
        yield "Not run yet."
        return
    yield "| | size | seeds | clean, best | clean, final | APGD-CE+T, best | APGD-CE+T, final |"
    yield "|---|---|---|---|---|---|---|"
    for run in NAMES:
        for end in ("", "-ema"):
            for size in ("S", "M"):
                rows = [Term(1, f"{run}/{point}{end}", size) for point in ("best", "final")]
                best = study.seeds(rows[:1], "robust")
                if best:
                    shown = [
                        level(study, row, kind) for kind in ("clean", "robust") for row in rows
                    ]
                    yield f"| {name(rows[0].row)} | {size} | {len(best)} | {' | '.join(shown)} |"


def level(study: Study, term: Term, kind: str) -> str:
    """A row's accuracy with its deviation over seeds, in percent."""
    seeds = study.seeds([term], kind)
    if not seeds:
        return "–"
    values = study.effects([term], kind, seeds).mean(1).tolist()
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def autoattack(study: Study) -> Iterator[str]:
    """How much AutoAttack takes off what the short attack and `--fast` leave."""
    if not study.checks:
        yield "Not run yet."
        return
    yield "| | size | seeds | AutoAttack, % | `--fast` less it | the short attack less it |"
    yield "|---|---|---|---|---|---|"
    for run in NAMES:
        for size in ("S", "M"):
            own = [each for (s, r, _), each in study.checks.items() if (s, r) == (size, run)]
            if own:
                shares = [
                    100 * mean(float(bits.mean()) for bits in kind)
                    for kind in zip(*((e.autoattack, e.fast, e.short) for e in own), strict=True)
                ]
                over = " | ".join(signed(share - shares[0]) for share in shares[1:])
                yield f"| {NAMES[run]} | {size} | {len(own)} | {shares[0]:.1f} | {over} |"


def searched(folder: Path) -> Iterator[str]:
    """What the searches for ADR's numbers chose."""
    for size in ("S", "M"):
        path = folder / f"{size}-numbers.json"
        if not path.exists():
            yield f"Searched numbers at {size}: not run yet."
            continue
        given = json.loads(path.read_text(encoding="utf-8"))
        gain, *ends = (signed(100 * given[f"difference{end}"]) for end in ("", "_low", "_high"))
        yield (
            f"Searched numbers at {size}: `{given['options']}`, of {given['trials']} trials; over "
            f"AT on the {given['n']} validation images {gain} [{', '.join(ends)}] points."
        )


def held_out(study: Study) -> Iterator[str]:
    """ADR − AT at S on the seeds that were held out, against what the others predict of them."""
    for point in ("best", "final"):
        terms = (Term(1, f"adr/{point}", "S"), Term(-1, f"at/{point}", "S"))
        seeds = study.seeds(terms, "robust"), study.seeds(terms, "robust", held_out=True)
        first, second = (
            two_way(study.effects(terms, "robust", own)) if own else None for own in seeds
        )
        if not first or not second:
            yield f"ADR − AT at S, {point}: not run yet."
            continue
        # Both see the same images, so that only seeds part them: Welch's t over seeds.
        gap = welch(first.seeds, second.seeds)
        inside = gap.interval[0] <= 0 <= gap.interval[1]
        whole = two_way(study.effects(terms, "robust", [*seeds[0], *seeds[1]]))
        yield (
            f"ADR − AT at S, {point}: {interval(first)} points of seeds {seeds[0][0]} to "
            f"{seeds[0][-1]}, {interval(second)} of {seeds[1][0]} to {seeds[1][-1]}; they differ "
            f"by {interval(gap)}: {'as chance would have it' if inside else 'more than by chance'}"
            f". Of all {sum(map(len, seeds))}: {interval(whole)}, which decides nothing."
        )


def welch(first: Sequence[float], second: Sequence[float]) -> Estimated:
    """Second mean less the first, each with its own deviation."""
    rows = [one_way(first), one_way(second)]
    shares = [row.se**2 if row else 0.0 for row in rows]
    df = sum(shares) ** 2 / sum(
        share**2 / (len(own) - 1) for share, own in zip(shares, (first, second), strict=True)
    )
    return Estimated(mean(second) - mean(first), sum(shares) ** 0.5, df, ())


def coverage() -> Iterator[str]:
    """The simulation's table."""
    path = FOLDER / "coverage.csv"
    if not path.exists():
        yield "Not run yet."
        return
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    heads = ("seeds", "images", "robust, %", "true gain", "chance of a seed", "covered",
             "over seeds alone", "over images alone", "± points")  # fmt: skip
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for line in lines:
        shares = [
            f"{100 * float(line[key]):.1f} %" for key in ("both", "seeds_alone", "images_alone")
        ]
        given = [line["seeds"], line["images"], f"{100 * float(line['accuracy']):g}",
                 f"{100 * float(line['gain']):g}", line["own_seed"]]  # fmt: skip
        yield f"| {' | '.join([*given, *shares, line['half']])} |"


def cost(spent: float, steps: int) -> Iterator[str]:
    """What was spent."""
    if steps:
        yield f"{spent:.1f} hours of one core (processor time) for {steps} steps."
    else:
        yield "Not run yet."


def interval(found: Estimated | None) -> str:
    """An effect with its interval."""
    if not found:
        return "not run yet"
    return f"{signed(found.mean)} [{signed(found.interval[0])}, {signed(found.interval[1])}]"


def main() -> int:
    """Write the pages, or compare them."""
    claims, study = read(LIST), summaries.read(FOLDER / "study")
    judged = judge(claims, study)
    texts = {
        PAGE: page(claims, study, judged),
        ASKED: claims_page.page(claims, LIST.with_suffix(".md.in")),
        CURVES: curves.drawing(judged),
    }
    stale = 0
    for path, text in texts.items():
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"docs/{path.relative_to(DOCS)} is stale: run make docs", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
