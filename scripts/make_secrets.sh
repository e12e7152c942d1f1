#!/usr/bin/env bash
# Makes the secrets of docker-compose.production.yml: passwords, an authority of its own, and a certificate for each server and service.
#
#   scripts/make_secrets.sh [--host NAME]... [--days N]
#   scripts/make_secrets.sh --certificates [--host NAME]... [--days N]     new certificates by the same authority; passwords stay
#
#   --host   a name or address by which clients reach `entry`; default: localhost. Its certificate, entry.pem, may be replaced by one of a
#            public authority: certificate, chain and key in one file.
#   --days   how long the certificates are valid; default: 365
#
# They are in secrets/, or the folder that SECRETS_DIR names. Files are written in place, so running containers see the new content.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PASSWORDS=(write_model_postgres read_model_postgres write_model_db read_model_db create_buy_order_db read_model_sync_db
    fetch_buy_orders_db q migration_q create_buy_order_q read_model_sync_q)
SERVERS=(write_model read_model queue migration btc_price create_buy_order read_model_sync fetch_buy_orders)

folder=${SECRETS_DIR:-secrets} hosts=() days=365 certificates=
fail() {
    echo "make_secrets.sh: $*" >&2
    exit 1
}
while [ $# -gt 0 ]; do
    case $1 in
    --host)
        [[ ${2:-} =~ ^[A-Za-z0-9.:_*-]+$ ]] || fail "--host wants a name or an address, not '${2:-}'"
        hosts+=("$2") && shift
        ;;
    --days)
        [[ ${2:-} =~ ^[1-9][0-9]{0,3}$ ]] || fail "--days wants a number from 1 to 9999, not '${2:-}'"
        days=$2 && shift
        ;;
    --certificates) certificates=1 ;;
    -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" && exit ;;
    *) fail "unknown argument '$1': see --help" ;;
    esac
    shift
done
[ ${#hosts[@]} -gt 0 ] || hosts=(localhost)
command -v openssl >/dev/null || fail "openssl is missing: install the package 'openssl'"

# The folder is closed to others. In it, containers read the files as users of their own.
close_folder() {
    mkdir -p "$folder"
    chmod 700 "$folder"
    umask 022
}

make_passwords() {
    local name
    for name in "${PASSWORDS[@]}"; do openssl rand -hex 24 >"$folder/${name}_password"; done
}

new_key() { openssl ecparam -name prime256v1 -genkey -noout; }

make_authority() {
    (umask 077 && new_key >"$folder/ca.key")
    openssl req -x509 -new -key "$folder/ca.key" -days 3650 -subj "/CN=pydist authority" -out "$folder/ca.crt" \
        -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign"
}

# alternative_names NAME...: for a certificate.
alternative_names() {
    local name list=
    for name in "$@"; do
        if [[ $name == *:* || $name =~ ^[0-9.]+$ ]]; then list+=,IP:$name; else list+=,DNS:$name; fi
    done
    echo "${list#,}"
}

# make_certificate FILE NAME...: $work/FILE.crt and .key, for these names. The authority's certificate is not part of it.
make_certificate() {
    local file=$work/$1
    shift
    new_key >"$file.key"
    openssl req -new -key "$file.key" -subj "/CN=$1" -out "$file.csr"
    openssl x509 -req -in "$file.csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -set_serial "0x$(openssl rand -hex 16)" -days "$days" \
        -extfile <(printf '%s\n' "subjectAltName=$(alternative_names "$@")" basicConstraints=CA:FALSE extendedKeyUsage=serverAuth \
            keyUsage=critical,digitalSignature) -out "$file.crt" 2>/dev/null || fail "the certificate of $1 could not be signed"
}

make_certificates() {
    local server
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    for server in "${SERVERS[@]}"; do make_certificate "$server" "$server" localhost 127.0.0.1; done
    make_certificate entry "${hosts[@]}"
    for server in "${SERVERS[@]}"; do
        # cp writes into a file that is there.
        cp "$work/$server.crt" "$work/$server.key" "$folder"
    done
    cat "$work/entry.crt" "$work/entry.key" >"$folder/entry.pem"
}

if [ -n "$certificates" ]; then
    [ -r "$folder/ca.key" ] || fail "there is no authority in $folder: call it without --certificates first"
    close_folder
    make_certificates
    echo "make_secrets.sh: new certificates for $days days are in $folder"
    exit
fi
[ ! -e "$folder/ca.key" ] || fail "$folder holds secrets already, and servers that know these passwords may run. For new certificates: --certificates"
close_folder
make_passwords
make_authority
make_certificates
echo "make_secrets.sh: passwords, an authority, and certificates for $days days are in $folder"
echo "make_secrets.sh: keep $folder/ca.key elsewhere: only --certificates needs it, and who has it can pose as every server"
