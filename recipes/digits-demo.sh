#!/usr/bin/env bash
# What adversarial training buys, in minutes on two cores: natural training, PGD-AT and ADR on
# the digits, full AutoAttack on each at one epsilon, a table side by side, and pictures.
#
#   digits-demo.sh [FOLDER]     LIMIT=200 test images, SEED=0, SMOKE=1 for a trial
#
# Run it again and it finds its work done.
set -euo pipefail
case ${1:-} in -*) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"; exit 0 ;; esac

out=${1:-demo}
limit=${LIMIT:-200}
seed=${SEED:-0}
train=''
if [ -n "${SMOKE:-}" ]; then train='--epochs 4 --limit 400 --batch-size 32 --width 8' limit=20; fi
mkdir -p "$out"

one() {
    # shellcheck disable=SC2086  # the option strings are meant to split
    advkit train --data digits --method "$1" --seed "$seed" $train --resume -o "$out/$1-s$seed" $2 |
        advkit attack --autoattack --limit "$limit" $2 > "$out/$1-s$seed.jsonl"
}

# One thread each: the nets are tiny, and two runs share the two cores. The one in the background
# keeps quiet, so that progress stays readable.
one at -q &
at=$!
one natural ''
one adr ''
wait "$at"

records=("$out/natural-s$seed.jsonl" "$out/at-s$seed.jsonl" "$out/adr-s$seed.jsonl")
cat "${records[@]}" | advkit analyze table -o "$out/table.csv" --picture summary \
    --plot "$out/summary.png" > "$out/table.jsonl"
cat "${records[@]}" | advkit analyze calibration -q --plot "$out/reliability.png" \
    > "$out/calibration.jsonl"
cat "${records[@]}" | advkit analyze entropy -q --plot "$out/entropy.png" > "$out/entropy.jsonl"
cat "${records[@]}" | advkit analyze divergence -q --plot "$out/divergence.png" \
    > "$out/divergence.jsonl"
echo "pictures: $out/summary.png $out/reliability.png $out/entropy.png $out/divergence.png" >&2
