#!/usr/bin/env bash
# Makes the login `monitor` of postgres_exporter on both servers, then waits to be stopped. Its password is random, and in a file that only the
# exporters see: nobody else needs it.
set -euo pipefail
# Process 1 has no default action for a signal.
trap 'exit 0' TERM INT

password=/login/password
if [ ! -s $password ]; then
    od -An -v -N24 -tx1 /dev/urandom | tr -d ' \n' >$password.new
    mv $password.new $password
fi

# make_login MODEL: as its administrator.
make_login() {
    local host=$1_HOST port=$1_PORT user=$1_USER secret=$1_PASSWORD database=$1_NAME
    PGHOST=${!host} PGPORT=${!port} PGUSER=${!user} PGPASSWORD=${!secret} PGDATABASE=${!database} PGCONNECT_TIMEOUT=5 MONITOR_PASSWORD=$(cat $password) \
        psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 <<'SQL'
\getenv password MONITOR_PASSWORD
SELECT set_config('pydist.monitor', 'monitor', false), set_config('pydist.monitor_password', :'password', false) \g /dev/null
\i /usr/local/share/pydist/monitor.sql
SQL
}

# The first start of a server takes seconds.
for model in WRITE_MODEL READ_MODEL; do
    until make_login $model; do
        sleep 2 &
        wait $!
    done
done
echo "the login monitor is on both servers"
touch /tmp/made
while true; do
    sleep 3600 &
    wait $!
done
