"""Methods as papers print them: PGD-AT, TRADES, AT+ADR, TRADES+ADR+AWP+WA."""

from __future__ import annotations

from advkit.config import methods
from advkit.errors import UsageError

OBJECTIVES = {
    "natural": "Natural",
    "at": "AT",
    "trades": "TRADES",
    "mart": "MART",
    "rslad": "RSLAD",
    "ard": "ARD",
    "score": "SCORE",
    "adaad": "AdaAD",
    "iad": "IAD",
    "hat": "HAT",
    "kd": "KD",
    "igdm": "IGDM",
    "saad": "SAAD",
    "sat": "SAT",
    "te": "AT+TE",
    "ikl": "IKL-AT",
}
LABELS = {"onehot": "", "smoothing": "LS", "adr": "ADR", "soft": "soft labels"}
PLAIN = "PGD-AT"
"""Adversarial training with nothing more: alone it has a longer name than among others."""
TAUGHT = ("rslad", "ard")
"""Methods whose names say already that the labels are a teacher's."""


def method(name: str, train_attack: str = "pgd") -> str:
    """Return a method's name as papers print it; one that nobody knows stays as it is.

    Args:
        name: as `--method` takes it.
        train_attack: what it was trained against; of another one than PGD, `at` is no PGD-AT.

    >>> [method(name) for name in ("at", "adr", "trades-adr-awp-wa", "ltd", "trades+smoothing")]
    ['PGD-AT', 'AT+ADR', 'TRADES+ADR+AWP+WA', 'TRADES+LTD', 'TRADES+LS']
    """
    try:
        choices = methods.parse(name)
    except UsageError:
        return name
    if (choices.objective, choices.labels) == methods.BASES["ltd"]:
        added = "LTD"
    elif choices.objective in TAUGHT and choices.labels == "soft":
        added = ""
    else:
        added = LABELS.get(choices.labels, choices.labels)
    words = [OBJECTIVES.get(choices.objective, choices.objective), added]
    words += ["AWP" if choices.awp else "", "WA" if choices.wa else ""]
    text = "+".join(filter(None, words))
    return PLAIN if text == OBJECTIVES["at"] and train_attack == "pgd" else text
