#!/usr/bin/env bash
# Starts the whole cluster, builds what is missing, waits until it is healthy, and prints the URLs and a curl line to try.
#
#   ./run.sh [--docker | --native] [--prices coinbase | simulator] [--auth] [--detach] [--fresh]
#
#   --docker     containers, by Compose
#   --native     private PostgreSQL and RabbitMQ servers and the release binaries, all under .cluster/
#                Without a mode: Docker if an engine and Compose work and the images exist or can be pulled, else native.
#   --prices     where prices come from. Without it: Coinbase if it can be reached, else a simulator with fixed rates.
#   --auth       demand tokens from clients, of an issuer for development; scripts/token.sh makes one. Without it: AUTH_MODE as in .env.
#   --detach     return when healthy; ./stop.sh stops it. Without it: stay until Ctrl-C, which stops everything cleanly.
#   --fresh      delete all stored data first; without it orders survive a restart
#
# Ports and all other settings come from .env; variables of the environment override it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/settings.sh
. scripts/settings.sh
# shellcheck source=scripts/running.sh
. scripts/running.sh

IMAGES=(POSTGRES_IMAGE RABBITMQ_IMAGE FLUENTD_IMAGE HAPROXY_IMAGE)
PORTS=(CREATE_BUY_ORDER_EXT_PORT FETCH_BUY_ORDERS_EXT_PORT WRITE_MODEL_DB_EXT_PORT READ_MODEL_DB_EXT_PORT Q_EXT_ADMIN_PORT)
HEALTHY_WITHIN_S=300

mode='' prices='' auth='' detach='' fresh=''
say() { echo "run.sh: $*"; }
fail() {
    echo "run.sh: $*" >&2
    exit 1
}

parse_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
        --docker | --native)
            [ -z "$mode" ] || [ "$mode" = "${1#--}" ] || fail "--docker and --native exclude each other"
            mode=${1#--}
            ;;
        --prices)
            prices=${2:-}
            shift
            ;;
        --prices=*) prices=${1#--prices=} ;;
        --auth) auth=1 ;;
        --detach) detach=1 ;;
        --fresh) fresh=1 ;;
        -h | --help)
            sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
            exit 0
            ;;
        *) fail "unknown argument '$1': see ./run.sh --help" ;;
        esac
        shift || fail "--prices wants a value: coinbase or simulator"
        case $prices in '' | coinbase | simulator) ;; *) fail "--prices is '$prices': coinbase or simulator" ;; esac
    done
}

require_space_mb() {
    local free
    free=$(($(df -Pk . | awk 'NR == 2 { print $4 }') / 1024))
    [ "$free" -ge "$1" ] || fail "the disk of $PWD is full: $free MB are free, $1 MB are wanted"
}

# --- Docker -----------------------------------------------------------------------------------------------------------------

engine_answers() { command -v docker >/dev/null && timeout 10 docker version >/dev/null 2>&1; }
compose_answers() { timeout 10 scripts/compose.sh version >/dev/null 2>&1; }
image_is_here() { docker image inspect "$1" >/dev/null 2>&1; }

# Prints nothing if Docker can be used, else why not.
reason_against_docker() {
    engine_answers || { echo "no Docker engine answers" && return; }
    compose_answers || { echo "Compose is missing" && return; }
    local name image wanted=("${IMAGES[@]}")
    ./build_run_images.sh --check || ./build_base_images.sh --check || wanted+=(RUST_IMAGE)
    for name in "${wanted[@]}"; do
        image=$(setting "$name")
        image_is_here "$image" && continue
        say "pulling $image" >&2
        timeout 600 docker pull --quiet "$image" >/dev/null 2>&1 || { echo "the image $image is not here and cannot be pulled" && return; }
    done
}

compose_files() {
    local files=docker-compose.yml:docker-compose.override.yml
    [ "$prices" != simulator ] || files+=:docker-compose.simulator.yml
    [ -z "$auth" ] || files+=:docker-compose.auth.yml
    echo $files
}

compose() { COMPOSE_FILE=$(compose_files) scripts/compose.sh "$@"; }

# For all containers of the project. Shows Compose's messages only when it fails.
compose_down() {
    local said
    said=$(compose down --remove-orphans --timeout 40 "$@" 2>&1) || { echo "$said" >&2 && return 1; }
}

# With another project name, the earlier project would go on running unnoticed.
refuse_another_project() {
    local before
    runs_in_docker || return 0
    read -r before <.cluster/docker_mode
    [ "$before" = "$COMPOSE_PROJECT_NAME" ] ||
        fail "the cluster of another COMPOSE_PROJECT_NAME ('$before') was started from here: ./stop.sh stops it"
}

