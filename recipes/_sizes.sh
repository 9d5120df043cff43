# What study.sh is made of: settings, images of each seed, one run with its summary; sourced, not run.
# Everything is done inside FOLDER by relative paths, so that it can be moved between two starts.

pack="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/_pack.py"

refuse() {  # WHY
    echo "study.sh: $1" >&2
    exit 2
}

absolute() {  # FILE or DIR that is there
    [ -e "$1" ] || refuse "$1 is not there"
    echo "$(cd "$(dirname "$1")" && pwd)/$(basename "$1")"
}

begin() {  # FOLDER: settings; all that follows happens in FOLDER
    case ${1:-} in -*) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"; exit 0 ;; esac
    out=${1:-runs/study}
    jobs=${JOBS:-2} rows=${ROWS:-all} sizes=${SIZES:-S M} rounds=${ROUNDS:-0 1 2 3 4 5} python=${PYTHON:-python3}
    from='' oracle='' elsewhere=''
    "$python" -c 'import advkit' 2> /dev/null || refuse "$python has no advkit: set PYTHON to the one that has"
    [ -z "${ORACLE:-}" ] || oracle=$(absolute "$ORACLE")
    [ -z "${KNOWN:-}" ] || elsewhere=$(absolute "$KNOWN")
    case ${TIME:=} in *[!0-9]*) refuse "TIME=$TIME: minutes, a whole number" ;; esac
    deadline=$(($(date +%s) + 60 * ${TIME:-1000000}))
    robust='--attack-steps 5' average='--ema-decay 0.98'
    S='--epochs 60 --batch-size 32' M='--epochs 20 --batch-size 64' trials=6
    strong='--steps 50' targets='--targets 3' few=500 landscape=500
    # Epochs at which SAT and TE begin what they begin, as shares of the run: those of compare.sh.
    sat='--memory-from 42' te='--ramp 27:45'
    if [ -n "${SMOKE:-}" ]; then
        rounds=${ROUNDS:-0} jobs=${JOBS:-1} rows=${ROWS:-natural at adr ltd-T5 rslad}
        shape='--arch small-cnn --width 8 --limit 300 --val-size 50'
        S='--epochs 2 --batch-size 32' M='--epochs 3 --batch-size 64' trials=2
        robust='--attack-steps 1' average='--ema-decay 0.9' strong='--steps 3' few=20 landscape=20
        sat='--memory-from 1' te='--ramp 1:2' limit='--limit 60'
    else
        case ${DATA:-} in
            folder:*) from=$(absolute "${DATA#folder:}") ;;
            *) refuse "give DATA=folder:DIR with DIR/train and DIR/test, or SMOKE=1" ;;
        esac
        shape='--arch resnet8 --width 16 --image-size 16 --val-size 500' limit=''
    fi
    mkdir -p "$out/summary"
    cd "$out"
    if [ -n "$from" ]; then
        [ "$(cat images.from 2> /dev/null || echo "$from")" = "$from" ] || rm -rf images
        echo "$from" > images.from
    fi
    rm -f summary/*.new late plan.new
    [ -z "$elsewhere" ] || cp -n "$elsewhere"/*.json* summary/ 2> /dev/null || true
    export OMP_NUM_THREADS=1 pack python from oracle deadline shape robust average S M strong targets \
        few landscape limit trials
    export -f settle known timely step net one labels numbers autoattack
}

images() {  # SIZE SEED: a folder of links to the seed's own images and to the 200 first of each test class
    local place=images/$1-s$2 count class
    [ -n "$from" ] && [ ! -d "$place" ] || return 0
    case $1 in S) count=100 ;; M) count=450 ;; esac
    rm -rf "$place.new"
    for class in "$from"/train/*/; do
        class=$(basename "$class")
        linked "$from/train/$class" "$place.new/train/$class" $((count * $2)) "$count"
        linked "$from/test/$class" "$place.new/test/$class" 0 200
    done
    mv "$place.new" "$place"
}

