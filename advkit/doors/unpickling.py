"""Unpickles the data of a foreign file, in a process of its own with limits on what it may use.

`python -m advkit.doors.unpickling FILE OUT [KEY]` writes the state dict of FILE as safetensors to
OUT and prints one line of JSON: what it chose, or a code and what is wrong. This is the only place
in the project that calls `torch.load`, and it reads nothing but tensors and plain containers.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from advkit.doors import nests
from advkit.errors import AdvkitError, InputError, brief

SPARE = 256 << 20
"""Bytes of memory beyond those that a file of no weights needs."""
TIMES = 4
"""Bytes of memory for each byte of the file: read, unpacked, copied and written."""


def allowed(size: int) -> int:
    """Return how many seconds a file of so many bytes may take."""
    return 60 + size // (20 << 20)


def limit(size: int) -> None:
    """Bind this process: memory and output by the file's size, seconds too, no core dump."""
    memory = _used() + TIMES * size + SPARE
    seconds = allowed(size)
    bounds = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: TIMES * size + SPARE,
        resource.RLIMIT_CORE: 0,
    }
    for which, most in bounds.items():
        hard = resource.getrlimit(which)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # macOS has no bound on the address space: there time and output alone are bound.
        with suppress(ValueError, OSError):
            resource.setrlimit(which, (most, most))


def _used() -> int:
    """Return the bytes of address space that the imports have taken already."""
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 8 << 30


def load(path: Path, key: str | None, size: int) -> tuple[str, dict[str, Tensor]]:
    """Return (place, state dict) of a PyTorch file of `size` bytes.

    Raises:
        InputError: it is corrupt, names code, or unpacks to more than its size allows.
        UsageError: see `nests.choose`.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "alloc" in str(error) or "memory" in str(error):
            raise InputError("unpacks to more memory than its size allows") from None
        reason = str(error).partition(". This is an internal")[
            0
        ]  # what follows is for torch's makers
        raise InputError(f"truncated or corrupt: {brief(reason)}") from None
    except Exception as error:  # whatever a forged file makes the reader trip over
        if type(error).__name__ == "UnpicklingError":
            raise InputError(_refused(str(error))) from None
        raise InputError(f"truncated or corrupt: {brief(error)}") from None
    place, tensors = nests.choose(loaded, key)
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if total > TIMES * size + (1 << 20):
        raise InputError(f"its tensors unpack to {total} bytes, far more than the file's {size}")
    odd = next((name for name, tensor in tensors.items() if tensor.layout != torch.strided), None)
    if odd is not None or any(tensor.is_quantized for tensor in tensors.values()):
        raise InputError(f"{brief(odd or 'a tensor')} is sparse or quantised: save plain tensors")
    return place, tensors


def _refused(text: str) -> str:
    """Return torch's words about a pickle that is more than data, in one line."""
    code = re.search(r"GLOBAL\s+([\w.]+)|\b((?:\w+\.)+\w+) was not an allowed", text)
    if code:
        name = brief(code[1] or code[2], 80)
        return (
            f"not data alone: it names {name}, which would have to run; nothing of it ran "
            "(save the net's state_dict() alone)"
        )
    if "Unsupported operand" in text:
        return (
            "a pickle that torch.save did not write, or corrupt (torch.save the net's state_dict())"
        )
    # Torch's own advice stands around what it says of the file.
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Check the documentation")] or [text]
    return f"truncated or corrupt, or not data alone: {brief(lines[-1])}"


def main(arguments: list[str]) -> None:
    """Read, write, and print what was done."""
    path, out, *rest = arguments
    torch.set_num_threads(1)  # each thread would take address space
    try:
        size = os.stat(path).st_size
        limit(size)
        place, tensors = load(Path(path), rest[0] if rest else None, size)
        # Cloned one by one: a file may have several views of one storage, safetensors has none.
        plain = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
        save_file(plain, out)
        answer: Mapping[str, object] = {"place": place}
    except AdvkitError as error:
        answer = {"code": error.code, "message": str(error)}
    except MemoryError:
        answer = {"code": InputError.code, "message": "unpacks to more memory than its size allows"}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