# Records what ./stop.sh and scripts/compose.sh need: the project and its files.
record_docker_mode() {
    mkdir -p .cluster
    printf '%s\n' "$COMPOSE_PROJECT_NAME" "$(compose_files)" >.cluster/docker_mode
}

check_ports() {
    local name port taken=
    for name in "${PORTS[@]}"; do
        port=$(setting "$name")
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "run.sh: port $port is taken by another program: end it, or set $name to another port" >&2
            taken=1
        fi
    done
    [ -z "$taken" ] || exit 1
}

docker_down() {
    trap '' INT TERM HUP
    [ -z "${logs:-}" ] || kill "$logs" 2>/dev/null || true
    say "stopping the containers"
    compose_down || fail "Compose could not stop the containers, see above: try ./stop.sh"
    rm -f .cluster/docker_mode
    say "everything is stopped; the data is kept"
}

answers() { curl --silent --fail --max-time 8 --noproxy '*' --output /dev/null "$1"; }

# Asks btc_price itself, in a container of its own: only it can tell whether it reaches and trusts Coinbase.
reaches_coinbase() {
    local port container address tries=50 outcome=1
    port=$(setting BTC_PRICE_PORT)
    container=$(compose run --detach --publish "127.0.0.1::$port" btc_price) || { docker_down && fail "Compose could not start btc_price: see above"; }
    address=$(docker port "$container" "$port" | head -n 1)
    until answers "http://$address/healthcheck" || [ $((tries -= 1)) -eq 0 ]; do sleep 0.1; done
    if answers "http://$address/buy?currency=USD"; then outcome=0; fi
    docker rm --force "$container" >/dev/null
    return $outcome
}

choose_prices_for_docker() {
    [ -z "$prices" ] || return 0
    say "asking btc_price whether it reaches $(setting CB_HOST)"
    if reaches_coinbase; then
        prices=coinbase
        return
    fi
    prices=simulator
    echo
    echo "  *** $(setting CB_HOST) cannot be reached from here: prices come from the SIMULATOR, at fixed rates. ***"
    echo "  *** (--prices coinbase requires Coinbase, --prices simulator avoids this warning)                 ***"
    echo
}

# Prints the containers that are not healthy yet. Fails if one has given up.
unhealthy_containers() {
    local ids
    ids=$(compose ps -q) || return 1
    # shellcheck disable=SC2086
    docker inspect --format '{{.Name}} {{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}healthy{{end}} {{.RestartCount}}' $ids |
        awk '$2 != "running" || $3 != "healthy" { sub("^/", "", $1); print $1 }
             $4 > 20 { exit 1 }'
}

entry_answers() {
    local name
    for name in CREATE_BUY_ORDER_EXT_PORT FETCH_BUY_ORDERS_EXT_PORT; do
        answers "http://127.0.0.1:$(setting $name)/healthcheck" || return 1
    done
}

wait_until_healthy() {
    local waiting last='' deadline=$((SECONDS + HEALTHY_WITHIN_S))
    while true; do
        waiting=$(unhealthy_containers | sort | tr '\n' ' ') || break
        [ -z "$waiting" ] && entry_answers && return
        if [ "$waiting" != "$last" ]; then say "waiting for ${waiting:-the entry}"; fi
        last=$waiting
        [ $SECONDS -lt $deadline ] || break
        sleep 1
    done
    compose logs --tail=15 >&2 || true
    docker_down
    fail "not healthy within $HEALTHY_WITHIN_S s: ${waiting:-the entry}. The last log lines of all containers are above."
}

# database_url PREFIX: the database on this machine, for a client of PostgreSQL.
database_url() {
    printf 'postgres://%s:%s@127.0.0.1:%s/%s' "$(url_part "$(setting "$1_POSTGRES_USER")")" "$(url_part "$(setting "$1_POSTGRES_PASSWORD")")" \
        "$(setting "$1_DB_EXT_PORT")" "$(url_part "$(setting "$1_POSTGRES_DB")")"
}

