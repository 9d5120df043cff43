"""A value from TOML, the command line or Python, brought to its option's type."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from advkit import registry
from advkit.config.settings import options
from advkit.errors import UsageError, brief, unknown
from advkit.options import TEXTS, Option


def coerced(key: str, value: object) -> object:
    """Bring a value from TOML or the command line to its option's type.

    >>> coerced("lr_drops", "100,150"), coerced("eps", 0.5), coerced("lr", 1)
    ([100, 150], '0.5', 1.0)

    Raises:
        UsageError: an unknown key, or a value that does not fit.
    """
    known = {option.name: option for option in options()}
    if key not in known:
        raise registry.blaming(unknown("option", key, known))
    option = known[key]
    fitted = fit(option, value)
    if option.choices and fitted not in option.choices:
        raise unknown(key.replace("_", "-"), str(fitted), option.choices)
    return fitted


def fit(option: Option, value: object) -> Any:
    """Bring a value from TOML, the command line or Python to an option's type.

    Raises:
        UsageError: it does not fit.
    """
    try:
        return _FIT[option.kind](value)
    except (TypeError, ValueError, OverflowError):
        raise option.misread(value) from None


def _integer(value: Any) -> int:
    # True == 1 in Python, and int() cuts 1.5 to 1: neither is a whole number that was meant.
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError
    return int(value)


def _real(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError
    return float(value)


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _words(value: object) -> str:
    text = str(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # how Python holds the bytes of a name that is none
        raise UsageError(
            f"{brief(text)} is not UTF-8 and cannot be kept in a configuration: rename it"
        ) from None
    return text


def _integers(value: Any) -> list[int]:
    words = [word for word in value.split(",") if word] if isinstance(value, str) else value
    return [_integer(word) for word in words]


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise ValueError
    return tuple(value)


_FIT: Mapping[str, Callable[[object], object]] = {
    "int": _integer,
    "float": _real,
    "bool": _boolean,
    "ints": _integers,
    "str": _words,
    TEXTS: _texts,
}
