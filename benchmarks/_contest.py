"""Contenders that take turns, each in a process of its own.

What one sets for its process (the allocator, threads) does not reach the others, and all of them
meet the same neighbours: a round is one turn of each, and rounds follow each other.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection

Makers = dict[str, tuple[Callable[..., Callable[[], object]], dict[str, object]]]
"""Name → what makes the run of a turn, and its arguments."""
Turn = tuple[float, float, float]
"""CPU seconds, wall seconds, peak MiB."""


def _serve(
    pipe: Connection, make: Callable[..., Callable[[], object]], arguments: dict[str, object]
) -> None:
    run = make(**arguments)
    pipe.send("ready")
    while pipe.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        seconds = time.process_time() - cpu, time.perf_counter() - wall
        pipe.send((*seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


@contextmanager
def contenders(makers: Makers) -> Iterator[Callable[[str], Turn]]:
    """Start a process for each; the function given lets one take its turn, see `rounds`."""
    context = get_context("spawn")
    pipes, processes = {}, []
    for name, (make, arguments) in makers.items():
        mine, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
        pipes[name] = mine
        mine.recv()

    def turn(name: str) -> Turn:
        pipes[name].send(True)
        seconds: Turn = pipes[name].recv()
        return seconds

    try:
        yield turn
    finally:
        for pipe in pipes.values():
            with suppress(BrokenPipeError):  # one that failed has said so already
                pipe.send(False)
        for process in processes:
            process.join()


def rounds(makers: Makers, count: int) -> dict[str, list[Turn]]:
    """Return (CPU s, wall s, peak MiB) of `count` turns of each; one more warms up, uncounted."""
    from advkit.bench import measure  # not at the top: it would count in every contender's memory

    with contenders(makers) as turn:
        turns = {name: lambda _, name=name: turn(name) for name in makers}
        return measure.in_turn(turns, count)