introduce_docker() {
    local create fetch token=''
    [ -z "$auth" ] || token="-H \"Authorization: Bearer \$(scripts/token.sh)\" "
    create=http://127.0.0.1:$(setting CREATE_BUY_ORDER_EXT_PORT)
    fetch=http://127.0.0.1:$(setting FETCH_BUY_ORDERS_EXT_PORT)
    cat <<END

The cluster is healthy. Prices come from: $prices

  create_buy_order   $create/docs
  fetch_buy_orders   $fetch/docs
  RabbitMQ           http://127.0.0.1:$(setting Q_EXT_ADMIN_PORT)   user $(setting Q_USER), password $(setting Q_PWD)
  write model        $(database_url WRITE_MODEL)
  read model         $(database_url READ_MODEL)
  logs               scripts/compose.sh logs

Try it:

  curl -X PUT $create/buy_order -H 'Content-Type: application/json' $token\\
    -d '{"currency":"USD","amount":"123.45","idempotence_key":"$(cat /proc/sys/kernel/random/uuid)"}'
  curl $token$fetch/buy_orders

END
}

run_docker() {
    engine_answers || fail "no Docker engine answers: start it, or run scripts/ensure_docker.sh, or ./run.sh --native"
    compose_answers || fail "Compose is missing: install docker-compose, or run scripts/ensure_docker.sh, or ./run.sh --native"
    command -v curl >/dev/null || fail "curl is missing: install the package 'curl'"
    [ -z "${COMPOSE_FILE:-}" ] || fail "COMPOSE_FILE names another deployment: unset it, and COMPOSE_PROJECT_NAME"
    COMPOSE_PROJECT_NAME=$(scripts/compose.sh project)
    export COMPOSE_PROJECT_NAME
    ! runs_natively || fail "the cluster of this clone runs natively: ./stop.sh stops it"
    refuse_another_project
    # A running cluster of this clone is brought up to date.
    [ -n "$(compose ps -q 2>/dev/null)" ] || check_ports
    if ! ./build_run_images.sh --check; then
        require_space_mb 3000
        say "building the images, which are missing or older than the sources"
        ./build_run_images.sh || exit 1
    fi
    # Under a strict umask only the owner can read the files of a clone, but the containers that read these run as other users.
    chmod a+r docker/entry/haproxy.cfg docker/fluentd/fluent.conf docker/rabbitmq/definitions.conf migrations/broker_users.sh
    trap 'docker_down; exit 130' INT TERM HUP
    record_docker_mode
    if [ -n "$fresh" ]; then
        say "deleting all stored data"
        compose_down --volumes || fail "the stored data could not be deleted: see above"
    fi
    choose_prices_for_docker
    record_docker_mode
    say "starting the containers"
    compose up -d --remove-orphans || { docker_down && fail "Compose could not start the cluster: see above"; }
    wait_until_healthy
    introduce_docker
    if [ -n "$detach" ]; then
        trap - INT TERM HUP
        echo "The cluster runs in the background; ./stop.sh stops it."
        return
    fi
    trap 'docker_down; exit 0' INT TERM HUP
    say "following the logs; Ctrl-C stops everything"
    # In the background: a trap would wait for a command in the foreground.
    compose logs --follow --tail=0 &
    logs=$!
    wait "$logs" || true
    docker_down
}

# --- native -----------------------------------------------------------------------------------------------------------------

run_native() {
    [ ! -e .cluster ] || [ -O .cluster ] || fail "the cluster in $PWD/.cluster belongs to $(stat -c %U .cluster): run this as that user"
    ! runs_natively || fail "the cluster of this clone runs already: ./stop.sh stops it"
    ! runs_in_docker || fail "the cluster of this clone runs in containers: ./stop.sh stops it"
    check_ports
    command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
    command -v cargo >/dev/null || fail "Rust is missing: install it as https://rustup.rs says, then try again"
    local binaries=${CARGO_TARGET_DIR:-target}/release
    if [ -e "$binaries/cluster" ]; then require_space_mb 1000; else require_space_mb 3000; fi
    # A signal takes effect after the installation, which is not interrupted.
    trap 'exit 130' INT TERM HUP
    scripts/ensure_servers.sh
    say "building the services; the first time takes some minutes"
    # The same selection of packages as in ./test.sh: another would compile shared dependencies again.
    cargo build --release --workspace --bins || fail "the build failed: see above"
    exec "$binaries/cluster" run --prices "${prices:-auto}" ${auth:+--auth} ${detach:+--detach} ${fresh:+--fresh}
}

parse_arguments "$@"
if [ -n "$mode" ]; then
    say "$mode, as asked"
else
    reason=$(reason_against_docker)
    if [ -z "$reason" ]; then
        mode=docker
        say "docker: an engine and Compose answer, and the images are here"
    else
        mode=native
        say "native: $reason"
    fi
fi
require_space_mb 1000
"run_$mode"
