"""The lines of `table` as text for a terminal and as tables for a document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

from advkit.analyses.gathering import naming
from advkit.analyses.gathering.entries import POINTS, WHATS, implementation, shown
from advkit.analyses.gathering.groups import Column, Group, Labels
from advkit.analyses.gathering.rows import run_name
from advkit.analyses.tables.leads import COLUMNS as ACCURACIES
from advkit.analyses.tables.leads import RULE
from advkit.artifacts.document import NOTHING, Cell, Sheet, Source, aligned
from advkit.artifacts.provenance import canonical

COLUMNS = [(what, point) for what in WHATS for point in (*POINTS, "difference")]
NAMES = ("data", "arch", "method", "settings", "attack", "norm", "eps", "n", "seeds")
HEAD = (*NAMES, *(p if p == "difference" else f"{what} {p} %" for what, p in COLUMNS))
WEIGHTS = {"average": "weight average", "student": "without the average"}
"""Whose weights a line's are, in words."""
SPREADS = {
    "sd": "mean ± sample standard deviation over seeds",
    "variance": "mean (sample variance over seeds, in squared points)",
    "range": "mean (least to greatest over seeds)",
}
INTERVAL = "95 % interval of one run in square brackets"
FEWER = "a number in round brackets: over how many seeds, where some lack that figure"
DIFFERENCE = "difference: best − final of each seed that has both"
SELECTION = (
    "best: the checkpoint of highest PGD accuracy on the validation split; the test set had no say"
)
WILSON = (
    "[low, high]: 95 % Wilson interval of one run over its test examples, training noise not in it"
)


def text(groups: Sequence[Group], spread: str) -> str:
    """Return the groups as aligned text, accuracies in percent, without empty columns."""
    lines = [_line(group, spread) for group in groups]
    filled = [place for place in range(len(HEAD)) if any(line[place] for line in lines)]
    return aligned([[line[place] or "-" for place in filled] for line in (HEAD, *lines)])


def _line(group: Group, spread: str) -> tuple[str, ...]:
    labels = group.labels
    attack = labels.attack + (f"-{labels.steps}" if labels.steps else "")
    if labels.attack_settings:
        attack += f" ({shown(labels.attack_settings)})"
    names = (labels.data, labels.arch, method_of(labels), settings_of(labels), attack)
    sizes = (labels.norm or "", labels.eps or "", str(group.n), str(group.seeds))
    cells = [figure(group, what, point, spread) for what, point in COLUMNS]
    return (*names, *sizes, *cells)


def method_of(labels: Labels) -> str:
    """Return the method, and whose weights, where they are not those that its name promises."""
    return labels.method if promised(labels) else f"{labels.method} ({labels.weights})"


def promised(labels: Labels) -> bool:
    """Whether the weights are those that the method's name promises."""
    return (labels.weights == "average") == labels.method.endswith("-wa")


def settings_of(labels: Labels) -> str:
    """Return the settings that tell a group from others of its method."""
    unknown = "" if labels.settings_recorded else "others not recorded"
    return "; ".join(words for words in (shown(labels.settings), unknown) if words)


def called(group: Group) -> str:
    """Return the method as papers print it, and whose weights, where its name says another's.

    A label of the only run stands in its place.
    """
    first = group.entries[0]
    alone = naming.label_of(first.logits) if len(group.runs) == 1 else None
    if alone is not None:
        return alone
    name = naming.method(group.labels.method, first.trained.get("train_attack"))
    return name if promised(group.labels) else f"{name} ({WEIGHTS[group.labels.weights]})"


def name_of(group: Group) -> str:
    """Return method and settings in a few words, as papers print them."""
    return ", ".join(words for words in (called(group), settings_of(group.labels)) if words)


def attack_of(labels: Labels) -> str:
    """Return the attack as a paper calls it: AutoAttack, PGD-50."""
    return naming.attack(labels.attack, labels.steps)


def figure(group: Group, what: str, point: str, spread: str) -> str:
    """Return a figure in percent with its spread or interval, and the seeds where some lack it."""
    column = group.column(what, point)
    if column.mean is None:
        return ""
    text = f"{column.mean * 100:.2f}"
    if column.sd is not None:
        text += _spread(column, spread)
    elif column.ci95:
        text += " [{:.1f}, {:.1f}]".format(*(end * 100 for end in column.ci95))
    seeds = len(column.shares)
    return text + (f" ({seeds})" if seeds != group.seeds else "")


