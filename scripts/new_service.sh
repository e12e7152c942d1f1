#!/usr/bin/env bash
# Adds a service after the pattern of one that exists.
#
#   scripts/new_service.sh NAME [--like SERVICE]
#
# NAME      in snake_case: of the crate, its binary, its image and its compose service
# --like    the service whose surroundings it gets, fetch_buy_orders by default: what it reads from the environment (databases, queue,
#           other services), what it waits for at its start, its dependencies and its compose entry; not its routes or its code
#
# Makes crates/NAME with one example route, /healthcheck, /livez, /readyz, /metrics, the OpenAPI document and tests of its binary; docker/services/NAME; an entry in
# docker-compose.yml; NAME_HOST and NAME_PORT in .env. When anything fails, everything is as it was before.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TEMPLATES=scripts/new_service
DEFAULT_MODEL=fetch_buy_orders
# Keywords and names that Rust or Cargo keep for themselves; modules of the new crate; what every service already answers or reads.
RESERVED=" abstract alloc as async await become box break build const continue core crate deps do dyn else enum examples extern false
 final fn for gen if impl in incremental let loop macro match mod move mut override priv proc_macro pub ref return self static std struct
 super test trait true try type typeof unsafe unsized use virtual where while yield
 api app config routes docs healthcheck livez metrics readyz service "

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | sed '/^set /d'; }
say() { echo "new_service: $*"; }
fail() {
    echo "new_service: $*" >&2
    exit 1
}

# --- what is asked for, and whether it can be done ---

name='' model=$DEFAULT_MODEL
while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help) usage; exit 0 ;;
    --like)
        [ $# -ge 2 ] || fail "--like needs the name of a service."
        model=$2
        shift
        ;;
    --like=*) model=${1#--like=} ;;
    -*) fail "unknown option $1; see --help." ;;
    *)
        [ -z "$name" ] || fail "one name at a time, please: $name or $1?"
        name=$1
        ;;
    esac
    shift
done
if [ -z "$name" ]; then
    usage >&2
    exit 2
fi
prefix=${name^^}

