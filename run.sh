#!/usr/bin/env bash
# Starts the whole cluster, builds what is missing, waits until it is healthy, and prints the URLs and a curl line to try.
#
#   ./run.sh [--docker | --native] [--prices coinbase | simulator] [--auth] [--observe] [--detach] [--fresh] [--verbose]
#
#   --docker     containers, by Compose
#   --native     private PostgreSQL and RabbitMQ servers and the release binaries, all under .cluster/
#                Without a mode: Docker if an engine and Compose work and the images exist or can be pulled, else native.
#   --prices     where prices come from. Without it: Coinbase if it can be reached, else a simulator with fixed rates.
#   --auth       demand tokens from clients, of an issuer for development; scripts/token.sh makes one. Without it: AUTH_MODE as in .env.
#   --observe    in containers only: Prometheus, Alertmanager, Grafana and Jaeger, too
#   --detach     return when healthy; ./stop.sh stops it. Without it: stay until Ctrl-C, which stops everything cleanly.
#   --fresh      delete all stored data first; without it orders survive a restart
#   --verbose    show all output of builds and of apt; without it, a line of progress
#
# Ports and all other settings come from .env; variables of the environment override it. They are checked before anything is built or started.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/settings.sh
. scripts/settings.sh
# shellcheck source=scripts/running.sh
. scripts/running.sh
# shellcheck source=scripts/docker_engine.sh
. scripts/docker_engine.sh
# shellcheck source=scripts/progress.sh
. scripts/progress.sh
# shellcheck source=scripts/readable.sh
. scripts/readable.sh

IMAGES=(POSTGRES_IMAGE RABBITMQ_IMAGE FLUENTD_IMAGE HAPROXY_IMAGE)
PORTS=(CREATE_BUY_ORDER_EXT_PORT FETCH_BUY_ORDERS_EXT_PORT CONSOLE_EXT_PORT WRITE_MODEL_DB_EXT_PORT READ_MODEL_DB_EXT_PORT Q_EXT_ADMIN_PORT)
# With --observe.
OBSERVING_IMAGES=(PROMETHEUS_IMAGE ALERTMANAGER_IMAGE GRAFANA_IMAGE JAEGER_IMAGE POSTGRES_EXPORTER_IMAGE)
OBSERVING_PORTS=(GRAFANA_EXT_PORT PROMETHEUS_EXT_PORT ALERTMANAGER_EXT_PORT JAEGER_EXT_PORT)
HEALTHY_WITHIN_S=300
FIRST_BUILD='4 to 7 minutes' # measured: 3 min 24 s on a quiet machine of 2 cores, half as fast on a slow one

mode='' prices='' auth='' observe='' detach='' fresh=''
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
        --observe) observe=1 ;;
        --detach) detach=1 ;;
        --fresh) fresh=1 ;;
        --verbose) export VERBOSE=1 ;;
        -h | --help)
            sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"
            exit 0
            ;;
        *) fail "unknown argument '$1': see ./run.sh --help" ;;
        esac
        shift || fail "--prices wants a value: coinbase or simulator"
        case $prices in '' | coinbase | simulator) ;; *) fail "--prices is '$prices': coinbase or simulator" ;; esac
    done
    [ -z "$observe" ] || [ "$mode" != native ] || fail "--observe is for containers: ./run.sh --docker --observe"
    [ -z "$observe" ] || mode=docker
}

require_space_mb() {
    local free
    free=$(($(df -Pk . | awk 'NR == 2 { print $4 }') / 1024))
    [ "$free" -ge "$1" ] || fail "the disk of $PWD is full: $free MB are free, $1 MB are wanted"
}

# --- Docker -----------------------------------------------------------------------------------------------------------------

compose_answers() { scripts/compose.sh version >/dev/null 2>&1; }
image_is_here() { docker image inspect "$1" >/dev/null 2>&1; }

# Prints which image is neither here nor can be pulled.
missing_image() {
    local name image said wanted=("${IMAGES[@]}")
    ./build_run_images.sh --check || ./build_base_images.sh --check || wanted+=(RUST_IMAGE)
    for name in ${wanted[@]+"${wanted[@]}"}; do
        image=$(setting "$name")
        image_is_here "$image" && continue
        say "pulling $image" >&2
        within 600 docker pull --quiet "$image" || { echo "the image $image is not here and cannot be pulled" && return; }
    done
}

# Names all images of --observe that are neither here nor can be pulled.
require_observing_images() {
    local name image missing=
    [ -n "$observe" ] || return 0
    for name in "${OBSERVING_IMAGES[@]}"; do
        image=$(setting "$name")
        image_is_here "$image" && continue
        say "pulling $image"
        within 600 docker pull --quiet "$image" >/dev/null || missing+=" $image"
    done
    [ -z "$missing" ] || fail "--observe needs images that are not here and cannot be pulled:$missing"
}