def _spread(column: Column, spread: str) -> str:
    # Squared points are 1e4 times the variance of shares.
    if spread == "variance":
        return f" (var {(column.variance or 0) * 1e4:.4g})"
    return f" ({_range(column)})" if spread == "range" else f" ± {(column.sd or 0) * 100:.2f}"


def _range(column: Column) -> str:
    return f"{min(column.shares) * 100:.2f} to {max(column.shares) * 100:.2f}"


def sheets(
    groups: Sequence[Group],
    leads: Sequence[Sequence[str]],
    spread: str,
    remarks: Callable[[Sequence[Group]], list[str]],
) -> list[Sheet]:
    """Return a table for each attack: its methods, and best, final and difference of each.

    Args:
        groups: the lines of all tables.
        leads: the columns that each of them leads.
        spread: what stands beside a mean over seeds.
        remarks: what stands below lines, before all else.
    """
    blocks: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        labels = group.labels
        ball = (labels.attack, labels.norm, labels.eps, labels.steps)
        blocks.setdefault(canonical([ball, labels.attack_settings]), []).append(place)
    return [
        _sheet(own, [leads[k] for k in places], spread, remarks(own), bold=any(leads))
        for places in blocks.values()
        for own in [[groups[k] for k in places]]
    ]


def _sheet(
    groups: Sequence[Group],
    leads: Sequence[Sequence[str]],
    spread: str,
    remarks: Sequence[str],
    *,
    bold: bool,
) -> Sheet:
    """Return the table of one attack; `bold`: some line of the document leads."""
    labels = [group.labels for group in groups]
    words = {
        "Data": [own.data for own in labels],
        "Architecture": [own.arch for own in labels],
        "Method": [called(group) for group in groups],
        "Settings": [settings_of(own) for own in labels],
        "Seeds": [str(group.seeds) for group in groups],
    }
    # What all lines share goes into the caption instead of a column.
    alone = {name: texts[0] for name, texts in words.items() if len(set(texts)) == 1}
    common = [alone[name] for name in ("Data", "Architecture") if name in alone]
    names = [name for name in words if name not in alone or name in ("Method", "Seeds")]
    # Columns without a figure, such as the robust ones of clean evaluations, are left out.
    used = [pair for pair in COLUMNS if any(group.column(*pair).shares for group in groups)]
    rows = []
    for row, (group, led) in enumerate(zip(groups, leads, strict=True)):
        head = [Cell(words[name][row] or NOTHING) for name in names]
        figures = [
            Cell(minus(figure(group, *pair, spread)) or NOTHING, "_".join(pair) in led)
            for pair in used
        ]
        rows.append((*head, *figures))
    robust = sum(what == "robust" for what, _ in used)
    headings = (f"{attack_of(labels[0])} (%)", "Standard accuracy (%)")
    spans = (("", len(names)), (headings[0], robust), (headings[1], len(used) - robust))
    pairs = [(own.data, own.arch) for own in labels]
    beside = _spreads(groups, used, spread)
    return Sheet(
        caption=f"{'; '.join([*common, _attack(labels[0])])}: accuracy in %, {beside}",
        spans=tuple(span for span in spans if span[1]),
        head=(*names, *("Diff." if point == "difference" else point.title() for _, point in used)),
        words=len(names),
        rows=tuple(rows),
        breaks=frozenset(k for k in range(1, len(pairs)) if pairs[k] != pairs[k - 1]),
        notes=(*remarks, *_notes(groups, used), *([RULE] if bold else [])),
    )


def _spreads(groups: Sequence[Group], used: Sequence[tuple[str, str]], spread: str) -> str:
    """Say what stands beside the figures: deviations over seeds, intervals of one run, or both."""
    columns = [group.column(*pair) for group in groups for pair in used]
    several = any(column.sd is not None for column in columns)
    single = any(column.sd is None and column.ci95 for column in columns)
    words = [SPREADS[spread] if several else "", INTERVAL if single else ""]
    return "; ".join(filter(None, words)) or "one run each"


