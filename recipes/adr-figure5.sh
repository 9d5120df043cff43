#!/usr/bin/env bash
# ADR's Figure 5: constant temperatures τ × constant λ, label smoothing (ADR's limit τ → ∞) and AT
# (λ = 0) beside them, and ADR as it is annealed. A map of robust and of clean accuracy.
#
#   adr-figure5.sh [FOLDER]
#
#   TAUS="1 2 3 4 5"  LAMBDAS="0.1 0.3 0.5 0.7 0.9"   the grid
#   DATA=cifar10 or any other set  ARCH=resnet18; SEEDS, JOBS, LIMIT, ATTACK, TRAIN, SMOKE as in
#   _table.sh. PRESET=paper only: the code has no numbers for label smoothing.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_table.sh"

start "${1:-runs/adr-figure5}"
if [ -n "$smoke" ]; then TAUS='1 2' LAMBDAS='0.3 0.7'; fi
data=${DATA:-cifar10}
arch=${ARCH:-resnet18}
for lambda in ${LAMBDAS:-0.1 0.3 0.5 0.7 0.9}; do
    for tau in ${TAUS:-1 2 3 4 5}; do
        row "$data" "$arch" adr --tau "$tau:$tau" --lambda "$lambda:$lambda"
    done
    row "$data" "$arch" ls --smoothing "$lambda"
done
row "$data" "$arch" at
row "$data" "$arch" adr
work
cut -d ' ' -f 1 "$plan" | while read -r name; do cat "$out/$name.attack.jsonl"; done |
    advkit analyze grid --x lambda --y tau -o "$out/grid.csv" --plot "$out/grid.png" --overwrite \
        > "$out/grid.jsonl"
echo "table: $out/grid.csv, picture: $out/grid.png" >&2
