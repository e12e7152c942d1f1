#!/usr/bin/env bash
# Checks all settings: those of .env and of the environment, which overrides it. Names every fault at once, and fails if there is one. Prints no
# password. ./run.sh calls it before it builds or starts anything.
#
#   scripts/check_settings.sh [--docker | --native] [--prices coinbase | simulator] [--auth] [--observe]
#
# With the options of ./run.sh. Settings that this cluster does not read are not checked: natively, hosts and ports of the private servers.
# shellcheck disable=SC2295 # `blanks` is a list of characters
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/settings.sh
. scripts/settings.sh
# shellcheck source=scripts/setting_kinds.sh
. scripts/setting_kinds.sh
# shellcheck source=scripts/setting_addresses.sh
. scripts/setting_addresses.sh

mode=docker prices='' auth='' observe=''
while [ $# -gt 0 ]; do
    case $1 in
    --docker | --native) mode=${1#--} ;;
    --prices=*) prices=${1#--prices=} ;;
    --prices) prices=${2:-} && shift ;;
    --auth) auth=1 ;;
    --observe) observe=1 ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
    shift
done

# Every value of .env becomes the variable dotenv_NAME.
read_file() {
    local line name value problem number=0
    while IFS= read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        line=${line#"${line%%[!$blanks]*}"}
        case $line in '' | '#'*) continue ;; esac
        line=${line#export }
        name=${line%%=*}
        if [ "$name" = "$line" ]; then
            fault ".env is malformed: line $number: no \`=\`"
            continue
        fi
        name=${name#"${name%%[!$blanks]*}"}
        name=${name%"${name##*[!$blanks]}"}
        read_value "${line#*=}"
        [ -z "$problem" ] || fault ".env is malformed: line $number, $name: $problem"
        [[ ! $name =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || printf -v "dotenv_$name" '%s' "$value"
    done <.env
}

natively() { [ "$mode" = native ]; }

# may_listen NAME PORT: natively, a fault if the system does not let our program listen there. In Docker, the engine listens.
may_listen() {
    natively && [ -r /proc/self/status ] || return 0 # Linux
    local first=1024 key set wanted=CapAmb:
    read -r first </proc/sys/net/ipv4/ip_unprivileged_port_start || true # Linux
    [ "$2" -lt "$first" ] || return 0
    # A program that is started gets the rights of root, or the ambient ones of another user. Servers never run as root.
    if [ $EUID -eq 0 ]; then
        case $1 in *_BUY_ORDER*_EXT_PORT | CONSOLE_EXT_PORT) wanted=CapEff: ;; *) wanted='' ;; esac
    fi
    while read -r key set; do
        if [ "$key" = "$wanted" ] && (((16#$set >> 10) & 1)); then return; fi
    done </proc/self/status # Linux
    fault "$1 is $2, and its program may not listen below port $first here (net.ipv4.ip_unprivileged_port_start): set it to a port from $first on"
}

# file NAME REASON: natively, a readable file. In Docker, the engine shows it to containers at the same path, and may be on another machine.
file() {
    local value
    value_of "$1" || return 0
    if natively; then
        if [ ! -r "$value" ] || [ -d "$value" ]; then fault "$1 names $value, which cannot be read"; fi
    elif [[ $value != /* ]]; then
        malformed "$1" "$value" "is not an absolute path, which containers need"
    elif engine_is_here && folder_is_open "$value" && { [ ! -e "$value" ] || [ -d "$value" ]; }; then
        fault "$1 names $value, which is not a file"
    fi
}

# Whether this user can see what is in the folder of a path. Containers are other users.
folder_is_open() {
    local folder=${1%/*}
    while [ -n "$folder" ] && [ ! -e "$folder" ]; do folder=${folder%/*}; done
    [ -x "${folder:-/}" ]
}

engine_is_here() { case ${DOCKER_HOST:-unix:} in unix:*) ;; *) return 1 ;; esac }

# --- what every deployment reads -------------------------------------------------------------------------------------------------

check_all_modes() {
    local ports=(CREATE_BUY_ORDER_EXT_PORT FETCH_BUY_ORDERS_EXT_PORT CONSOLE_EXT_PORT WRITE_MODEL_DB_EXT_PORT READ_MODEL_DB_EXT_PORT Q_EXT_ADMIN_PORT)
    [ -z "$observe" ] || ports+=({GRAFANA,PROMETHEUS,ALERTMANAGER,JAEGER,PGADMIN}_EXT_PORT)
    published_ports ${ports[@]+"${ports[@]}"}
    one_of DEPLOYMENT development production
    port LOGGING_PORT
    seconds LOGGING_RETRY_S WRITE_MODEL_DB_RETRY_WAIT_S READ_MODEL_DB_RETRY_WAIT_S Q_CLIENT_CONNECT_RETRY_S
    one_of OTEL_TRACES_SAMPLER always_on always_off traceidratio parentbased_always_on parentbased_always_off parentbased_traceidratio
    url OTEL_EXPORTER_OTLP_ENDPOINT "is no http or https URL"
    check_certificates
    check_servers
    one_of MIGRATION_PROTOCOL http https
    one_of BTC_PRICE_PROTOCOL http https
    check_prices
    [ -n "$auth" ] || check_auth
    order_limits ORDER_MIN_BTC ORDER_MAX_BTC ORDER_MAX_BTC_PER_CLIENT
}

check_certificates() {
    local value other
    for other in SERVICE_TLS_CERT_FILE:SERVICE_TLS_KEY_FILE SERVICE_TLS_KEY_FILE:SERVICE_TLS_CERT_FILE; do
        if value_of "${other%:*}" && ! value_of "${other#*:}"; then
            fault "${other#*:} is missing: ${other%:*} is set, and TLS needs both"
        fi
    done
    file SERVICE_TLS_CERT_FILE
    file SERVICE_TLS_KEY_FILE
    file EXTRA_CA_FILE
}

check_servers() {
    local model name value
    for model in WRITE_MODEL READ_MODEL; do
        required ${model}_POSTGRES_{USER,PASSWORD,DB} ${model}_DB_{NAME,USER,PWD}
        no_control_character ${model}_POSTGRES_{USER,PASSWORD,DB}
        if value_of ${model}_POSTGRES_USER && [[ $value == *[\"\'\$\\]* ]]; then
            fault "${model}_POSTGRES_USER contains a quote, \`\$\` or \`\\\`, with which PostgreSQL cannot create its first role: choose another value"
        fi
        login ${model}_DB
    done
    required Q_USER Q_PWD
    no_control_character Q_USER Q_PWD
    if value_of Q_USER && [[ $value == *:* ]]; then
        fault "Q_USER contains a colon, with which nobody can log in to RabbitMQ's management interface: choose another value"
    fi
    for name in CREATE_BUY_ORDER_DB READ_MODEL_SYNC_DB FETCH_BUY_ORDERS_DB MIGRATION_Q CREATE_BUY_ORDER_Q READ_MODEL_SYNC_Q; do
        login_of_service $name
    done
    # Without both, no order can be voided.
    if value_of BUY_ORDER_VOIDER_DB_USER || value_of BUY_ORDER_VOIDER_DB_PWD; then login_of_service BUY_ORDER_VOIDER_DB; fi
    login CREATE_BUY_ORDER_DB READ_MODEL_SYNC_DB FETCH_BUY_ORDERS_DB BUY_ORDER_VOIDER_DB
}

# Natively a service whose login is not in .env at all takes that of the server, and a password may be in a file.
login_of_service() {
    local value
    if ! natively || is_set "$1_USER"; then required "$1_USER"; fi
    if natively && value_of "$1_PWD_FILE"; then
        if [ ! -s "$value" ] || [ ! -r "$value" ]; then fault "$1_PWD_FILE names $value, which cannot be read, or is empty"; fi
    elif ! natively || is_set "$1_PWD"; then
        required "$1_PWD"
    fi
}

check_prices() {
    if [ "$prices" != simulator ]; then
        required CB_HOST CB_PORT
        one_of CB_PROTOCOL http https
        host CB_HOST
        port CB_PORT
    fi
    required CB_PATH
    plain_path CB_PATH
    seconds CB_TIMEOUT_S QUOTE_MAX_AGE_S QUOTE_DEVIATION_HOLD_S
    ratio QUOTE_MAX_DEVIATION
}

check_auth() {
    local value from_url=''
    one_of AUTH_MODE none jwt
    is AUTH_MODE jwt || return 0
    required AUTH_ISSUER AUTH_AUDIENCE
    seconds AUTH_JWKS_REFETCH_S
    if value_of AUTH_JWKS_URL; then from_url=1; fi
    if value_of AUTH_JWKS_FILE; then
        [ -z "$from_url" ] || fault "AUTH_JWKS_URL and AUTH_JWKS_FILE are both set: keys come from one of them"
        file AUTH_JWKS_FILE
    elif [ -z "$from_url" ]; then
        fault "AUTH_MODE=jwt needs the issuer's keys: set AUTH_JWKS_URL or AUTH_JWKS_FILE"
    fi
    url AUTH_JWKS_URL "is not a URL that begins with https:// or http://"
}

# --- what containers read --------------------------------------------------------------------------------------------------------

check_docker() {
    local value name peer
    required {POSTGRES,RABBITMQ,FLUENTD,HAPROXY,RUST}_IMAGE
    image {POSTGRES,RABBITMQ,FLUENTD,HAPROXY,RUST}_IMAGE
    required LOGGING_PORT
    host LOGGING_HOST
    for peer in WRITE_MODEL_DB READ_MODEL_DB Q MIGRATION BTC_PRICE CREATE_BUY_ORDER READ_MODEL_SYNC FETCH_BUY_ORDERS; do
        required ${peer}_HOST ${peer}_PORT
        host ${peer}_HOST
        port ${peer}_PORT
    done
    host CONSOLE_HOST
    required CONSOLE_PORT
    port CONSOLE_PORT OPS_PORT
    if value_of OPS_PORT && [ "$value" != 0 ]; then
        local ops_port=$value
        for name in {MIGRATION,BTC_PRICE,CREATE_BUY_ORDER,FETCH_BUY_ORDERS,READ_MODEL_SYNC,CONSOLE}_PORT; do
            if value_of "$name" && [ "$value" = "$ops_port" ]; then fault "OPS_PORT is that of $name: leave it empty for one port"; fi
        done
    fi
    one_of Q_PROTOCOL amqp amqps
    one_of WRITE_MODEL_DB_SSLMODE disable prefer require verify-full
    one_of READ_MODEL_DB_SSLMODE disable prefer require verify-full
    authorities_of WRITE_MODEL_DB SSLMODE verify-full
    authorities_of READ_MODEL_DB SSLMODE verify-full
    authorities_of Q PROTOCOL amqps
    if value_of TLS_FOLDER; then
        if [[ $value != /* ]]; then
            malformed TLS_FOLDER "$value" "is not an absolute path, which containers need"
        elif engine_is_here && folder_is_open "$value" && [ ! -d "$value" ]; then
            fault "TLS_FOLDER names $value, which is not a folder"
        fi
    fi
    counter ENTRY_CONNECTIONS_PER_CLIENT ENTRY_REQUESTS_PER_10S
    networks ENTRY_TRUSTED_PROXIES ENTRY_TRUSTED_TRACERS
}

# authorities_of PREFIX MODE VERIFYING
authorities_of() {
    local value
    value_of "$1_CA_FILE" || return 0
    is "$1_$2" "$3" || fault "$1_CA_FILE is set, but certificates are verified with $1_$2=$3 only"
    file "$1_CA_FILE"
}

# What docker-compose.observability.yml reads.
check_observers() {
    local value
    [ -n "$observe" ] || return 0
    required {PROMETHEUS,ALERTMANAGER,GRAFANA,JAEGER,POSTGRES_EXPORTER,PGADMIN}_IMAGE
    image {PROMETHEUS,ALERTMANAGER,GRAFANA,JAEGER,POSTGRES_EXPORTER,PGADMIN}_IMAGE
    # It becomes a part of a YAML file, and the section's name follows it.
    if value_of RUNBOOKS_URL && [[ ! $value =~ ^https?://[A-Za-z0-9._~:/?=\&%+@-]+$ ]]; then
        malformed RUNBOOKS_URL "$value" "is no http or https URL without a fragment"
    fi
}

# What the services refuse with DEPLOYMENT=production.
check_production() {
    local value name why=', which DEPLOYMENT=production refuses'
    is DEPLOYMENT production || return 0
    for name in {WRITE_MODEL,READ_MODEL,CREATE_BUY_ORDER,READ_MODEL_SYNC,FETCH_BUY_ORDERS,BUY_ORDER_VOIDER}_DB_PWD {MIGRATION,CREATE_BUY_ORDER,READ_MODEL_SYNC}_Q_PWD; do
        value_of "$name" || continue
        case $value in
        guest | postgres | rabbitmq | pydist_password | migration_password | write_model_password | write_model_owner_password | read_model_password | \
            read_model_owner_password | create_buy_order_password | buy_order_voider_password | fetch_buy_orders_password | read_model_sync_password)
            fault "$name is a password that everybody can read in .env$why"
            ;;
        esac
    done
    for name in {WRITE,READ}_MODEL_DB_SSLMODE; do
        is "$name" verify-full || fault "$name is not verify-full, so somebody may sit between us and the database$why"
    done
    is Q_PROTOCOL amqps || fault "Q_PROTOCOL is not amqps, so passwords and orders travel as plain text$why"
    for name in {MIGRATION,BTC_PRICE,CB}_PROTOCOL; do
        is "$name" https || fault "$name is not https, so somebody may answer in its place$why"
    done
    [ -z "$auth" ] || return 0
    is AUTH_MODE jwt || fault "AUTH_MODE is not jwt, so whoever asks is client 1$why"
    if is AUTH_MODE jwt && value_of AUTH_JWKS_URL && [[ $value == [hH][tT][tT][pP]:* ]]; then
        fault "AUTH_JWKS_URL is not https, so somebody may give us keys of their own$why"
    fi
}

if [ -r .env ]; then read_file; else fault ".env cannot be read: it holds the settings of the cluster"; fi
check_all_modes
if ! natively; then
    check_docker
    check_observers
    check_production
elif is DEPLOYMENT production; then
    fault "DEPLOYMENT is production, which cannot run natively: the private servers have no TLS"
fi
[ ${#faults[@]} -gt 0 ] || exit 0
{
    echo "these settings, of .env or the environment, cannot be used:"
    printf '  %s\n' ${faults[@]+"${faults[@]}"}
} >&2
exit 1
