#!/usr/bin/env bash
# ADR's Table 6: what an epoch of AT costs, and what ADR and AWP add to it.
#
#   adr-table6.sh [FOLDER]
#
#   EPOCHS=3        epochs timed in each run (the first one is left out of the median)
#   DATA="cifar10 cifar100 tinyimagenet"  ARCH="resnet18 wrn-34-10"; PRESET, TRAIN, SMOKE as in
#   _table.sh. One run at a time, or they would time each other.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_table.sh"

start "${1:-runs/adr-table6}"
jobs=1
train="$train --epochs ${EPOCHS:-3}"
one() {
    local name=$1
    shift
    # shellcheck disable=SC2086
    advkit train -q "$@" $preset $train --resume -o "$out/$name" \
        > "$out/$name.jsonl.new"
    mv "$out/$name.jsonl.new" "$out/$name.jsonl"
    echo "done: $name" >&2
}
for data in ${DATA:-cifar10 cifar100 tinyimagenet}; do
    for arch in ${ARCH:-resnet18 wrn-34-10}; do
        for method in at adr at-awp adr-awp; do
            row "$data" "$arch" "$method"
        done
    done
done
work
cut -d ' ' -f 1 "$plan" | while read -r name; do cat "$out/$name.jsonl"; done |
    advkit analyze cost -o "$out/cost.csv" --overwrite > "$out/cost.jsonl"
echo "table: $out/cost.csv" >&2
