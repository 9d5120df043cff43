"""Write docs/results.md and docs/claims.md from docs/results/; with --check, say if one is stale.

Every figure of a run is read or computed here and every verdict follows from one rule
(`Estimate.verdict`), so that old verdicts can't stay beside new figures. The prose, with the sizes
that the recipes fix, is results/page.md.in.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from string import Template

from study import claims_page
from study.asked import read
from study.claims import ADR, AWP, CLAIMS, FAST, LTD, NAMES, OURS, Shown, name
from study.estimates import AGAINST, HELD, OPEN, Estimate
from study.parts import ATTACKS, Part, hours, lines

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "results.md"
FOLDER = DOCS / "results" / "cpu"
TEXT = DOCS / "results" / "page.md.in"
ASKED = DOCS / "claims.md"
LIST = DOCS / "results" / "claims.toml"

EXPERIMENTS = ("at", "adr", "adr-held", "adr-tau", "adr-both")
CHECKS = ("at", "adr", "adr-logits-4", "adr-weights", "adr-linear", "adr-step", "adr-constant",
          "adr-end")  # fmt: skip
ROWS = tuple(NAMES)[: list(NAMES).index("adr-held")]
NONE = "not run"
WHOSE = {
    ADR: "ADR's claim",
    LTD: "LTD's claim",
    AWP: "AWP's claim",
    OURS: "this project's question",
}
POINTS = ("best", "final", "best-ema", "final-ema")


def page() -> str:
    """Return the whole page."""
    parts = {each: Part(FOLDER / each) for each in ("study", "experiments", "checks")}
    study = parts["study"]
    spent, steps = hours(FOLDER)
    measured = [shown.measure(parts) for claim in CLAIMS for shown in claim.shown]
    judged = sum(found is not None and found.spread is not None for found in measured)
    filled = {
        "verdicts": verdicts(parts),
        "claims": claims(parts),
        "settings": settings(),
        "trials": trials(),
        "accuracies": accuracies(study, ROWS),
        "outputs": outputs(study, [f"{run}/{point}" for run in ROWS for point in POINTS]),
        "findings": findings(study),
        "experiments": beside(parts["experiments"], "at", EXPERIMENTS),
        "experiment_outputs": outputs(parts["experiments"], [f"{run}/best" for run in EXPERIMENTS]),
        "checks": beside(parts["checks"], "adr", CHECKS),
        "shifts": shifts(parts["checks"]),
    }
    words = {"seeds": count(study), "hours": f"{spent:.1f}", "steps": str(steps)}
    words |= {"judged": str(judged), "missed": f"{judged / 20:.0f}"}
    text = Template(TEXT.read_text(encoding="utf-8"))
    return text.substitute({key: "\n".join(each) for key, each in filled.items()} | words)


def verdicts(parts: dict[str, Part]) -> Iterator[str]:
    """All that did not hold, then claims that are open, not run or held by their first figure."""
    found: dict[str, list[str]] = {word: [] for word in (AGAINST, OPEN, NONE, HELD)}
    for claim in CLAIMS:
        words = [judged(shown, parts) for shown in claim.shown]
        against = [told(s, parts) for s, w in zip(claim.shown, words, strict=True) if w == AGAINST]
        if against:
            found[AGAINST].append(f"{claim.said} ({WHOSE[claim.by]}; {'; '.join(against)})")
        if words[0] != AGAINST:
            first = told(claim.shown[0], parts)
            found[words[0]].append(f"{claim.said} ({WHOSE[claim.by]}; {first})")
    heads = {
        AGAINST: "Did not hold here",
        OPEN: "Too small to say",
        NONE: "Not measured",
        HELD: "Held here",
    }
    yield "\n\n".join(
        f"**{heads[word]}:** {'. '.join(each) or 'nothing'}." for word, each in found.items()
        if each or word in (AGAINST, HELD)
    )  # fmt: skip


def judged(shown: Shown, parts: dict[str, Part]) -> str:
    """The verdict of one difference."""
    found = shown.measure(parts)
    return found.verdict if found else NONE


def told(shown: Shown, parts: dict[str, Part]) -> str:
    """A difference in words and numbers."""
    found = shown.measure(parts)
    if not found:
        return shown.what
    alone = "" if found.spread else " over the images alone"
    return f"{shown.what}: {interval(found)} {shown.unit}".strip() + alone


def claims(parts: dict[str, Part]) -> Iterator[str]:
    """The table of claims."""
    yield "| who says | what | measured | found [95 %] | by seed | paper | |"
    yield "|---|---|---|---|---|---|---|"
    for claim in CLAIMS:
        who, said = claim.by, claim.said
        for shown in claim.shown:
            found = shown.measure(parts)
            paper = "–" if shown.paper is None else f"{signed(shown.paper)} ({shown.source})"
            cells = [who, said, shown.what, "–", "–", paper, judged(shown, parts)]
            if found:
                cells[3] = f"{interval(found)} {shown.unit}".strip()
                cells[4] = ", ".join(signed(value) for value, _, _ in found.values.values())
                if found.spread is None:
                    cells[6] += "; chance of training unknown"
                elif shown.paper is not None and not found.low <= shown.paper <= found.high:
                    cells[6] += "; the paper's figure is outside the interval"
            yield f"| {' | '.join(cells)} |"
            who = said = ""


def settings() -> Iterator[str]:
    """The options of every run."""
    found = lines(FOLDER / "settings.json")
    if found:
        given = {key: " ".join(value.split()) for key, value in found[0].items()}
        yield f"Every net: `{given['shape']} {given['train']}`."
        yield f"Adversarial training also: `{given['robust']}`."
        yield f"Weight averages and ADR's teacher: `{given['average']}`."


def trials() -> Iterator[str]:
    """What was tried before the size was fixed."""
    with (FOLDER / "trials.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    for place, cells in enumerate(table):
        yield f"| {' | '.join(cells)} |"
        if place == 0:
            yield "|---" * len(cells) + "|"


def accuracies(part: Part, runs: Sequence[str]) -> Iterator[str]:
    """Clean and robust accuracy, best / final, and AutoAttack's at best."""
    judged = [attack for attack in ATTACKS if any(key[1] == attack for key in part.accuracies)]
    heads = [f"{ATTACKS[attack]}, best / final" for attack in judged]
    yield f"| | clean, best / final | {' | '.join(heads)} |"
    yield "|---" * (2 + len(heads)) + "|"
    for run in runs:
        for end in ("", "-ema"):
            points = [f"{run}/{point}{end}" for point in ("best", "final")]
            if part.accuracy(points[0], "pgd", "robust"):
                columns = [("pgd", "clean"), *((attack, "robust") for attack in judged)]
                cells = [
                    " / ".join(percent(part.accuracy(row, *column)) for row in points)
                    for column in columns
                ]
                yield f"| {name(points[0])} | {' | '.join(cells)} |"