# compose_entry FILE SERVICE: its lines, without blank lines and comments that stand before the next one.
compose_entry() {
    awk -v service="$2" '
        /^[^ #]/ { inside = 0; services = /^services:/ }
        services && /^  [A-Za-z0-9_-]+:/ { inside = ($0 ~ "^  " service ":") }
        inside && /^(  [A-Za-z0-9_-]|    )/ { print }
    ' "$1"
}

check_name() {
    [[ $name =~ ^[a-z][a-z0-9]*(_[a-z0-9]+)*$ ]] || fail "'$name' is not snake_case: lower-case words and digits, joined by single underscores."
    [ ${#name} -le 40 ] || fail "'$name' is longer than 40 characters."
    [[ ! " ${RESERVED//$'\n'/ } " == *" $name "* ]] || fail "'$name' has a meaning of its own in Rust, in Cargo or in every service."
    if [ -e "crates/$name" ]; then fail "crates/$name is there already."; fi
    if [ -e "docker/services/$name" ]; then fail "docker/services/$name is there already."; fi
    if [ -n "$(compose_entry docker-compose.yml "$name")" ]; then fail "docker-compose.yml has a service '$name' already."; fi
    if grep -qE "^name = \"(${name}|${name//_/-})\"$" Cargo.lock; then fail "'$name' is the name of a crate that the workspace uses."; fi
    if grep -qE "^${prefix}_(HOST|PORT)=" .env; then fail ".env has ${prefix}_HOST or ${prefix}_PORT already."; fi
}

check_model() {
    local known=() service
    for service in docker/services/*/; do
        service=$(basename "$service")
        if [ -f "crates/$service/src/config.rs" ]; then known+=("$service"); fi
    done
    [[ " ${known[*]} " == *" $model "* ]] || fail "there is no service '$model' to follow; there are: ${known[*]}."
    [ -n "$(compose_entry docker-compose.yml "$model")" ] || fail "docker-compose.yml has no service '$model'."
    model_variant=$(variant)
    [ -n "$model_variant" ] || fail "crates/cluster does not know '$model', and so cannot give the tests its environment."
}

# How the cluster of the tests calls the model; a service made by this script is known there by the one that it was made like.
variant() {
    local known
    known=$(sed -nE "s/^ *Self::([A-Za-z]+) => \"$model\",$/\1/p" crates/cluster/src/service.rs)
    [ -n "$known" ] || known=$(sed -nE 's/^const MODEL: Service = Service::([A-Za-z]+);$/\1/p' "crates/$model/tests/api/main.rs" 2>/dev/null)
    echo "$known"
}

check_name
check_model
grep -q '^members = \["crates/\*"\]' Cargo.toml || fail "the workspace of Cargo.toml no longer takes all of crates/* as members."
for tool in cargo rustfmt; do command -v "$tool" >/dev/null || fail "$tool is missing: install Rust, https://rustup.rs"; done

# --- from here on: all of it, or nothing ---

# In the tree, so that moving from it is renaming.
stage=$(mktemp -d .new_service.XXXXXX)
mkdir "$stage/before" "$stage/after"
finished=no installed=()

clean_up() {
    if [ "$finished" = no ] && [ ${#installed[@]} -gt 0 ]; then
        local path
        for path in "${installed[@]}"; do
            if [ -e "$stage/before/$path" ]; then mv -f "$stage/before/$path" "$path"; else rm -rf "$path"; fi
        done
    fi
    rm -rf "$stage"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- what the model reads and waits for: its Config says it ---

# Lines like "Database WRITE_MODEL_DB", "Peer BTC_PRICE", "Queue Q", in the order of the Config.
groups=$(sed -nE \
    -e 's/.*(Database|Peer)::from_env\(env, "([A-Z0-9_]+)"\).*/\1 \2/p' \
    -e 's/.*Queue::from_env\(env\).*/Queue Q/p' "crates/$model/src/config.rs" | awk '!seen[$0]++')

# A service that consumes waits for the broker; one that publishes from an outbox accepts work while it is away.
waits_for_queue() { grep -q 'broker::' "crates/$model/src/app.rs"; }

declare -A part # by name, what a {{name}} of the templates stands for
part[name]=$name part[model]=$model part[variant]=$model_variant
part[endpoints]=Listen part[used]='' part[imports]='' part[waits]=''
part[needs]='' part[config_fields]='' part[config_values]='' part[state_fields]='' part[state_values]='' part[state_imports]='' part[state_endpoints]=''
part[required]='"SERVICE_HOST", "SERVICE_PORT",'
part[options]='Options { services: Vec::new(), ..Options::default() }'

add() { part[$1]+="$2"$'\n'; }

# field NAME TYPE DOC VALUE
field() {
    add config_fields "/// $3"$'\n'"pub $1: $2,"
    add config_values "$1: $4,"
    [[ ", ${part[endpoints]}," == *", $2,"* ]] || part[endpoints]+=", $2"
}

# shared NAME TYPE DOC VALUE: what the handlers get of it
shared() {
    add state_fields "/// $3"$'\n'"pub $1: $2,"
    add state_values "$4,"
    local list=state_endpoints
    if [ "$2" = Pool ]; then
        part[state_imports]="use common::database::Pool;"$'\n'
    elif [[ ", ${part[$list]}," != *", $2,"* ]]; then
        part[$list]+="${part[$list]:+, }$2"
    fi
}

required() { for suffix in "${@:2}"; do part[required]+=" \"$1_$suffix\","; done; }
used() { [[ ", ${part[used]}," == *", $1,"* ]] || part[used]+=", $1"; }

while read -r kind group; do
    case "$kind" in
    Database)
        field_name=${group,,} field_name=${field_name%_db}
        field "$field_name" Database "\`${group}_…\`." "Database::from_env(env, \"$group\")"
        shared "$field_name" Pool "Connections to the database of \`${group}_…\`." "$field_name"
        add waits "let $field_name = database::connect(&config.$field_name, \"$field_name\").await?;"
        part[needs]+=".needs(\"$field_name\", $field_name.readable())"
        used database
        required "$group" HOST PORT NAME USER PWD
        ;;
    Queue)
        field queue Queue "The broker: \`Q_…\`." "Queue::from_env(env)"
        shared queue Queue "The broker." "queue: config.queue"
        required Q HOST PORT USER PWD
        waits_for_queue || continue
        add imports "use common::broker::{Connector, Role, Supervisor, topology::BUY_ORDER_QUEUE};"
        part[waits]+='// This connection only proves that the broker is there: a task that consumes or publishes opens another.
            let connector = Connector { endpoint: config.queue.clone(), queue: BUY_ORDER_QUEUE, name: "'$name'" };
            let session = Supervisor::new(connector, Role::Publisher, lifecycle.stopping()).connect().await;
            let Some(session) = session else { return Ok(()); };
            session.close().await;
        '
        ;;
    Peer)
        field_name=${group,,}
        field "$field_name" Peer "\`${group}_…\`." "Peer::from_env(env, \"$group\")"
        required "$group" HOST PORT
        if [ "$group" = MIGRATION ]; then
            part[waits]="migrations::wait(&config.migration).await?;"$'\n'${part[waits]}
            used migrations
            part[options]='Options::only(&[Service::Migration])'
        else
            shared "$field_name" Peer "The service of \`${group}_…\`." "$field_name: config.$field_name"
        fi
        ;;
    esac
done <<<"$groups"
case "${part[state_endpoints]}" in
'') ;;
*,*) add state_imports "use common::endpoints::{${part[state_endpoints]}};" ;;
*) add state_imports "use common::endpoints::${part[state_endpoints]};" ;;
esac