def _attack(labels: Labels) -> str:
    ball = f"{attack_of(labels)}, {labels.norm}, ε = {labels.eps}"
    attack = "clean" if labels.attack == "none" else ball
    return attack + (f", {shown(labels.attack_settings)}" if labels.attack_settings else "")


def source_of(path: str, what: str, info: Mapping[str, object]) -> Source:
    """Return a file's run, what it is, and what its description says of it."""
    names = ("digest", "config", "trained", "implementation", "parents", "environment", "versions")
    return Source(f"{run_name(path)}: {what}", {key: info[key] for key in names if key in info})


def minus(text: str) -> str:
    """Return a figure with the sign that typographers use."""
    return text.replace("-", "−")


def _notes(groups: Sequence[Group], used: Sequence[tuple[str, str]]) -> list[str]:
    """Say over what the figures are: examples, implementation, training ball, seeds."""
    sizes = {f"{group.labels.data} {group.n}" for group in groups}
    notes = [f"test examples: {', '.join(sorted(sizes))}"]
    entries = [entry for group in groups for entry in group.entries]
    infos = [entry.logits.info for entry in entries]
    suites = {
        implementation(info)
        + (f", version {info['config']['version']}" if "version" in info["config"] else "")
        for info in infos
        if "implementation" in info
    }
    notes += [f"attack by {suite}" for suite in sorted(suites)]
    recipes = [info["trained"] for info in infos if info.get("trained")]
    balls = {f"{x['norm']} {x['eps']}" for x in recipes if x.get("eps") and x.get("norm")}
    notes += [f"trained within {', '.join(sorted(balls))}"] if balls else []
    notes += [f"seeds {', '.join(sorted({str(entry.seed) for entry in entries}))}"]
    columns = [(group, group.column(*pair)) for group in groups for pair in used]
    if any(column.ci95 for _, column in columns):
        notes.append(WILSON)
    if any(0 < len(column.shares) < group.seeds for group, column in columns):
        notes.append(FEWER)
    if any(point == "difference" for _, point in used):
        notes.append(DIFFERENCE)
    notes += [SELECTION] if any(entry.point == "best" for entry in entries) else []
    return notes


def reruns(groups: Sequence[Group], spread: str) -> Sheet | None:
    """Return the figures of each seed, their mean and spread; None where no line has several.

    Source: the layout of ADR, Table 7.
    """
    several = [group for group in groups if group.seeds > 1]
    used = [pair for pair in ACCURACIES if any(group.column(*pair).shares for group in several)]
    if not several or not used:
        return None
    blocks = [_reruns_of(group, used, spread) for group in several]
    head = [f"{'Robust' if what == 'robust' else 'Standard'} {point}" for what, point in used]
    return Sheet(
        caption="Reruns: accuracy in % of each seed, their mean and spread",
        spans=(("", 5), ("Accuracy (%)", len(used))),
        head=("Data", "Architecture", "Method", "Attack", "Run", *head),
        words=5,
        rows=tuple(row for block in blocks for row in block),
        breaks=frozenset(accumulate(len(block) for block in blocks[:-1])),
        notes=("variance: of the sample, in squared points, divided by seeds − 1",)
        if spread == "variance"
        else (),
    )


def _reruns_of(
    group: Group, used: Sequence[tuple[str, str]], spread: str
) -> list[tuple[Cell, ...]]:
    labels, columns = group.labels, [group.column(*pair) for pair in used]
    place = (labels.data, labels.arch, name_of(group), attack_of(labels))
    seeds = dict.fromkeys(seed for point in POINTS for seed in group.of_point(point))
    lines = [(f"seed {seed}", [_of_seed(group, *pair, seed) for pair in used]) for seed in seeds]
    lines.append(("mean", [_percent(column.mean) for column in columns]))
    lines.append((spread, [_end(column, spread) for column in columns]))
    return [tuple(Cell(cell) for cell in (*place, name, *cells)) for name, cells in lines]


def _of_seed(group: Group, what: str, point: str, seed: int | None) -> str:
    entry = group.of_point(point).get(seed)
    count = entry.hits[what] if entry else None
    return _percent(None if count is None else count / group.n)


def _end(column: Column, spread: str) -> str:
    if column.variance is None:
        return NOTHING
    return _range(column) if spread == "range" else f"{column.variance * 1e4:.3f}"


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{share * 100:.2f}"
