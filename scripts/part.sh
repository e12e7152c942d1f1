#!/usr/bin/env bash
# Stops, starts or kills one part of the cluster that ./run.sh started, in either mode. The other parts go on.
#
#   scripts/part.sh list            prints each part and its state
#   scripts/part.sh stop PART       ends it in order. It stays stopped until it is started
#   scripts/part.sh start PART      starts it if it is stopped, and waits until it is healthy
#   scripts/part.sh restart PART    stops it, starts it, and waits until it is healthy
#   scripts/part.sh kill PART       ends it by SIGKILL, as in a crash. It comes back by itself; `start` waits for it
#
# PART is the name of a service in docker-compose.yml, for example queue. Data, ports and settings stay as they are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/running.sh
. scripts/running.sh
# shellcheck source=scripts/settings.sh
. scripts/settings.sh

HEALTHY_WITHIN_S=120
DIES_WITHIN_S=60

fail() {
    echo "part: $*" >&2
    exit 1
}

# --- Docker -----------------------------------------------------------------------------------------------------------------

# containers [PART]: those of the part, else those of all. Without those of `compose run`.
containers() {
    docker ps --all --quiet --filter "label=com.docker.compose.project=$(scripts/compose.sh project)" \
        --filter label=com.docker.compose.oneoff=False ${1:+--filter "label=com.docker.compose.service=$1"}
}

# states CONTAINER...: a line for each, with the words of the native mode.
states() {
    local name status health
    docker inspect --format '{{index .Config.Labels "com.docker.compose.service"}} {{.State.Status}} {{with .State.Health}}{{.Status}}{{end}}' "$@" |
        while read -r name status health; do
            case $status-$health in
            running-healthy | running-) status=healthy ;;
            running-starting) status=starting ;;
            running-*) status='not answering' ;;
            exited-* | created-*) status=stopped ;;
            esac
            printf '%-17s %s\n' "$name" "$status"
        done | sort
}

# quietly COMMAND...: shows its messages only when it fails.
quietly() {
    local said
    said=$("$@" 2>&1) || { echo "$said" >&2 && fail "this failed, see above: $*"; }
}

wait_until_healthy() {
    local waiting
    while true; do
        # shellcheck disable=SC2086 # words
        waiting=$(states $ids) || fail "the engine does not answer"
        waiting=$(grep -v ' healthy$' <<<"$waiting") || break
        [ $SECONDS -lt $HEALTHY_WITHIN_S ] || fail "not healthy within $HEALTHY_WITHIN_S s: $waiting; scripts/compose.sh logs $part may say why"
        sleep 0.5
    done
    echo "$part is healthy after $SECONDS s"
}

# shellcheck disable=SC2086 # words
processes() { docker inspect --format '{{if .State.Running}}{{.State.Pid}}{{end}}' $ids | sed '/^$/d'; }

# Not by `docker kill`: Docker takes that for a stop by hand, and does not restart the container. So a process of the engine's host kills the
# first process of the container.
kill_containers() {
    local killed
    killed=$(processes)
    [ -n "$killed" ] || fail "$part does not run: scripts/part.sh start $part starts it"
    # shellcheck disable=SC2086,SC2016 # words; the arguments are the container's
    quietly docker run --rm --pid=host --userns=host --security-opt label=disable --network=none --user=0 --entrypoint sh "$(setting POSTGRES_IMAGE)" -c 'kill -KILL "$@"' sh $killed
    while grep -xF "$killed" <<<"$(processes)" >/dev/null; do
        [ $SECONDS -lt $DIES_WITHIN_S ] || fail "$part was killed, and has not ended within $DIES_WITHIN_S s"
        sleep 0.1
    done
    echo "$part was killed; it is restarted as after a crash"
}

in_docker() {
    local ids
    ids=$(containers "$part")
    if [ -z "$ids" ]; then
        ids=$(containers)
        [ -n "$ids" ] || fail "there are no containers"
        # shellcheck disable=SC2086 # words
        fail "there is no part \"$part\"; the parts are $(states $ids | awk '!seen[$1]++ { printf "%s%s", comma, $1; comma = ", " }')"
    fi
    # shellcheck disable=SC2086 # words
    case $action in
    list) states $ids ;;
    stop)
        quietly scripts/compose.sh stop "$part"
        echo "$part is stopped"
        ;;
    start | restart)
        quietly scripts/compose.sh "$action" "$part"
        wait_until_healthy
        ;;
    kill) kill_containers ;;
    esac
}

# --- native -----------------------------------------------------------------------------------------------------------------

# The running cluster does what is asked, and answers in lines of text. The name of the host has no meaning.
natively() {
    local answer method=POST path
    path=/parts/$(url_part "$part")/$action
    if [ "$action" = list ]; then method=GET path=/parts; fi
    answer=$(curl --silent --show-error --max-time $((2 * HEALTHY_WITHIN_S)) --noproxy '*' --unix-socket .cluster/control \
        --write-out '%{http_code}' --request "$method" "http://cluster$path") || fail "the cluster does not answer at $PWD/.cluster/control"
    if [[ $answer != *200 ]]; then fail "${answer%????}"; fi
    printf '%s' "${answer%???}"
}

action=${1:-} part=${2:-}
case "$action ${part:+PART} $#" in
'list  1' | 'stop PART 2' | 'start PART 2' | 'restart PART 2' | 'kill PART 2') ;;
'-h  1' | '--help  1')
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"
    exit 0
    ;;
*)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0" >&2
    exit 2
    ;;
esac
if has_containers; then
    in_docker
elif runs_natively; then
    natively
else
    fail "no cluster of this clone runs: ./run.sh starts one"
fi
