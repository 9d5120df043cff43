"""Runs and attacks as papers' tables: best, final, difference, mean ± sample sd over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from advkit.analyses.gathering.entries import Entry, shown
from advkit.analyses.gathering.groups import Group, grouped
from advkit.analyses.gathering.rows import run_name
from advkit.analyses.tables import pictures, summary
from advkit.analyses.tables import published as _published
from advkit.analyses.tables import sheets as _sheets
from advkit.analyses.tables.beside import Beside
from advkit.analyses.tables.differing import CONTEST, HEADED, Differing
from advkit.analyses.tables.leads import leads
from advkit.analyses.tables.sounded import sounded, words
from advkit.artifacts.document import Document
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Number, Result
from advkit.formulas.stats import wilson

KINDS = ("logits",)
COMPARES = True
FORMATS = (".md", ".tex", ".html")
_COLUMNS = (
    *("run", "role", "method", "attack", "eps", "n"),
    *(f"{what}_{end}" for what in ("clean", "robust") for end in ("accuracy", "low", "high")),
    *("seed", "steps", "data", "arch", "norm", "settings", "attack_settings", "group", "differs"),
)


def analyze(
    inputs: Sequence[Logits],
    *,
    spread: Literal["sd", "variance", "range"] = "sd",
    against: str | None = None,
    picture: Literal["accuracies", "summary"] = "accuracies",
) -> Result:
    """List logits files, a row each, and group them, a line for each recipe and attack.

    A group is data set, architecture, method and the training settings in which its runs differ;
    attack, norm, ε and the attack's options. One seed has its 95 % Wilson interval instead of a
    deviation. Order is that of the input. The settings in which lines differ, their methods' own
    aside, are named below them: `differs`; and which alarms rang in the training of which run.

    Args:
        spread: what stands beside a mean over seeds.
        against: published table to put beside, such as adr-table1, ltd-table4 or robustbench.
        picture: what --plot draws: every line's accuracies as points, or a summary of up to six
            lines: accuracies as bars, and reliability under attack.

    Raises:
        InputError: a seed is there twice.
        MismatchError: files of one group were not judged on the same examples.
        UsageError: no such published table, or lines that a summary cannot show.
    """
    published = _published.read(against) if against is not None else None
    placed = grouped(inputs)
    groups = list({group.number: group for _, group in placed}.values())
    led = leads(groups)
    differing = Differing(groups)
    own = {group.number: differing.of_line(line) for line, group in enumerate(groups)}
    plain = tuple(
        {**group.plain(), "leads": columns, "differs": own[group.number]}
        for group, columns in zip(groups, led, strict=True)
    )
    numbers: dict[str, Number] = {"files": len(placed)}
    rung = sounded(entry for entry, _ in placed)
    told = [f"note: {note}" for note in differing.notes((*HEADED, *CONTEST), printed=False)]
    told += [f"note: {note}" for note in words(rung)]
    text = "\n".join([_sheets.text(groups, spread), *told])
    beside = Beside(published, groups) if published else None
    if beside:
        numbers |= {"against": against, "matched": beside.matched}
        text += f"\n\n{beside.text()}"
    return Result(
        numbers,
        _COLUMNS,
        tuple((*_row(entry, group), shown(own[group.number])) for entry, group in placed),
        panels=summary.panels(groups) if picture == "summary" else pictures.forests(groups),
        text=text,
        groups=plain,
        more={
            "differs": differing.plain(),
            **({"alarms": rung} if rung else {}),
            **(beside.plain() if beside else {}),
        },
        document=_document(groups, led, spread, beside),
    )


def _row(entry: Entry, group: Group) -> tuple[object, ...]:
    config, labels = entry.attack, group.labels
    spec = (run_name(entry.path), entry.role, entry.method, labels.attack, config.get("eps"))
    figures = [*_interval(entry.hits["clean"], entry.n), *_interval(entry.hits["robust"], entry.n)]
    place = (entry.data, entry.arch, labels.norm)
    settings = (shown(labels.settings), shown(labels.attack_settings), group.number)
    return (*spec, entry.n, *figures, entry.seed, labels.steps, *place, *settings)


def _interval(hits: int | None, n: int) -> tuple[float | None, ...]:
    return (None, None, None) if hits is None else (hits / n, *wilson(hits, n))


def _document(
    groups: Sequence[Group], led: Sequence[Sequence[str]], spread: str, beside: Beside | None
) -> Document:
    """Return what Markdown, LaTeX and HTML hold; pictures are drawn for HTML alone."""

    def remarks(own: Sequence[Group]) -> list[str]:
        rung = sounded(entry for group in own for entry in group.entries)
        return [*Differing(own).notes(), *words(rung)]

    sheets = _sheets.sheets(groups, led, spread, remarks)
    reruns = _sheets.reruns(groups, spread) if spread != "sd" else None
    sheets += [reruns] if reruns else []
    below = beside.sheet() if beside else None
    sheets += [below] if below else []
    return Document(
        title="Robust and standard accuracy",
        sheets=tuple(sheets),
        # Published figures of other data are no table, but what is said of them stands.
        notes=tuple(beside.notes) if beside and not below else (),
        figures=lambda: pictures.galleries(groups),
        sources=tuple(
            _sheets.source_of(x.path, f"{x.role}, {x.attack['attack']}", x.logits.info)
            for group in groups
            for point in dict.fromkeys(entry.point for entry in group.entries)
            for x in group.of_point(point).values()
        ),
    )