compose_files() {
    local files=docker-compose.yml:docker-compose.override.yml
    [ "$prices" != simulator ] || files+=:docker-compose.simulator.yml
    [ -z "$auth" ] || files+=:docker-compose.auth.yml
    [ -z "$observe" ] || files+=:docker-compose.observability.yml
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
        fail "another COMPOSE_PROJECT_NAME runs here, '$before': ./stop.sh stops it"
}

# Records what ./stop.sh and scripts/compose.sh need: the project and its files.
record_docker_mode() {
    mkdir -p .cluster
    printf '%s\n' "$COMPOSE_PROJECT_NAME" "$(compose_files)" >.cluster/docker_mode
}

check_ports() {
    local name port taken=
    [ -z "$observe" ] || PORTS+=("${OBSERVING_PORTS[@]}")
    for name in "${PORTS[@]}"; do
        port=$(setting "$name")
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "run.sh: port $port is taken: end what has it, or set $name" >&2
            taken=1
        fi
    done
    [ -z "$taken" ] || exit 1
}

docker_down() {
    trap '' INT TERM HUP
    say "stopping the containers; another Ctrl-C changes nothing"
    compose_down || fail "Compose could not stop the containers, see above: try ./stop.sh"
    # Now it has shown their last lines.
    [ -z "${logs:-}" ] || kill -- "-$logs" 2>/dev/null || true
    rm -f .cluster/docker_mode
    say "everything is stopped; the data is kept"
}

answers() { curl --silent --fail --max-time 8 --noproxy '*' --output /dev/null "$1"; }

# Asks btc_price itself, in a container of its own: only it can tell whether it reaches and trusts Coinbase.
reaches_coinbase() {
    local port container address tries=50 outcome=1
    port=$(setting BTC_PRICE_PORT)
    container=$(compose run --detach --publish "127.0.0.1::$port" btc_price) || { docker_down && fail "Compose could not start btc_price: see above"; }
    address=$(docker port "$container" "$port")
    # Of several addresses, the first.
    address=${address%%$'\n'*}
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
    echo "  *** $(setting CB_HOST) cannot be reached from here:"
    echo "  *** prices come from the SIMULATOR, at fixed rates."
    echo "  *** (--prices coinbase requires Coinbase; --prices simulator avoids this)"
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
    echo "The last log lines of all containers are above." >&2
    docker_down
    fail "not healthy within $HEALTHY_WITHIN_S s: ${waiting:-the entry}"
}

# database_url PREFIX: the database on this machine, for a client of PostgreSQL.
database_url() {
    printf 'postgres://%s:%s@127.0.0.1:%s/%s' "$(url_part "$(setting "$1_POSTGRES_USER")")" "$(url_part "$(setting "$1_POSTGRES_PASSWORD")")" \
        "$(setting "$1_DB_EXT_PORT")" "$(url_part "$(setting "$1_POSTGRES_DB")")"
}

introduce_docker() {
    local create fetch token='' observing=''
    [ -z "$auth" ] || token="-H \"Authorization: Bearer \$(scripts/token.sh)\" "
    create=http://127.0.0.1:$(setting CREATE_BUY_ORDER_EXT_PORT)
    fetch=http://127.0.0.1:$(setting FETCH_BUY_ORDERS_EXT_PORT)
    [ -z "$observe" ] || observing="
  Grafana            http://127.0.0.1:$(setting GRAFANA_EXT_PORT)
  Prometheus         http://127.0.0.1:$(setting PROMETHEUS_EXT_PORT)/alerts
  Alertmanager       http://127.0.0.1:$(setting ALERTMANAGER_EXT_PORT)
  Jaeger             http://127.0.0.1:$(setting JAEGER_EXT_PORT)"
    cat <<END

The cluster is healthy: http://localhost:$(setting CONSOLE_EXT_PORT) shows it.
Prices come from: $prices

  create_buy_order   $create/docs
  fetch_buy_orders   $fetch/docs
  RabbitMQ           http://127.0.0.1:$(setting Q_EXT_ADMIN_PORT)   user $(setting Q_USER), password $(setting Q_PWD)
  write model        $(database_url WRITE_MODEL)
  read model         $(database_url READ_MODEL)
  logs               scripts/compose.sh logs$observing

Try it:

  curl -w '\\n' -X PUT $create/buy_order -H 'Content-Type: application/json' $token\\
    -d '{"currency":"USD","amount":"123.45","idempotence_key":"$(new_uuid)"}'
  curl -w '\\n' $token$fetch/buy_orders

END
}

follow_docker_logs() {
    # Compose v1 is in Python, which keeps lines back in a pipe.
    export PYTHONUNBUFFERED=1
    if [ -t 1 ]; then
        with_ticks compose logs --no-color --follow --tail=0 2>&1 | readable command=0
    else
        compose logs --follow --tail=0
    fi
}