# --- the crate ---

crate=$stage/crate
mkdir -p "$crate/src" "$crate/tests/api"

# The model's manifest, with what the templates need besides, and with their own dependencies of tests.
manifest() {
    awk -v name="$name" -v model="$model" '
        /^\[/ { section = $0 }
        section == "[dependencies]" || section ~ /^\[(dev|build)-dependencies/ { next }
        /^name = / { $0 = "name = \"" name "\"" }
        /^description = / { $0 = "description = \"Made like " model "; say here what it does\"" }
        { print }
    ' "crates/$model/Cargo.toml"
    echo "[dependencies]"
    {
        awk '/^\[/ { inside = ($0 == "[dependencies]"); next } inside && /^[a-z]/' "crates/$model/Cargo.toml"
        printf '%s.workspace = true\n' anyhow axum common serde utoipa
    } | awk -F '[. =]' '!seen[$1]++' | LC_ALL=C sort -t. -k1,1
    printf '\n[dev-dependencies]\n'
    printf '%s.workspace = true\n' cluster serde_json tokio
}
manifest >"$crate/Cargo.toml"

for template in src/main.rs src/lib.rs src/config.rs src/app.rs src/routes.rs tests/api/main.rs; do
    text=$(cat "$TEMPLATES/$template")
    for key in "${!part[@]}"; do text=${text//"{{$key}}"/"${part[$key]}"}; done
    printf '%s\n' "$text" >"$crate/$template"
done
edition=$(sed -nE 's/^edition = "([0-9]+)"$/\1/p' Cargo.toml)
rustfmt --edition "$edition" "$crate/src/lib.rs" "$crate/src/main.rs" "$crate/tests/api/main.rs" ||
    fail "rustfmt refuses the new sources: does $TEMPLATES still fit $model?"

# --- image, compose, .env ---

mkdir "$stage/docker"
ln -s ../Dockerfile "$stage/docker/Dockerfile"

changed=(Cargo.lock)
for file in docker-compose.yml docker-compose.*.yml; do
    [ -f "$file" ] || continue
    entry=$(compose_entry "$file" "$model")
    [ -n "$entry" ] || continue
    # The copy follows the entry that it is made from. Anchors would be named twice.
    entry=$(sed -E -e "1s/^  $model:/  $name:/" -e "s/^(    image: .*\/)$model\$/\1$name/" -e 's/: &[A-Za-z0-9_-]+$/:/' \
        -e "s/^( +SERVICE_PORT: ).*/\1\${${prefix}_PORT}/" <<<"$entry")
    ENTRY=$entry awk -v model="$model" '
        function leave() { if (inside) { print ""; print ENVIRON["ENTRY"]; inside = 0 } }
        /^[^ #]/ { if (inside) { leave(); print "" } services = /^services:/ }
        services && /^  [A-Za-z0-9_-]+:/ { starts = ($0 ~ "^  " model ":") }
        inside && !/^(    |$)/ { leave(); print "" }
        inside && /^$/ { next }
        { print }
        services && starts && /^  [A-Za-z0-9_-]+:/ { inside = 1 }
        END { leave() }
    ' "$file" >"$stage/after/$file"
    changed+=("$file")
done
{
    cat .env
    [ -z "$(tail -c 1 .env)" ] || echo
    printf '\n# --- %s ---\n%s_HOST=%s\n%s_PORT=8080\n' "$name" "$prefix" "$name" "$prefix"
} >"$stage/after/.env"
changed+=(.env)

# --- into the tree ---

for file in "${changed[@]}"; do cp -p "$file" "$stage/before/$file"; done
installed=("crates/$name" "docker/services/$name" "${changed[@]}")
mv "$crate" "crates/$name"
mv "$stage/docker" "docker/services/$name"
# Cargo adds the new member to Cargo.lock. Everything it needs is there already, as a rule: no network.
cargo metadata --format-version 1 --offline >/dev/null 2>&1 || cargo metadata --format-version 1 >/dev/null ||
    fail "Cargo does not take the new crate: see above. Nothing was changed."
for file in "${changed[@]}"; do
    [ -f "$stage/after/$file" ] || continue
    chmod --reference="$file" "$stage/after/$file"
    mv "$stage/after/$file" "$file"
done
finished=yes

say "made $name like $model: crates/$name (a member already, as all of crates/*), docker/services/$name, ${changed[*]}"
say "its tests:      cargo build --release --workspace --bins && cargo test --release -p $name"
say "its image:      ./build_run_images.sh $name; docker-compose up then starts it. No port of it is published on the host."
say "not done:       ./run.sh --native starts the services that crates/cluster/src/service.rs names; README.md lists them."
