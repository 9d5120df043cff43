#!/usr/bin/env bash
# What ADR, LTD, TRADES, AWP and weight averaging do on real images: trained, attacked (PGD-20,
# APGD-CE+T, AutoAttack for the rows that carry the papers' claims), compared in pairs, and the shelf's
# figures of their outputs and weights, in FOLDER/summary. docs/results.md is made of that.
#
#   DATA=folder:DIR study.sh [FOLDER]
#
#   SCALE=cpu|gpu; SEEDS, JOBS, EPOCHS, TRAIN, SMOKE as in _study.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_study.sh"

begin study "${1:-}"

run natural pgd,fast natural
work
label natural

soft='--soft-labels LABELS --temperature'
shared
run ltd-T5     pgd,fast/best/final/best-ema,autoattack/best ltd-wa $soft 5
run ltd-T8     pgd,fast,autoattack/best                    ltd $soft 8
run adr-awp    pgd,fast/best/final/best-ema,autoattack/best-ema adr-awp-wa
run at-awp     pgd,fast/best/final/best-ema                at-awp-wa
run ltd-T5-awp pgd,fast/best/final/best-ema                ltd-awp-wa $soft 5
run ls         pgd,fast                                    ls
run trades     pgd,fast,autoattack/best                    trades
run trades-adr pgd,fast                                    trades-adr
run ltd-T1     pgd,fast                                    ltd $soft 1
run ltd-T2     pgd,fast                                    ltd $soft 2
run ltd-T20    pgd,autoattack/best                         ltd $soft 20
work
source "$(dirname "${BASH_SOURCE[0]}")/_summary.sh"

# What docs/results.md is made of.
rows='at ls adr trades trades-adr ltd-T1 ltd-T2 ltd-T5 ltd-T8 ltd-T20 at-awp adr-awp ltd-T5-awp'
averaged='at adr ltd-T5 at-awp adr-awp ltd-T5-awp'
ltd='ltd-T1 ltd-T2 ltd-T5 ltd-T8'
# shellcheck disable=SC2046,SC2086  # rows are meant to split
{
    for attack in pgd fast autoattack; do
        table $attack natural $rows
    done
    against fast $(points best at ls adr $ltd at-awp) $(points best-ema $averaged)
    against autoattack $(points best at adr ltd-T5) $(points best-ema at adr-awp)
    against autoattack $(points best trades ltd-T5 ltd-T8 ltd-T20)
    against autoattack $(points best ltd-T5 ltd-T8 ltd-T20)
    for point in best final; do
        against fast $(points $point trades trades-adr $ltd)
    done
    against fast $(points final at ls adr at-awp)
    against fast $(points best-ema adr-awp at-awp ltd-T5-awp)
    for row in at adr ltd-T5; do
        against fast $row/best $row-awp/best $row/best-ema
        against fast $row/best-ema $row-awp/best-ema
    done
    for row in $rows; do
        against fast "$row/best" "$row/final"
    done
    for analysis in entropy divergence calibration; do
        each $analysis pgd $(points best natural $rows) $(points final at adr)
    done
    findings at adr ltd-T5
    landscape at adr at-awp adr-awp
    picture table fast $(points best $rows) $(points best-ema $averaged)
    for analysis in entropy calibration; do
        picture $analysis pgd $(points best natural at adr ltd-T5)
    done
}
conclude
