# What adr-experiments.sh and adr-checks.sh share: settings, plan, runs; sourced, not run. _summary.sh has the rest.
#
#   SCALE=cpu       DATA=folder:DIR of 32×32 images, averaged to 16×16: an hour or two on two cores; why
#                   each of the numbers below is what it is, docs/results.md says
#   SCALE=gpu       DATA=cifar10, ResNet-18, the papers' numbers; EPOCHS=200, ATTACKED= first N test
#                   images, all if empty
#   SEEDS="0 1"     JOBS=2 runs at a time      TRAIN=  more options of every training
#   RUNS=only       train and attack, and leave the summary for another time
#   SMOKE=1         a trial in minutes: digits, four epochs of a tiny net, one seed
#
# Recipes that share a FOLDER share its runs. Run one again and it goes on where it was.

begin() {  # PART FOLDER: settings, folders and an empty plan
    case ${2:-} in -*) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"; exit 0 ;; esac
    out=${2:-runs/study}
    summary=$out/summary/$1
    plan=$out/$1.plan.txt
    seeds=${SEEDS:-0 1}
    jobs=${JOBS:-2}
    scale=${SCALE:-cpu}
    robust='' average=''
    [ -z "${SMOKE:-}" ] || scale=smoke
    mkdir -p "$summary"
    rm -f "$summary"/*.new
    : > "$plan"
    case $scale in
        smoke)
            data=digits seeds=${SEEDS:-0} limit=20
            shape='--arch small-cnn --width 8'
            train='--epochs 4 --limit 400 --batch-size 32'
            average='--ema-decay 0.9'
            ;;
        cpu)
            case ${DATA:-} in
                folder:*) few "${DATA#folder:}" ;;
                *) refuse "give DATA=folder:DIR with DIR/train and DIR/test, or SCALE=gpu" ;;
            esac
            data=folder:$out/images limit=1000
            shape='--arch resnet8 --width 16 --image-size 16'
            train='--val-size 200 --epochs 80 --batch-size 32'
            robust='--attack-steps 5'
            average='--ema-decay 0.98'  # of the weight average, ADR's teacher
            ;;
        gpu)
            data=${DATA:-cifar10} limit=${ATTACKED:-} jobs=${JOBS:-1}
            shape='--arch resnet18'
            train="--epochs ${EPOCHS:-200} --amp"
            ;;
        *) refuse "SCALE=$scale: cpu or gpu" ;;
    esac
    train="$train ${TRAIN:-}"
    [ "$scale" = gpu ] || export OMP_NUM_THREADS=1
    export out limit
    printf '{"scale": "%s", "shape": "%s", "train": "%s", "robust": "%s", "average": "%s", "limit": "%s"}\n' \
        "$scale" "$shape" "$train" "$robust" "$average" "$limit" > "$out/summary/settings.json"
}

refuse() {  # WHY
    echo "$(basename "$0"): $1" >&2
    exit 2
}

few() {  # DIR: a folder of links to the first images of each class, so that no run decodes them all
    local from split class count place image
    from=$(cd "$1" && pwd)
    if [ -e "$out/images.from" ] && [ "$(cat "$out/images.from")" != "$from" ]; then
        refuse "$out has the images of $(cat "$out/images.from"): name another FOLDER for $from"
    fi
    for split in train:70 test:100; do
        count=${split#*:} split=${split%:*}
        for class in "$from/$split"/*/; do
            place=$out/images/$split/$(basename "$class")
            [ ! -d "$place" ] || continue
            mkdir -p "$place.new"
            (cd "$class" && printf '%s\n' *) | LC_ALL=C sort | sed -n "1,${count}p" |
                while read -r image; do ln -sf "$class$image" "$place.new/$image"; done
            [ "$(cd "$place.new" && printf '%s\n' * | wc -l)" -eq "$count" ] ||
                refuse "$class: wanted $count images"
            mv "$place.new" "$place"
        done
    done
    echo "$from" > "$out/images.from"
}

run() {  # NAME ATTACKS METHOD [OPTION...]: a line of the plan for every seed
    local name=$1 attacks=$2 method=$3 seed
    shift 3
    for seed in $seeds; do  # xargs would join a line that ends in a space to the next
        echo "$name-s$seed" "$attacks" --method "$method" --seed "$seed" "$@" >> "$plan"
    done
}

shared() {  # the two rows that every recipe has
    run at  pgd,fast/best/final/best-ema,autoattack/best/best-ema at-wa
    run adr pgd,fast/best/final/best-ema,autoattack/best adr-wa
}

one() {  # NAME ATTACKS OPTION...: train a run and attack its checkpoints; nothing if that is done
    local name=$1 attacks=$2 asked="$shape $train $robust $average $limit $*" stage="train $robust"
    local each point paths
    shift 2
    [ "$(cat "$out/$name.done" 2> /dev/null)" != "$asked" ] || return 0
    case $2 in *-wa | *adr*) stage="$stage $average" ;; esac
    # shellcheck disable=SC2086  # the option strings are meant to split
    step "$name" train advkit $stage -q --data "$data" $shape $train "$@" --resume -o "$out/$name"
    for each in ${attacks//,/ }; do  # such as pgd, or autoattack/best/best-ema for only these
        paths=()
        case $each in
            */*) for point in $(echo "${each#*/}" | tr / ' '); do paths+=("$out/$name/$point.safetensors"); done ;;
            *) paths=("$out/$name/"{best,final}*.safetensors) ;;
        esac
        each=${each%%/*}
        # shellcheck disable=SC2046,SC2086
        step "$name" "$each" advkit attack -q $(options "$each") ${limit:+--limit $limit} "${paths[@]}"
    done
    echo "$asked" > "$out/$name.done"
    echo "done: $name" >&2
}

options() {  # ATTACK
    case $1 in pgd) echo --attack pgd --loss ce ;; *) echo "--$1" ;; esac
}

step() {  # NAME WHAT COMMAND...: keep its records and its seconds
    local name=$1 what=$2 began=$SECONDS
    shift 2
    "$@" > "$out/$name.$what.jsonl.new"
    mv "$out/$name.$what.jsonl.new" "$out/$name.$what.jsonl"
    printf '{"run": "%s", "what": "%s", "seconds": %d}\n' "$name" "$what" $((SECONDS - began)) >> "$out/hours.jsonl"
}

work() {  # do the plan, JOBS runs at a time
    export -f one step options
    export data shape train robust average
    xargs -P "$jobs" -L 1 bash -euo pipefail -c 'one "$@"' _ < "$plan" || {
        echo "some runs failed (see above). Run it again to go on" >&2
        exit 1
    }
}