def beside(part: Part, base: str, runs: Sequence[str]) -> Iterator[str]:
    """Two tables of a recipe: differences from a run, and accuracies."""
    if not part.accuracies:
        yield "Not run yet."
        return
    alone = ", intervals of the choice of images alone" if part.seeds == 1 else ""
    yield from (f"APGD-CE+T, points, mean over {count(part)}{alone}.", "")
    yield from differences(part, base, [run for run in runs if run != base])
    yield from ("", f"Percent, mean over {count(part)}.", "")
    yield from accuracies(part, runs)


def differences(part: Part, base: str, runs: Sequence[str]) -> Iterator[str]:
    """Differences from a base run at best and final, and each run's own gap, where measured."""
    table = [[f"less {NAMES[base]}", "best", "final", "its own best − final"]]
    for run in runs:
        ends = [part.pair(FAST, f"{base}/{point}", f"{run}/{point}") for point in ("best", "final")]
        table.append([NAMES[run], *(interval(e) if e else "" for e in (*ends, part.gap(run)))])
    kept = [place for place in range(4) if any(line[place] for line in table[1:])]
    for line in [table[0], ["---"] * 4, *table[1:]]:
        yield f"| {' | '.join(line[place] for place in kept)} |"


def outputs(part: Part, rows: Sequence[str]) -> Iterator[str]:
    """Entropy, divergence and calibration under PGD-20."""
    keys = (("entropy", "clean_entropy"), ("entropy", "adversarial_entropy"),
            ("divergence", "divergence"), ("calibration", "clean_ece"),
            ("calibration", "adversarial_ece"))  # fmt: skip
    heads = ("mean over seeds", "entropy, clean", "under PGD-20", "Jensen–Shannon", "ECE, clean",
             "under PGD-20")  # fmt: skip
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        found = [part.figure(*key, row) for key in keys]
        if any(found):
            end = ", final" if "/final" in row else ""
            cells = [f"{each.mean:.3f}" if each else "–" for each in found]
            yield f"| {name(row)}{end} | {' | '.join(cells)} |"


def findings(part: Part) -> Iterator[str]:
    """ADR's three findings, robust nets against the natural one, by seed."""
    words = {True: "holds", False: "fails", None: "open"}
    heads = ("", "higher entropy and AUROC out of distribution", "higher entropy when wrong",
             "moves less under attack")  # fmt: skip
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for record in lines(part.folder / "findings.jsonl"):
        for group in record["groups"]:
            cells = [words[group[f"{each}_holds"]] for each in ("ood", "wrong", "divergence")]
            yield f"| {group['model']} | {' | '.join(cells)} |"


def shifts(part: Part) -> Iterator[str]:
    """How far the attack moves outputs and labels, and what it leaves between them."""
    heads = ("", "ADR's label to attacked output", "one-hot label to attacked output",
             "outputs move", "ADR's labels move")  # fmt: skip
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    keys = ("adr_to_adversarial", "onehot_to_adversarial", "outputs_shift", "adr_shift")
    for row in ("at/best", "adr/best"):
        found = [part.figure("embedding", key, row) for key in keys]
        if all(found):
            cells = [f"{each.mean:.3f} [{each.low:.3f}, {each.high:.3f}]" for each in found if each]
            yield f"| {name(row)} | {' | '.join(cells)} |"


def count(part: Part) -> str:
    """How many seeds a part has, in words."""
    return f"{part.seeds} seed{'' if part.seeds == 1 else 's'}"


def percent(values: Sequence[float]) -> str:
    """A mean with a digit."""
    return f"{mean(values):.1f}" if values else "–"


def interval(found: Estimate) -> str:
    """A figure with its interval."""
    return f"{signed(found.mean)} [{signed(found.low)}, {signed(found.high)}]"


def signed(value: float) -> str:
    """A number with its sign: a digit from 1 on, else two or three; 0 has none."""
    digits = 1 if abs(value) >= 1 else 2 if abs(value) >= 0.1 else 3
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else "0"


def main() -> int:
    """Write the pages, or compare them."""
    asked = claims_page.page(read(LIST), LIST.with_suffix(".md.in"))
    stale = 0
    for path, text in ((PAGE, page()), (ASKED, asked)):
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"docs/{path.name} is stale: run make docs", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
