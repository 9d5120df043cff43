"""Signs in plain letters, for a terminal or a file whose encoding lacks them."""

from __future__ import annotations

import codecs

NAME = "advkit-plain"
"""What `errors=` of a stream is called."""
_TABLE = (
    "→ -> ← <- … ... ± +- − - – - — - · * × x ≤ <= ≥ >= ≠ != ∞ inf ² ^2 ′ ' ’ ' √ sqrt ∇ grad "
    "‖ || ℓ loss ½ 1/2 ₀ 0 ₁ 1 ₂ 2 ₃ 3 α alpha β beta γ gamma δ delta Δ Delta ε eps λ lambda "
    "σ sigma Σ sum τ tau θ theta ρ rho ▁ . ▂ : ▃ - ▄ = ▅ + ▆ * ▇ # █ @"
)
SIGNS = dict(zip(_TABLE.split()[::2], _TABLE.split()[1::2], strict=True))
"""Sign that advkit's own words have → what stands for it in ASCII."""


def substituted(error: UnicodeError) -> tuple[str | bytes, int]:
    """Answer an encoder that lacks signs: plain ones where we have them, else `\\xe9`.

    Names of files may hold any other sign, and no two of them may come to look the same.

    >>> codecs.register_error(NAME, substituted)
    >>> "τ → a é".encode("ascii", NAME)
    b'tau -> a \\\\xe9'

    Raises:
        UnicodeError: it is no encoder that asks.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    known = (SIGNS.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in signs)
    return "".join(known), error.end


def escaped(toml: str, encoding: str | None) -> str:
    r"""Return TOML with escapes for what an encoding lacks, so that its strings stay what they are.

    >>> escaped('data = "folder:/τ é"', "latin-1")
    'data = "folder:/\\U000003c4 é"'
    """
    lacking = set()
    for sign in set(toml):
        try:
            sign.encode(encoding or "utf-8")
        except UnicodeEncodeError:
            lacking.add(sign)
    return toml.translate({ord(sign): f"\\U{ord(sign):08x}" for sign in lacking})


codecs.register_error(NAME, substituted)
