#!/usr/bin/env bash
# Three checks of what ADR rests on: a teacher whose weights or logits are corrupted on purpose; other
# shapes of the annealing; what its labels look like under attack beside one-hot ones.
#
#   DATA=folder:DIR adr-checks.sh [FOLDER]
#
#   SCALE=cpu|gpu; SEEDS, JOBS, EPOCHS, TRAIN, SMOKE as in _study.sh, whose runs of AT and ADR
#   it shares in the same FOLDER
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_study.sh"

begin checks "${1:-}"
shared
run adr-logits-4 pgd,fast/best adr --teacher-noise logits:4
run adr-weights  pgd,fast/best adr --teacher-noise weights:0.5
run adr-linear   pgd,fast/best adr --anneal linear
run adr-step     pgd,fast/best adr --anneal step
run adr-constant pgd,fast/best adr --anneal constant
run adr-end      pgd,fast/best adr --tau 2:2 --lambda 0.95:0.95
work
source "$(dirname "${BASH_SOURCE[0]}")/_summary.sh"

rows='at adr adr-logits-4 adr-weights adr-linear adr-step adr-constant adr-end'
# shellcheck disable=SC2046,SC2086  # rows are meant to split
{
    for attack in pgd fast; do table $attack $rows; done
    against fast $(points best adr at adr-logits-4 adr-weights adr-linear adr-step adr-constant adr-end)
    each embedding pgd $(points best at adr)
}
conclude
