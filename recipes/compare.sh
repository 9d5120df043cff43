#!/usr/bin/env bash
# Methods of robust training side by side under one protocol: the same data, net, epochs, attack and seeds.
#
#   compare.sh [FOLDER]
#
#   DATA=digits  ARCH=small-cnn; METHODS="at adr rslad", all of them by default; EPOCHS=30 on digits,
#   TEMPERATURE=5 of LTD's teacher; SEEDS="0 1 2", JOBS, LIMIT, ATTACK, TRAIN, SMOKE as in _table.sh
#   A method of your own is OBJECTIVE+LABELS of parts that ADVKIT_PARTS names: METHODS="at adr at+mine"
#
# No method has the numbers of its own paper, which were found under other protocols: each has the
# defaults of `advkit train`, and what begins late in a run begins at the same share of this one. The
# robust teacher is PGD-AT, the natural one natural training, both of the same net, seed 0.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_table.sh"

known='at trades mart ls adr trades-adr ltd score rslad ard adaad iad igdm saad hat kd sat te ikl'
export DATA=${DATA:-digits}
METHODS=${METHODS:-$known}
start "${1:-runs/compare}"
preset=''
arch=${ARCH:-resnet18}
if [ -n "$smoke" ]; then epochs=4; else
    case $DATA in digits) epochs=${EPOCHS:-30} ;; *) epochs=${EPOCHS:-200} ;; esac
fi
own=''
for method in $METHODS; do
    case " $known " in *" $method "*) ;; *)
        # Another one has what its own options say by default; advkit tells whether there is such.
        advkit train --data "$DATA" --arch "$arch" --method "$method" --print-config > /dev/null
        own+=" $method" ;;
    esac
done
asked() {  # METHOD...: whether one of them is to be trained
    local method
    for method; do case " $METHODS " in *" $method "*) return 0 ;; esac; done
    return 1
}
at() {  # SHARE in percent: that epoch of the run, at least the first
    local epoch=$((epochs * $1 / 100))
    echo $((epoch > 0 ? epoch : 1))
}
compared() {  # METHOD [OPTION...]: a row of the table
    row "$DATA" "$arch" "$@"
}

train="--epochs $epochs $train"
if asked rslad ard adaad iad igdm saad kd; then
    # shellcheck disable=SC2086  # the option strings are meant to split
    advkit train --data "$DATA" --arch "$arch" --method at $train --resume -o "$out/robust-teacher" \
        > "$out/robust-teacher.jsonl"
fi
robust=$out/robust-teacher/best.safetensors
if asked ltd hat kd; then teach "$DATA" "$arch"; fi
natural=${teacher:-}

for method in at trades mart ls adr trades-adr score ikl; do compared $method; done
for method in $own; do compared "$method"; done
compared ltd --teacher "$natural" --temperature "${TEMPERATURE:-5}"
for method in rslad ard adaad igdm saad; do compared $method --teacher "$robust"; done
compared iad --teacher "$robust" --introspect-from "$(at 30)"
compared hat --natural-teacher "$natural"
compared kd --teacher "$robust" --natural-teacher "$natural"
compared sat --memory-from "$(at 70)"
compared te --ramp "$(at 45):$(at 75)"
work
finish
