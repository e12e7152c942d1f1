#!/usr/bin/env bash
# Makes the secrets of docker-compose.production.yml: passwords, an authority of its own, and a certificate for each server and service.
#
#   scripts/make_secrets.sh [--host NAME]... [--days N]
#   scripts/make_secrets.sh --certificates [--host NAME]... [--days N]     new certificates by the same authority; passwords stay
#
#   --host   a name or address by which clients reach `entry`; default: that of its last certificate, else localhost. That certificate,
#            entry.pem, may be replaced by one of a public authority: certificate, chain and key in one file. Such a one stays as it is.
#   --days   how long the certificates are valid; default: 365
#
# They are in secrets/, or the folder that SECRETS_DIR names. Files are written in place, so running containers see the new content.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PASSWORDS=(write_model_postgres read_model_postgres write_model_db read_model_db create_buy_order_db buy_order_voider_db
    read_model_sync_db fetch_buy_orders_db q migration_q create_buy_order_q read_model_sync_q)
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
    -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0" && exit ;;
    *) fail "unknown argument '$1': see --help" ;;
    esac
    shift
done
command -v openssl >/dev/null || fail "openssl is missing: install the package 'openssl'"

# Everything is made in here first.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

make_passwords() {
    local name
    for name in "${PASSWORDS[@]}"; do openssl rand -hex 24 >"$work/${name}_password"; done
}

new_key() { openssl ecparam -name prime256v1 -genkey -noout; }

make_authority() {
    new_key >"$work/ca.key"
    openssl req -x509 -new -key "$work/ca.key" -days 3650 -subj "/CN=pydist authority $(openssl rand -hex 4)" -out "$work/ca.crt" \
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

# make_certificate FILE NAME...: FILE.crt and FILE.key, for these names.
make_certificate() {
    local file=$work/$1 said
    shift
    new_key >"$file.key"
    openssl req -new -key "$file.key" -subj "/CN=$1" -out "$file.csr"
    said=$(openssl x509 -req -in "$file.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -set_serial "0x$(openssl rand -hex 16)" -days "$days" \
        -extfile <(printf '%s\n' "subjectAltName=$(alternative_names "$@")" basicConstraints=CA:FALSE extendedKeyUsage=serverAuth \
            keyUsage=critical,digitalSignature) -out "$file.crt" 2>&1) || fail "the certificate of $1 could not be signed: $said"
    rm "$file.csr"
}

make_certificates() {
    local server
    for server in "${SERVERS[@]}"; do make_certificate "$server" "$server" localhost 127.0.0.1; done
}

# The names in the last certificate of `entry`, unless it is of another authority.
names_of_entry() {
    openssl verify -CAfile "$work/ca.crt" "$folder/entry.pem" >/dev/null 2>&1 || return
    # LibreSSL has no -ext.
    openssl x509 -in "$folder/entry.pem" -noout -text | sed -n '/Subject Alternative Name/{n;p;}' | grep -oE '(DNS|IP Address):[^, ]+' | cut -d : -f 2-
}

make_certificate_of_entry() {
    local name
    if [ ${#hosts[@]} -eq 0 ] && [ -e "$folder/entry.pem" ]; then
        while IFS= read -r name; do hosts+=("$name"); done < <(names_of_entry)
        if [ ${#hosts[@]} -eq 0 ]; then
            echo "make_secrets.sh: $folder/entry.pem is of another authority and stays as it is"
            return
        fi
    fi
    [ ${#hosts[@]} -gt 0 ] || hosts=(localhost)
    make_certificate entry ${hosts[@]+"${hosts[@]}"}
    cat "$work/entry.crt" "$work/entry.key" >"$work/entry.pem"
    rm "$work/entry.crt" "$work/entry.key"
}

# The folder is closed to others. In it, containers read the files as users of their own, except for the authority's key.
put_into_folder() {
    mkdir -p "$folder"
    chmod 700 "$folder"
    # cp writes into a file that is there.
    (umask 022 && cp "$work"/* "$folder")
    chmod 600 "$folder"/ca.key
    # So do they read these files of the clone, which a strict umask would keep from them.
    chmod a+r docker/entry/haproxy.cfg docker/fluentd/fluent.conf docker/postgres/* docker/rabbitmq/* migrations/broker_users.sh migrations/owner.sql
    if command -v selinuxenabled >/dev/null && selinuxenabled; then chcon -R -t container_file_t "$folder"; fi
}

if [ -n "$certificates" ]; then
    for file in ca.crt ca.key; do
        [ -r "$folder/$file" ] || fail "$folder/$file is missing: put it there for this call"
        cp "$folder/$file" "$work"
    done
else
    for file in "$folder"/ca.* "$folder"/*_password; do
        [ ! -e "$file" ] || fail "$folder holds secrets already, and servers that know them may run. For new certificates: --certificates"
    done
    make_passwords
    make_authority
fi
make_certificates
make_certificate_of_entry
put_into_folder
if [ -n "$certificates" ]; then
    echo "make_secrets.sh: new certificates for $days days are in $folder"
else
    echo "make_secrets.sh: passwords, an authority, and certificates for $days days are in $folder"
    echo "make_secrets.sh: keep $folder/ca.key elsewhere: only --certificates needs it, and who has it can pose as every server"
fi
