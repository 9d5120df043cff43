"""Seeded damage to files: what disks, networks, editors and attackers do to bytes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 2**15 - 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1,
           2**40, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
"""Lengths and offsets that readers get wrong."""
WORDS = (b'"', b"{", b"[", b"NaN", b"1e999", b"-1", b"null", b"\xff\xfe", b"\n", b"\0", b"\t",
         b"..", b"/", b"\\ud800", b"9" * 5000, b"[" * 20000, b'{"a":' * 20000)  # fmt: skip
"""Pieces of text that readers of text get wrong."""
EDGE = 600
"""Bytes at both ends of a file, where formats keep their headers, that are hit more often."""


def mutated(raw: bytes, other: bytes, seed: str) -> tuple[bytes, str]:
    """Return `raw` damaged in one to four ways, and how; the same for the same seed.

    Args:
        raw: a valid file.
        other: another valid file of the format, to splice with.
        seed: of the draws.
    """
    draw = Random(seed)
    names = draw.choices(list(KINDS), k=draw.choice((1, 1, 1, 2, 3, 4)))
    for name in names:
        raw = KINDS[name](bytearray(raw), other, draw)
    return raw, "+".join(names)


def _place(raw: bytes | bytearray, draw: Random) -> int:
    """Return a position, at the ends more often than in the middle."""
    end = max(len(raw) - 1, 0)
    low, high = draw.choice(((0, end), (0, end), (0, min(EDGE, end)), (max(end - EDGE, 0), end)))
    return draw.randint(low, high)


def _range(raw: bytes | bytearray, draw: Random) -> tuple[int, int]:
    """Return start and end of a region, short ones more often."""
    start = _place(raw, draw)
    return start, min(len(raw), start + draw.choice((1, 2, 4, 8, draw.randint(1, len(raw) or 1))))


def _flip(raw: bytearray, other: bytes, draw: Random) -> bytes:
    for _ in range(draw.choice((1, 1, 2, 8))):
        if raw:
            raw[_place(raw, draw)] ^= 1 << draw.randrange(8)
    return bytes(raw)


def _set(raw: bytearray, other: bytes, draw: Random) -> bytes:
    start, end = _range(raw, draw)
    raw[start:end] = bytes([draw.choice((0, 1, 0x20, 0x7F, 0x80, 0xFF))]) * (end - start)
    return bytes(raw)


def _truncate(raw: bytearray, other: bytes, draw: Random) -> bytes:
    return bytes(raw[: _place(raw, draw)])


def _splice(raw: bytearray, other: bytes, draw: Random) -> bytes:
    """Begin as one file and go on as the other."""
    cut = _place(raw, draw)
    return bytes(raw[:cut]) + other[draw.choice((cut, _place(other, draw))) :]


def _transplant(raw: bytearray, other: bytes, draw: Random) -> bytes:
    """Put a region of the other file in the same place."""
    start, end = _range(raw, draw)
    raw[start:end] = other[start:end]
    return bytes(raw)


def _duplicate(raw: bytearray, other: bytes, draw: Random) -> bytes:
    start, end = _range(raw, draw)
    return bytes(raw[:end] + raw[start:])


def _drop(raw: bytearray, other: bytes, draw: Random) -> bytes:
    start, end = _range(raw, draw)
    return bytes(raw[:start] + raw[end:])


def _swap(raw: bytearray, other: bytes, draw: Random) -> bytes:
    """Exchange two regions of equal length."""
    first, second = sorted((_place(raw, draw), _place(raw, draw)))
    size = min(draw.choice((1, 4, 8, 64, 512)), second - first, len(raw) - second)
    one, two = raw[first : first + size], raw[second : second + size]
    raw[first : first + size], raw[second : second + size] = two, one
    return bytes(raw)


def _number(raw: bytearray, other: bytes, draw: Random) -> bytes:
    """Overwrite a length, an offset or what may be one."""
    size = draw.choice((1, 2, 4, 8))
    start = _place(raw, draw) // size * size if draw.random() < 0.5 else _place(raw, draw)
    found = int.from_bytes(raw[start : start + size], "little")
    value = draw.choice((*NUMBERS, found + 1, found - 1, found * 2, len(raw)))
    raw[start : start + size] = (value % 256**size).to_bytes(size, draw.choice(("little", "big")))
    return bytes(raw)


def _digits(raw: bytearray, other: bytes, draw: Random) -> bytes:
    """Overwrite a digit, which is what numbers in text are made of."""
    places = [place for place, byte in enumerate(raw) if 0x30 <= byte <= 0x39]
    if places:
        raw[draw.choice(places)] = draw.choice(b"0123456789eE.-")
    return bytes(raw)


def _insert(raw: bytearray, other: bytes, draw: Random) -> bytes:
    place = _place(raw, draw)
    word = draw.choice((*WORDS, draw.randbytes(draw.choice((1, 3, 8, 200)))))
    return bytes(raw[:place] + word + raw[place:])


KINDS: dict[str, Callable[[bytearray, bytes, Random], bytes]] = {
    "flip": _flip, "set": _set, "truncate": _truncate, "splice": _splice,
    "transplant": _transplant, "duplicate": _duplicate, "drop": _drop, "swap": _swap,
    "number": _number, "digits": _digits, "insert": _insert,
}  # fmt: skip