linked() {  # FROM TO SKIP COUNT: links to that many images in order of their names
    mkdir -p "$2"
    (cd "$1" && printf '%s\n' *) | LC_ALL=C sort | sed -n "$(($3 + 1)),$(($3 + $4))p" |
        while read -r image; do printf '%s\0' "$1/$image"; done |
        xargs -0 bash -c 'ln -s "${@:2}" "$1"' _ "$2"
    [ "$(cd "$2" && printf '%s\n' * | wc -l)" -eq "$4" ] || refuse "$1: wanted $4 images after the first $3"
}

settle() {  # SIZE SEED: its data and how long it trains, in `data` and `long`
    data=digits long=$S
    [ -z "$from" ] || data=folder:images/$1-s$2
    [ "$1" = S ] || long=$M
}

known() {  # ID ASKED: whether its summary is there, and of the same settings
    [ -e "summary/$1.json" ] && [[ $(< "summary/$1.json") = *"\"asked\": \"$2\""* ]]
}

timely() {  # ID: whether there is time for it
    [ "$(date +%s)" -lt "$deadline" ] || { echo "$1" >> late; return 1; }
}

step() {  # ID WHAT COMMAND...: keep its records, its seconds and those of the processor
    local id=$1 what=$2 began user system TIMEFORMAT='%U %S'
    began=$(date +%s)
    shift 2
    { time "$@" > "$id.$what.jsonl.new" 2>&3 3>&-; } 3>&2 2> "$id.cpu" || return 1
    mv "$id.$what.jsonl.new" "$id.$what.jsonl"
    read -r user system < "$id.cpu"
    printf '{"run": "%s", "what": "%s", "seconds": %d, "user": %s, "system": %s}\n' \
        "$id" "$what" $(($(date +%s) - began)) "$user" "$system" >> summary/hours.jsonl
}

net() {  # SIZE NAME SEED METHOD [OPTION...]: train it, or find it trained
    local id=$1-$2-s$3 seed=$3 method=$4 stage data long
    settle "$1" "$3"
    shift 4
    case $method in
        natural) stage="pretrain-teacher" ;;
        *) stage="train $robust --method $method" ;;
    esac
    case $method in *-wa | *adr*) stage="$stage $average" ;; esac
    # shellcheck disable=SC2086  # the option strings are meant to split
    step "$id" train advkit $stage -q --data $data $shape $long --seed "$seed" "$@" --resume -o "$id"
}

one() {  # SIZE NAME SEED POINTS FIGURES METHOD [OPTION...]: a run, its attacks, its summary
    local size=$1 name=$2 seed=$3 points=$4 figures=$5 id=$1-$2-s$3 word point words=() paths=()
    local asked data long
    settle "$size" "$seed"
    shift 5
    asked="$shape $long $robust $average $strong $targets $limit $points $figures $*"
    ! known "$id" "$asked" || return 0
    timely "$id" || return 0
    for word; do
        case $word in
            LABELS) word=$size-labels-s$seed.h5 ;;
            TEACHER)
                word=$size-at-s$seed/best.safetensors
                [ -e "$word" ] || net "$size" at "$seed" at-wa
                ;;
        esac
        words+=("$word")
    done
    net "$size" "$name" "$seed" "${words[@]}"
    for point in ${points//,/ }; do paths+=("$id/$point.safetensors"); done
    # shellcheck disable=SC2086
    {
        step "$id" apgd-ce advkit attack -q --attack apgd-ce $strong $limit --data $data "${paths[@]}"
        step "$id" apgd-t advkit attack -q --attack apgd-t $strong $targets $limit --data $data "${paths[@]}"
        [ "$figures" = none ] || step "$id" pgd advkit attack -q --attack pgd --steps 10 --loss ce $limit \
            --data $data "$id/best.safetensors"
    }
    if [[ ,$figures, = *,ood,* ]]; then
        step "$id" photos advkit attack -q --attack none --data photos "$id/best.safetensors"
    fi
    step "$id" pack "$python" "$pack" run "$id" --asked "$asked" --points "$points" --figures "$figures" \
        --data $data --oracle "$oracle" --landscape "$landscape" \
        --out "summary/$id.json"
    echo "done: $id" >&2
}

