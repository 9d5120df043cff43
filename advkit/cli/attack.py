"""`advkit attack`: clean and adversarial logits of checkpoints, with verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from advkit import registry
from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli import listing
from advkit.cli.common import options, shards, stage
from advkit.cli.common.options import Call, Command, shown
from advkit.config.machine import Output
from advkit.errors import UsageError, Verdict
from advkit.evaluation.options import AttackOptions, ExampleOptions, ThreatOptions, Which
from advkit.options import StageOptions, declared


@dataclass(frozen=True, kw_only=True)
class Demand(StageOptions):
    """What an evaluation must reach."""

    fail_under: float | None = declared(
        None, "Attack", "exit 8 if robust accuracy is below this", limits="[0, 1]"
    )

    def judge(self, record: Record) -> None:
        """Judge a logits record.

        Raises:
            Verdict: its robust accuracy is lower than demanded.
        """
        robust, least = record["robust_accuracy"], self.fail_under
        if least is not None and robust < least:
            raise Verdict(f"{record['path']}: robust accuracy {robust:.4f} is under {least:g}")


def run(call: Call) -> Iterator[Record]:
    """Evaluate every checkpoint that comes in, or join the shards of one evaluation."""
    shards.check(call)
    demand = call.build(Demand)
    if call.build(options.Merge).merge:
        return _joined(call, demand)
    wanted = call.build(AttackOptions, parts=call.pick(registry.shared_options("attacks")))
    if wanted.attack == "none" and demand.fail_under is not None:
        raise UsageError("--fail-under has no meaning for --attack none")
    once = stage.Once(call, wanted.out)
    return stage.each(
        call,
        "attack",
        ("checkpoint",),
        lambda source: _evaluated(call, wanted, once, source),
        demand.judge,
    )


def _evaluated(
    call: Call, wanted: AttackOptions, once: stage.Once, source: Record
) -> Record | None:
    from advkit.evaluation.stage import evaluate

    path = Path(records.wanted(source, ("checkpoint",)))
    here = replace(wanted, data=stage.data_of(wanted.data, source), out=once.take())
    evaluated = evaluate(path, here, call.reporter("attack"))
    once.used = True  # an input that failed leaves -o to the next one
    return None if evaluated is None else evaluated.record


def _joined(call: Call, demand: Demand) -> Iterator[Record]:
    from advkit.evaluation.stage import join

    pieces, output = shards.inputs(call, "logits"), call.build(Output)
    out = shards.merged_place(output.out, pieces)
    whole = join(pieces, out, overwrite=output.overwrite, reporter=call.reporter("attack"))
    # Only the file says whether it was attacked: --merge is called without --attack.
    if whole.logits.broken_by is None and demand.fail_under is not None:
        raise UsageError("--fail-under has no meaning for --attack none")
    record = whole.record
    yield record
    demand.judge(record)


COMMAND = Command(
    "attack",
    listing.COMMANDS["attack"].help,
    lambda: (
        *shown(Which),
        *shown(ThreatOptions),
        *shown(ExampleOptions),
        *shown(AttackOptions),
        *shown(Demand),
        *shown(options.Merge),
        *registry.shared_options("attacks"),
        options.DATA_ROOT,
        *options.MACHINE,
        options.SHARD,
        options.OUT,
        options.OVERWRITE,
    ),
    run,
    argument="[CHECKPOINT]...",
    listing=("attacks",),
    example="advkit attack runs/digits-small-cnn-adr-s0/best.safetensors --autoattack",
)
