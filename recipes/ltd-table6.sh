#!/usr/bin/env bash
# LTD's Table 6: λ, the weight of the robust term, with AWP on CIFAR-100.
#
#   TEMPERATURE=2 ltd-table6.sh [FOLDER]
#
#   TEMPERATURE     the paper does not state it, so it must be given (see `advkit search`)
#   BETAS="3 4 5 6 7"  DATA=cifar100  ARCH=wrn-34-10  VIEWS=all; SEEDS, JOBS, PRESET, LIMIT, ATTACK,
#   TRAIN, SMOKE as in _table.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_table.sh"

start "${1:-runs/ltd-table6}"
: "${TEMPERATURE:=${smoke:+2}}"
need TEMPERATURE 'the paper states no temperature for CIFAR-100'
cold="--temperature $TEMPERATURE"
data=${DATA:-cifar100} arch=${ARCH:-wrn-34-10}
betas=${BETAS:-3 4 5 6 7}
[ -z "$smoke" ] || betas=${BETAS:-6}
label "$data" "$arch"
for beta in $betas; do
    # shellcheck disable=SC2086  # an option and its value
    row "$data" "$arch" ltd-awp --soft-labels "$labels" --beta "$beta" $cold
done
work
finish