labels() {  # SIZE natural SEED ID...: the natural net's logits, if one of these runs is still to be done
    local size=$1 seed=$3 file=$1-labels-s$3.h5 id data long
    settle "$size" "$seed"
    for id in "${@:4}"; do [ -e "summary/$id.json" ] || break; id=''; done
    [ -n "$id" ] && timely "$file" || return 0
    [ -e "$size-natural-s$seed/best.safetensors" ] || net "$size" natural "$seed" natural
    step "$size-labels-s$seed" softlabels advkit softlabels -q --views all --dtype float16 -o "$file" \
        --data $data "$size-natural-s$seed/best.safetensors"
}

numbers() {  # SIZE adr-searched SEED: search τ, λ and γ on the images of that seed, once
    local size=$1 seed=$3 file=summary/$1-numbers.json data long
    settle "$size" "$seed"
    [ ! -e "$file" ] || return 0
    timely "$size-numbers" || return 0
    if ! "$python" -c 'import optuna' 2> /dev/null; then
        echo "$size: no search for ADR's numbers: $python lacks optuna" >&2
        return 0
    fi
    # shellcheck disable=SC2086
    step "$size-numbers" search advkit search adr -q --data $data $shape $long $robust \
        --trials "$trials" --seed "$seed" -o "$size-numbers"
    "$python" "$pack" numbers "$size-numbers.search.jsonl" --out "$file"
}

autoattack() {  # SIZE NAME SEED POINT METHOD [OPTION...]: AutoAttack on the first images
    local id=$1-$2-s$3 size=$1 name=$2 seed=$3 point=$4
    local asked="autoattack $few $point" data long
    settle "$size" "$seed"
    shift 4
    ! known "$id.autoattack" "$asked" || return 0
    timely "$id.autoattack" || return 0
    [ -e "$id/$point.safetensors" ] || net "$size" "$name" "$seed" "$@"
    step "$id" autoattack advkit attack -q --autoattack --limit "$few" --data $data \
        "$id/$point.safetensors"
    step "$id" pack-autoattack "$python" "$pack" autoattack "$id" --asked "$asked" --points "$point" \
        --out "summary/$id.autoattack.json"
    echo "done: $id.autoattack" >&2
}

found() {  # SIZE: the options that the search found, or nothing
    [ ! -e "summary/$1-numbers.json" ] || sed -n 's/.*"options": "\([^"]*\)".*/\1/p' "summary/$1-numbers.json"
}

wanted() {  # SIZE NAME: whether the row is, at this size
    [[ " $sizes " = *" $1 "* ]] && { [ "$rows" = all ] || [[ " $rows " = *" $2 "* ]]; }
}

plan() {  # KIND SIZE NAME SEED [WORD...]: a line for `work`, if the row is wanted
    ! wanted "$2" "$3" || add "$@"
}

add() {  # KIND SIZE NAME SEED [WORD...]
    [ -n "${PLAN:-}" ] || images "$2" "$4"
    echo "$@" >> plan.new
}

work() {  # do the lines of the plan, JOBS at a time
    [ -e plan.new ] || return 0
    mv plan.new plan
    if [ -n "${PLAN:-}" ]; then cat plan; return; fi
    xargs -P "$jobs" -L 1 bash -euo pipefail -c '"$@"' _ < plan || {
        echo "some runs failed (see above). Run it again to go on" >&2
        exit 1
    }
}

conclude() {  # what is there, and what was not begun
    [ -z "${PLAN:-}" ] || return 0
    echo "$(find summary -name '*.json' | wc -l) summaries: $out/summary" >&2
    [ ! -e late ] || echo "no time was left for $(wc -l < late) runs: run it again to go on" >&2
}
