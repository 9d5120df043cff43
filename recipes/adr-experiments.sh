#!/usr/bin/env bash
# Three steps towards ADR, each beside AT and ADR as it is: trust λ 0.3 and temperature τ 2 held; τ then
# annealed from 3 to 1; λ then annealed from 0.5 to 0.9.
#
#   DATA=folder:DIR adr-experiments.sh [FOLDER]
#
#   SCALE=cpu|gpu; SEEDS, JOBS, EPOCHS, TRAIN, SMOKE as in _study.sh, whose runs of AT and ADR
#   it shares in the same FOLDER
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_study.sh"

begin experiments "${1:-}"
shared
run adr-held  pgd,fast adr --tau 2:2 --lambda 0.3:0.3
run adr-tau   pgd,fast adr --tau 3:1 --lambda 0.3:0.3
run adr-both  pgd,fast adr --tau 3:1 --lambda 0.5:0.9
work
source "$(dirname "${BASH_SOURCE[0]}")/_summary.sh"

rows='at adr adr-held adr-tau adr-both'
# shellcheck disable=SC2046,SC2086  # rows are meant to split
{
    for attack in pgd fast; do table $attack $rows; done
    for point in best final; do
        against fast $(points $point at adr adr-held adr-tau adr-both)
        against fast $(points $point adr-held adr-tau adr-both adr)
    done
    for row in $rows; do against fast $row/best $row/final; done
    for analysis in entropy divergence calibration; do each $analysis pgd $(points best $rows); done
}
conclude
