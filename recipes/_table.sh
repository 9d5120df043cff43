# What the table recipes share; sourced, not run.
#
#   SEEDS="0 1 2"   seeds of every row               JOBS=1    runs at a time
#   PRESET=paper    or repo, on the papers' data     LIMIT=    first N test images; all if empty
#   ATTACK=--autoattack                              TRAIN=    more options of every training
#   DATA, ARCH      data sets and architectures (`NAME` or `NAME:PATH`; ADVKIT_DATA says where)
#   METHODS="at adr"  of the rows, only those of these methods
#   SMOKE=1         a trial in a minute: digits, four epochs of a tiny net, each distinct method
#                   once. It shows that a recipe runs; its numbers mean nothing.
#
# Run a recipe again and it goes on where it was.

start() {  # FOLDER: settings, folders and an empty plan
    case $1 in -*) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"; exit 0 ;; esac
    out=$1
    smoke=${SMOKE:-}
    seeds=${SEEDS:-0}
    preset="--preset ${PRESET:-paper}"
    attack=${ATTACK:---autoattack}
    limit=${LIMIT:-}
    train=${TRAIN:-}
    jobs=${JOBS:-1}
    if [ -n "$smoke" ]; then
        DATA=${DATA:-digits} ARCH=${ARCH:-small-cnn}
        attack=${ATTACK:---attack apgd-ce --steps 5} limit=${LIMIT:-20} jobs=${JOBS:-2}
        train="--epochs 4 --limit 400 --batch-size 32 --width 8 $train"
        export OMP_NUM_THREADS=1
    fi
    if [ "${DATA:-}" = digits ]; then
        ARCH=${ARCH:-small-cnn} jobs=${JOBS:-2}
        export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    fi
    presets "${DATA:-}" || preset=''
    mkdir -p "$out"
    plan=$out/plan.txt
    : > "$plan"
}

presets() {  # DATA...: are there numbers of a paper for one of them? Other data have the defaults
    local data
    for data in ${1:-cifar10}; do
        case ${data%%:*} in cifar10 | cifar100 | tinyimagenet | imagenet) return 0 ;; esac
    done
    return 1
}

quoted() {  # WORD: with backslashes, as xargs reads a word back
    printf '%s\n' "$1" | sed -E 's|[^[:alnum:]_./:=,+-]|\\&|g'
}

row() {  # DATA ARCH METHOD [OPTION...]: one line of the table, for every seed
    local data=$1 arch=$2 method=$3 seed name each options=''
    shift 3
    case " ${METHODS:-$method} " in *" $method "*) ;; *) return 0 ;; esac
    for each; do options="$options $(quoted "$each")"; done
    name=$(printf '%s\n' "$data-$arch-$method$options" |
        sed -E 's/--(soft-labels|teacher|natural-teacher|config) (\\.|[^ \\])+//g; s/--extra-data (\\.|[^ \\])+/extra/' |
        tr -cs '[:alnum:].\n' '-' | sed 's/-*$//')
    data=$(quoted "$data")
    for seed in $seeds; do  # xargs would join a line that ends in a space to the next
        printf '%s\n' "$name-s$seed --data $data --arch $arch --method $method --seed $seed$options"
    done >> "$plan"
}

twin() {  # DATA ARCH METHOD MODEL [OPTION...]: a row with the settings of method MODEL, other labels
    local data=$1 arch=$2 method=$3 model=$4 asked='' file preset=$preset
    shift 4
    file=$out/$(printf '%s\n' "$data-$arch-like-$model" | tr -cs '[:alnum:].\n' '-').toml
    case $model in
        ltd*) asked='--soft-labels none --temperature 1'; set -- --inner kl "$@" ;;  # TRADES' own
        natural) preset=${preset:+--preset paper} ;;  # as the teacher
    esac
    # shellcheck disable=SC2086  # the option strings are meant to split
    advkit train --print-config $preset $asked --data "$data" --arch "$arch" --method "$model" |
        grep -v '^soft_labels' > "$file"
    row "$data" "$arch" "$method" --config "$file" "$@"
}

one() {  # NAME OPTION...: train a run and attack its best and its last checkpoint
    local name=$1 kind='' last='' preset=$preset word
    shift
    for word; do  # a weight-averaged method reports the average; a file of settings has the preset's
        case "$last $word" in "--method "*-wa) kind=-ema ;; "--config "*) preset='' ;; esac
        last=$word
    done
    # shellcheck disable=SC2086  # the option strings are meant to split
    advkit train -q "$@" $preset $train --resume -o "$out/$name" \
        > "$out/$name.jsonl.new"
    mv "$out/$name.jsonl.new" "$out/$name.jsonl"
    # shellcheck disable=SC2086
    advkit attack -q $attack ${limit:+--limit $limit} ${list:+--image-list "$list"} \
        "$out/$name/best$kind.safetensors" "$out/$name/final$kind.safetensors" \
        > "$out/$name.attack.jsonl.new"
    mv "$out/$name.attack.jsonl.new" "$out/$name.attack.jsonl"
    echo "done: $name" >&2
}

teach() {  # DATA ARCH: a teacher for LTD's rows (seed 0), in $teacher
    local name
    name=$(echo "$1-$2-teacher" | tr -cs '[:alnum:].\n' '-')
    # shellcheck disable=SC2086
    advkit pretrain-teacher --data "$1" --arch "$2" ${preset:+--preset paper} $train --resume -o "$out/$name" \
        > "$out/$name.jsonl"
    teacher=$out/$name/best.safetensors
}

label() {  # DATA ARCH: the teacher's labels of every crop and flip, once for all runs, in $labels
    teach "$1" "$2"
    labels=${teacher%/best.safetensors}.h5
    advkit softlabels --data "$1" --views "${VIEWS:-all}" --dtype float16 -o "$labels" "$teacher" \
        > "${labels%.h5}.labels.jsonl"
}

work() {  # do the plan, JOBS runs at a time
    export -f one
    export out preset train attack limit list="${list:-}"
    xargs -P "$jobs" -L 1 bash -euo pipefail -c 'one "$@"' _ < "$plan" || {
        echo "some runs failed (see above): no table. Run it again to go on; if options changed," \
            "name another FOLDER" >&2
        exit 1
    }
}

need() {  # VARIABLE WHY: stop if it is not given
    if [ -z "${!1:-}" ]; then
        echo "$(basename "$0"): $2: give $1=..." >&2
        exit 2
    fi
}

finish() {  # the table: best, final, difference, over seeds
    cut -d ' ' -f 1 "$plan" | while read -r name; do cat "$out/$name.attack.jsonl"; done |
        advkit analyze table -o "$out/table.csv" --overwrite > "$out/table.jsonl"
    echo "table: $out/table.csv" >&2
}