run_docker() {
    ask_engine
    [ -z "$engine_fault" ] || fail "$engine_fault. Or: ./run.sh --native"
    compose_answers || fail "Compose is missing: install docker-compose, or run scripts/ensure_docker.sh, or ./run.sh --native"
    command -v curl >/dev/null || fail "curl is missing: install the package 'curl'"
    [ -z "${COMPOSE_FILE:-}" ] || fail "COMPOSE_FILE names another deployment: unset it, and COMPOSE_PROJECT_NAME"
    COMPOSE_PROJECT_NAME=$(scripts/compose.sh project)
    export COMPOSE_PROJECT_NAME
    ! runs_natively || fail "the cluster of this clone runs natively: ./stop.sh stops it"
    refuse_another_project
    require_observing_images
    # A running cluster of this clone is brought up to date.
    [ -n "$(compose ps -q 2>/dev/null)" ] || check_ports
    if ! ./build_run_images.sh --check; then
        require_space_mb 3000
        say "building the images, which are missing or older than the sources"
        say "the first time takes some minutes, and 3 GB of the disk"
        with_progress "building the images" .cluster/images.log ./build_run_images.sh || exit 1
    fi
    # Under a strict umask only the owner can read the files of a clone, but the containers that read these run as other users.
    chmod a+r docker/entry/haproxy.cfg docker/fluentd/fluent.conf docker/rabbitmq/definitions.conf migrations/broker_users.sh
    [ -z "$observe" ] || chmod -R a+rX docker/grafana docker/prometheus docker/alertmanager docker/pgadmin docker/postgres docker/rabbitmq docs/alerts.yml
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
    say "following the logs, with times in UTC; Ctrl-C stops everything"
    # In the background: a trap would wait for a command in the foreground. In a process group of its own, which Ctrl-C does not reach.
    set -m
    follow_docker_logs &
    set +m
    logs=$!
    wait "$logs" || true
    docker_down
}

# --- native -----------------------------------------------------------------------------------------------------------------

announce_first_build() {
    say "the first start compiles the services: $FIRST_BUILD"
    say "on 2 cores, 2 GB of memory, 2 GB of the disk. Later starts take seconds."
}

run_native() {
    [ ! -e .cluster ] || [ -O .cluster ] || fail "the cluster in $PWD/.cluster belongs to $(stat -c %U .cluster): run this as that user" # Linux
    ! runs_natively || fail "the cluster of this clone runs already: ./stop.sh stops it"
    ! runs_in_docker || fail "the cluster of this clone runs in containers: ./stop.sh stops it"
    check_ports
    command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
    command -v cargo >/dev/null || fail "Rust is missing: install it as https://rustup.rs says, then try again"
    local binaries=${CARGO_TARGET_DIR:-target}/release
    if [ -e "$binaries/cluster" ]; then require_space_mb 1000; else require_space_mb 3000; fi
    # A signal takes effect after the installation, which is not interrupted.
    trap 'stop_progress; exit 130' INT TERM HUP
    [ -e "$binaries/cluster" ] || announce_first_build
    scripts/ensure_servers.sh
    # What is started, and no tools of developers. The features of shared dependencies are those of a build of the whole workspace, so that
    # ./test.sh compiles none of them again: CI checks it.
    export CARGO_TERM_PROGRESS_WHEN=always CARGO_TERM_PROGRESS_WIDTH=80
    with_progress "building the services" "${binaries%/release}/build.log" \
        cargo build --release --workspace --exclude bench --exclude faults --exclude new_service --bins || fail "the build failed: see above"
    # The program keeps the id of this shell's process.
    if [ -t 1 ] && [ -z "$detach" ]; then follow_native_logs $$ & fi
    exec "$binaries/cluster" run --prices "${prices:-auto}" ${auth:+--auth} ${detach:+--detach} ${fresh:+--fresh}
}

# Names everything that is wrong with the settings.
check_settings() {
    scripts/check_settings.sh "--$mode" ${prices:+--prices "$prices"} ${auth:+--auth} ${observe:+--observe} || fail "nothing was started: correct what is named above"
}

choose_mode() {
    local reason
    ask_engine
    reason=$engine_fault
    [ -n "$reason" ] || compose_answers || reason="Compose is missing"
    if [ -z "$reason" ]; then
        mode=docker
        check_settings # pulling images takes minutes
        reason=$(missing_image)
    fi
    if [ -z "$reason" ]; then
        say "docker: an engine and Compose answer, and the images are here"
    else
        mode=native
        # Without an engine, native mode is what most people want: how to get one is left out.
        case $engine in missing | away) reason=${reason%% (*} && reason=${reason%%: *} ;; esac
        say "native: $reason"
    fi
}

parse_arguments "$@"
if [ -n "$mode" ]; then say "$mode, as asked"; else choose_mode; fi
check_settings
require_space_mb 1000
"run_$mode"
