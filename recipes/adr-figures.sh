#!/usr/bin/env bash
# ADR's Figures 1, 2, 4, 6 and 7 from three nets: natural, AT and ADR.
#
#   adr-figures.sh [FOLDER]
#
#   FIGURES="1 2 4 6 7"
#     1  entropy on foreign data, natural and AT        OOD=cifar100 (photos for digits; others: needed)
#     2  entropy of right, wrong and attacked outputs; 2e, how far the attack moves them; natural and AT
#     4  loss around the weights, AT and ADR            6  accuracy against eps and steps, ADR, PGD-100
#     7  loss around three images, all
#   DATA=cifar10  ARCH=resnet18  ATTACK="--attack pgd --steps 10 --loss ce"; SEEDS (a set of pictures each), JOBS, PRESET,
#   LIMIT (1000 in 4 and 6 if empty), TRAIN, SMOKE as in _table.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_table.sh"

ATTACK=${ATTACK:---attack pgd --steps 10 --loss ce} METHODS=''
start "${1:-runs/adr-figures}"
data=${DATA:-cifar10} figures=${FIGURES:-1 2 4 6 7}
for figure in $figures; do
    case $figure in [12467]) ;; *) echo "adr-figures.sh: FIGURES=\"1 2 4 6 7\", not $figure" >&2; exit 2 ;; esac
done
case $data in digits) : "${OOD:=photos}" ;; cifar10) : "${OOD:=cifar100}" ;; esac
case $figures in *1*) need OOD 'Figure 1 asks for foreign data' ;; esac
for method in natural at adr; do row "$data" "${ARCH:-resnet18}" "$method"; done
work
finish

run() { sed -n "s/^\([^ ]*-$1-s$seed\) .*/\1/p" "$plan"; }
nets() { local method; for method; do echo "$out/$(run "$method")/best.safetensors"; done; }
outputs() { local method; for method; do grep '/best\.' "$out/$(run "$method").attack.jsonl"; done; }

draw() {  # FIGURE ANALYSIS [OPTION...]: of what standard input names
    local picture=$out/figure$1-s$seed
    shift
    advkit analyze "$@" -q --plot "$picture.png" --overwrite > "$picture.jsonl"
    echo "picture: $picture.png" >&2
}

some=(${limit:+--limit "$limit"})
for seed in $seeds; do
    for figure in $figures; do
        case $figure in
            1) nets natural at | advkit attack -q --attack none --data "$OOD" ${some[@]+"${some[@]}"} \
                > "$out/foreign-s$seed.jsonl"
                { cat "$out/foreign-s$seed.jsonl"; outputs natural at; } | draw 1 ood ;;
            2) outputs natural at | draw 2 entropy
                outputs natural at | draw 2e divergence ;;
            4) nets at adr | draw 4 weight-landscape ${some[@]+"${some[@]}"} ;;
            6) nets adr | draw 6 sweep --steps 100 --loss ce ${some[@]+"${some[@]}"} ;;
            7) nets natural at adr | draw 7 input-landscape ;;
        esac
    done
done
