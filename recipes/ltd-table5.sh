#!/usr/bin/env bash
# LTD's Table 5: λ, the weight of the robust term, with AWP on CIFAR-10.
#
#   ltd-table5.sh [FOLDER]
#
#   BETAS="3 4 5 6 7"  DATA=cifar10  ARCH=wrn-34-10  VIEWS=all; SEEDS, JOBS, PRESET, LIMIT, ATTACK,
#   TRAIN, SMOKE as in _table.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_table.sh"

start "${1:-runs/ltd-table5}"
cold=${TEMPERATURE:+--temperature $TEMPERATURE}
data=${DATA:-cifar10} arch=${ARCH:-wrn-34-10}
betas=${BETAS:-3 4 5 6 7}
[ -z "$smoke" ] || betas=${BETAS:-6}
label "$data" "$arch"
for beta in $betas; do
    # shellcheck disable=SC2086  # an option and its value
    row "$data" "$arch" ltd-awp --soft-labels "$labels" --beta "$beta" $cold
done
work
finish
