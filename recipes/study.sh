#!/usr/bin/env bash
# What docs/claims.md asks: AT, ADR, TRADES, LTD and newer methods on 500 and on 4,000 images, 8 seeds or 4.
#
#   DATA=folder:DIR study.sh [FOLDER]
#
#   DATA            CIFAR-10 as images, DIR/train/CLASS and DIR/test/CLASS
#   ORACLE=FILE     CIFAR-10H as CSV, for the discrepancy from people's labels
#   TIME=360        minutes after which no run is begun        JOBS=2   runs at a time
#   KNOWN=DIR       summaries of runs that were done elsewhere: they are not done again
#   ROUNDS="0 1"    parts of the work, of 0 to 5               PYTHON   that has advkit (python3)
#   ROWS="at adr"   only these rows                            SIZES=S  only this size, S or M
#   PLAN=1          print what would be run
#   SMOKE=1         a trial in minutes: digits, few epochs of a tiny net, round 0, few rows
#
# A summary in FOLDER/summary says of each run which test images were right. Stop it anywhere, move
# FOLDER, run it again: it goes on. The order of work is by seeds: rounds 0 to 3 have two seeds of the
# rows with eight and one of the rows with four, round 4 AutoAttack, round 5 the seeds held out.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_sizes.sh"

begin "${1:-}"
soft='--soft-labels LABELS --temperature'

first() {  # SEED: what other runs rest on
    local size method=at
    for size in S M; do
        plan one $size natural "$1" best ood,pgd natural
        [ "$1" -ge 4 ] || method=at-wa points=,best-ema
        plan one $size at "$1" "best,final${points:-}" ood,pgd,oracle,rise $method
        points=''
    done
}

eight() {  # SEED: the other rows with eight seeds
    local size
    for size in S M; do
        plan one $size adr "$1" best,final ood,pgd,oracle,rise adr
        plan one $size trades "$1" best,final pgd,oracle trades
        plan one $size trades-adr "$1" best,final none trades-adr
    done
}

four() {  # SEED: the rows with four
    local size t figures
    for size in S M; do
        plan one $size at-awp "$1" best none at-awp
        plan one $size adr-awp "$1" best-ema none adr-awp-wa
        plan one $size ls "$1" best none ls
        for t in 5 20 1 2; do
            case $t in 5) figures=ood,pgd,oracle ;; 20) figures=pgd,oracle ;; *) figures=none ;; esac
            plan one $size ltd-T$t "$1" best $figures ltd $soft $t
        done
        [ -z "$(found $size)" ] || plan one $size adr-searched "$1" best none adr "$(found $size)"
    done
    plan one S rslad "$1" best none rslad --teacher TEACHER
    plan one S score "$1" best none score
    plan one S ikl "$1" best none ikl
    plan one S sat "$1" best none sat "$sat"
    plan one S te "$1" best none te "$te"
}

for round in $rounds; do
    case $round in
        [0-3])
            for seed in $((2 * round)) $((2 * round + 1)); do first $seed; done
            work
            for size in S M; do
                students=''
                for t in 1 2 5 20; do ! wanted $size ltd-T$t || students+=" $size-ltd-T$t-s$round"; done
                [ -z "$students" ] || add labels $size natural "$round" "$students"
                plan numbers $size adr-searched 10
            done
            work
            for seed in $((2 * round)) $((2 * round + 1)); do eight $seed; done
            four "$round"
            ;;
        4)
            for seed in 0 1 2; do
                for size in S M; do
                    plan autoattack $size at $seed best at-wa
                    plan autoattack $size adr $seed best adr
                    plan autoattack $size trades $seed best trades
                    plan autoattack $size trades-adr $seed best trades-adr
                    plan autoattack $size at-awp $seed best at-awp
                    plan autoattack $size adr-awp $seed best-ema adr-awp-wa
                done
            done
            ;;
        5)
            for seed in 20 21 22 23; do
                plan one S at $seed best,final none at
                plan one S adr $seed best,final none adr
            done
            ;;
        *) refuse "ROUNDS: $round is none of 0 to 5" ;;
    esac
    work
done
conclude
