"""The lines of `table` as text for a terminal and as tables for a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from advkit.analyses.gathering.groups import POINTS, implementation, shown
from advkit.analyses.tables.leads import RULE, Line, right
from advkit.artifacts.document import NOTHING, Cell, Sheet, aligned
from advkit.artifacts.provenance import canonical
from advkit.evaluation.settings import SUITES

HEAD = (
    "data",
    "arch",
    "method",
    "settings",
    "attack",
    "norm",
    "eps",
    "n",
    "seeds",
    "robust best %",
    "robust final %",
    "difference",
    "clean best %",
    "clean final %",
    "difference",
)
COLUMNS = [(what, point) for what in ("robust", "clean") for point in (*POINTS, "difference")]
SPREADS = {
    "sd": "mean ± sample standard deviation over seeds",
    "variance": "mean (sample variance over seeds, in squared points)",
    "range": "mean (least to greatest over seeds)",
}
FEWER = "a number in round brackets: over how many seeds, where some lack that figure"
DIFFERENCE = "difference: best − final of each seed that has both"
SELECTION = (
    "best: the checkpoint of highest PGD accuracy on the validation split; the test set had no say"
)
WILSON = (
    "[low, high]: 95 % Wilson interval of one run over its test examples, training noise not in it"
)


def text(groups: Sequence[Mapping[str, Any]], spread: str) -> str:
    """Return the groups as aligned text, accuracies in percent, without empty columns."""
    lines = [_line(group, spread) for group in groups]
    kept = [place for place in range(len(HEAD)) if any(line[place] for line in lines)]
    return aligned([[line[place] or "-" for place in kept] for line in (HEAD, *lines)])


def _line(group: Mapping[str, Any], spread: str) -> tuple[str, ...]:
    attack = group["attack"] + (f"-{group['steps']}" if group["steps"] else "")
    if group["attack_settings"]:
        attack += f" ({shown(group['attack_settings'])})"
    names = (group["data"], group["arch"], method_of(group), settings_of(group), attack)
    sizes = (group["norm"] or "", group["eps"] or "", str(group["n"]), str(group["seeds"]))
    cells = [figure(group, f"{what}_{point}", spread) for what, point in COLUMNS]
    return (*names, *sizes, *cells)


def method_of(group: Mapping[str, Any]) -> str:
    """Return the method, and whose weights, where they are not those that its name promises."""
    name = str(group["method"])
    promised = (group["weights"] == "average") == name.endswith("-wa")
    return name if promised else f"{name} ({group['weights']})"


def settings_of(group: Mapping[str, Any]) -> str:
    """Return the settings that tell a group from others of its method."""
    told = shown(group["settings"])
    if group["settings_recorded"]:
        return told
    return f"{told}; others not recorded" if told else "others not recorded"


def name_of(group: Mapping[str, Any]) -> str:
    """Return method and settings in a few words."""
    return ", ".join(word for word in (method_of(group), settings_of(group)) if word)


def attack_of(group: Mapping[str, Any]) -> str:
    """Return the attack as a paper calls it: AutoAttack, PGD-50."""
    name = SUITES.get(group["attack"], str(group["attack"]).upper())
    return f"{name}-{group['steps']}" if group["steps"] else name


def figure(group: Mapping[str, Any], name: str, spread: str) -> str:
    """Return a figure in percent with its spread or interval, and the seeds where some lack it."""
    mean = group[f"{name}_mean"]
    if mean is None:
        return ""
    told = f"{mean * 100:.2f}"
    if group[f"{name}_sd"] is not None:
        told += _spread(group, name, spread)
    elif group.get(f"{name}_ci95"):
        told += " [{:.1f}, {:.1f}]".format(*(end * 100 for end in group[f"{name}_ci95"]))
    few = group[f"{name}_seeds"] != group["seeds"]
    return told + (f" ({group[f'{name}_seeds']})" if few else "")


def _spread(group: Mapping[str, Any], name: str, spread: str) -> str:
    if spread == "variance":
        return f" (var {group[f'{name}_variance'] * 1e4:.4g})"
    if spread == "range":
        return f" ({group[f'{name}_min'] * 100:.2f} to {group[f'{name}_max'] * 100:.2f})"
    return f" ± {group[f'{name}_sd'] * 100:.2f}"


def sheets(lines: Sequence[Line], leads: Sequence[Sequence[str]], spread: str) -> list[Sheet]:
    """Return a table for each attack: its methods, and best, final and difference of each."""
    blocks: dict[str, list[int]] = {}
    for place, line in enumerate(lines):
        labels = [line.plain[x] for x in ("attack", "norm", "eps", "steps", "attack_settings")]
        blocks.setdefault(canonical(labels), []).append(place)
    return [_sheet(lines, places, leads, spread) for places in blocks.values()]


def _sheet(
    lines: Sequence[Line], places: Sequence[int], leads: Sequence[Sequence[str]], spread: str
) -> Sheet:
    groups = [lines[place].plain for place in places]
    first = groups[0]
    words = {
        "Data": [str(group["data"]) for group in groups],
        "Architecture": [str(group["arch"]) for group in groups],
        "Method": [method_of(group) for group in groups],
        "Settings": [settings_of(group) for group in groups],
        "Seeds": [str(group["seeds"]) for group in groups],
    }
    alone = {name: of[0] for name, of in words.items() if len(set(of)) == 1}
    told = [alone[name] for name in ("Data", "Architecture") if name in alone]
    kept = [name for name in words if name not in alone or name in ("Method", "Seeds")]
    used = [
        pair for pair in COLUMNS if any(g["_".join(pair) + "_mean"] is not None for g in groups)
    ]
    rows = []
    for row, place in enumerate(places):
        head = [Cell(words[name][row] or NOTHING) for name in kept]
        cells = [
            Cell(minus(figure(groups[row], name, spread)) or NOTHING, name in leads[place])
            for name in map("_".join, used)
        ]
        rows.append((*head, *cells))
    robust, clean = (sum(what == each for what, _ in used) for each in ("robust", "clean"))
    spans = [("", len(kept)), (f"{attack_of(first)} (%)", robust), ("Standard accuracy (%)", clean)]
    attack = "clean" if first["attack"] == "none" else f"{attack_of(first)}, {_ball(first)}"
    if first["attack_settings"]:
        attack += f", {shown(first['attack_settings'])}"
    pairs = [(group["data"], group["arch"]) for group in groups]
    return Sheet(
        caption=f"{'; '.join([*told, attack])}: accuracy in %, {SPREADS[spread]}",
        spans=tuple(span for span in spans if span[1]),
        head=(*kept, *("Diff." if point == "difference" else point.title() for _, point in used)),
        words=len(kept),
        rows=tuple(rows),
        breaks=frozenset(k for k in range(1, len(pairs)) if pairs[k] != pairs[k - 1]),
        notes=_notes([lines[place] for place in places], used, leads),
    )


def _ball(group: Mapping[str, Any]) -> str:
    return f"{group['norm']}, ε = {group['eps']}"


def minus(told: str) -> str:
    """Return a figure with the sign that typographers use."""
    return told.replace("-", "−")


def _notes(
    lines: Sequence[Line], used: Sequence[tuple[str, str]], leads: Sequence[Sequence[str]]
) -> tuple[str, ...]:
    """Say over what the figures are: examples, implementation, training ball, seeds."""
    sizes = {f"{line.plain['data']} {line.plain['n']}" for line in lines}
    notes = [f"test examples: {', '.join(sorted(sizes))}"]
    infos = [each.info for line in lines for of in line.files.values() for each in of.values()]
    made = {
        implementation(info)
        + (f", version {info['config']['version']}" if "version" in info["config"] else "")
        for info in infos
        if "implementation" in info
    }
    notes += [f"attack by {each}" for each in sorted(made)]
    trained = [info["trained"] for info in infos if info.get("trained")]
    balls = {f"{t['norm']} {t['eps']}" for t in trained if t.get("eps") and t.get("norm")}
    notes += [f"trained within {', '.join(sorted(balls))}"] if balls else []
    seeds = sorted({str(seed) for line in lines for of in line.files.values() for seed in of})
    notes += [f"seeds {', '.join(seeds)}"]
    told = [(line.plain, "_".join(column)) for line in lines for column in used]
    if any(plain.get(f"{name}_ci95") for plain, name in told):
        notes.append(WILSON)
    if any(0 < plain[f"{name}_seeds"] < plain["seeds"] for plain, name in told):
        notes.append(FEWER)
    if any(point == "difference" for _, point in used):
        notes.append(DIFFERENCE)
    notes += [SELECTION] if any("best" in line.files for line in lines) else []
    notes += [RULE] if any(leads) else []
    return tuple(notes)


def reruns(lines: Sequence[Line], spread: str) -> Sheet | None:
    """Return the figures of each seed, their mean and spread; None where no line has several.

    Source: the layout of ADR, Table 7.
    """
    several = [line for line in lines if line.plain["seeds"] > 1]
    columns = [(what, point) for what in ("robust", "clean") for point in POINTS]
    used = [c for c in columns if any(line.plain["_".join(c) + "_mean"] for line in several)]
    if not several or not used:
        return None
    rows: list[tuple[Cell, ...]] = []
    breaks = []
    for line in several:
        breaks.append(len(rows))
        rows += _reruns_of(line, used, spread)
    head = [f"{'Robust' if w == 'robust' else 'Standard'} {p}" for w, p in used]
    return Sheet(
        caption="Reruns: accuracy in % of each seed, their mean and spread",
        spans=(("", 5), ("Accuracy (%)", len(used))),
        head=("Data", "Architecture", "Method", "Attack", "Run", *head),
        words=5,
        rows=tuple(rows),
        breaks=frozenset(breaks[1:]),
        notes=("variance: of the sample, in squared points, divided by seeds − 1",)
        if spread == "variance"
        else (),
    )


def _reruns_of(line: Line, used: Sequence[tuple[str, str]], spread: str) -> list[tuple[Cell, ...]]:
    plain = line.plain
    place = (plain["data"], plain["arch"], name_of(plain), attack_of(plain))
    rows = []
    seeds = dict.fromkeys(seed for point in POINTS for seed in line.files.get(point, {}))
    for seed in seeds:
        cells = [_of_seed(line, what, point, seed) for what, point in used]
        rows.append((*place, f"seed {seed}", *cells))
    means = [_percent(plain[f"{what}_{point}_mean"]) for what, point in used]
    rows.append((*place, "mean", *means))
    ends = [_end(plain, f"{what}_{point}", spread) for what, point in used]
    rows.append((*place, spread, *ends))
    return [tuple(Cell(text) for text in row) for row in rows]


def _of_seed(line: Line, what: str, point: str, seed: int | None) -> str:
    logits = line.files.get(point, {}).get(seed)
    verdicts = right(logits, what) if logits is not None else None
    return NOTHING if verdicts is None else _percent(int(verdicts.sum()) / len(verdicts))


def _end(plain: Mapping[str, Any], name: str, spread: str) -> str:
    if plain[f"{name}_sd"] is None:
        return NOTHING
    if spread == "range":
        return f"{plain[f'{name}_min'] * 100:.2f} to {plain[f'{name}_max'] * 100:.2f}"
    return f"{plain[f'{name}_variance'] * 1e4:.3f}"


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{share * 100:.2f}"
