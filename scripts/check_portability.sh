#!/usr/bin/env bash
# Fails where a script uses what is not on every machine that it is for: bash 3.2 and BSD tools, as on macOS. Called by CI.
#
#   scripts/check_portability.sh [FILE...]    all scripts of the repository without FILE
#
# A line that ends with "# Linux" is for clusters that run natively, and may use anything.
set -euo pipefail

# These are for Linux by their nature: servers as processes, packages of Debian, CI, tests. All others are for every machine.
LINUX='^(bench|test)\.sh$|^\.ci/|^crates/|^docker/|^migrations/|^scripts/(check_advisories|check_openapi|check_operations|check_portability|ensure_[a-z]+|fuzz|test_docker)\.sh$'

# A rule is an extended regular expression, a line that it must find, and what to write instead, with two blanks between them.
# shellcheck disable=SC2016 # no expansions
EVERYWHERE='
(^|[^|])\|[[:space:]]*(grep[[:space:]]+-[a-zA-Z]*q|head[[:space:]]|sed[[:space:]][^|]*q[;}]*['"'"'"])  docker version | grep -q denied  $(...) and [[ ]] or ${x%%...}: the left side of the pipe may die of SIGPIPE, which pipefail takes for its result
'
# shellcheck disable=SC2016
PORTABLE='
(^|[^[:alnum:]_-])(mapfile|readarray)([^[:alnum:]_-]|$)  mapfile -t lines < <(ls)  while IFS= read -r
\$\{[A-Za-z_0-9]+(\[[@*]\])?(\^|,)  ${name^^}  case, or tr
\$\{[A-Za-z_0-9]+(\[[@*]\])?@[A-Za-z]\}  ${name@Q}  printf %q
\$\{[A-Za-z_0-9]+:[^}]*:[[:space:]]*-[0-9]  ${name:0:-1}  ${x%?}: no negative lengths
(^|[^[:alnum:]_-])(declare|local|typeset)[[:space:]]+-[a-zA-Z]*[Agn]  local -n name=$1  one variable for each name, by printf -v and ${!name}
&>>|\|&  ls &>>log  >>file 2>&1
\[\[?[[:space:]]+-v[[:space:]]  [[ -v name ]]  [ -n "${x+set}" ]
(^|[[:space:]])wait[[:space:]]+-n  wait -n  wait for a process id
(^|[[:space:]])coproc[[:space:]]  coproc ls  a named pipe
;;?&  a) ls ;;&  one pattern with |
exec[[:space:]]+\{  exec {file}<.env  a number
%\([^)]*\)T|EPOCHSECONDS|EPOCHREALTIME|BASHPID|SRANDOM  printf '"'"'%(%s)T'"'"'  date +%s, $$, /dev/urandom
(globstar|lastpipe|inherit_errexit)  shopt -s globstar  find, a loop over < <(...)
read[[:space:]][^|;]*-[a-zA-Z]*([iN][[:space:]]|t[[:space:]]*0?\.[0-9])  read -t 0.1 answer  read -n, whole seconds
\{0[0-9]+\.\.  {01..10}  printf %02d
\$'"'"'[^'"'"']*\\[uU]  $'"'"'\u00a0'"'"'  bytes: \x..
(^|[^+A-Za-z0-9_])"\$\{[a-z_]+\[@\]\}"  ls "${list[@]}"  ${list[@]+"${list[@]}"}: with set -u, an empty list is an unbound variable there
/proc/|/sys/  cat /proc/self/status  ps, or the line is for Linux
(^|[^[:alnum:]_./-])(timeout|flock|setsid|setpriv|realpath|tac|shuf|numfmt)[[:space:]]+[-"$[:alnum:]./]  timeout 10 docker version  within of docker_engine.sh; nothing of Linux alone
(^|[^[:alnum:]_./-])(sha256sum|sha1sum|md5sum)([^[:alnum:]_]|$)  sha256sum file  "${SHA256[@]}" of image_labels.sh
(^|[^[:alnum:]_./-])nproc([^[:alnum:]_]|$)  make -j"$(nproc)"  getconf _NPROCESSORS_ONLN
(^|[^[:alnum:]_./-])uuidgen  $(uuidgen)  new_uuid of settings.sh
stat[[:space:]]+-c|readlink[[:space:]]+-[a-zA-Z]*[fem]  readlink -f file  [ -O ], cd and pwd -P
sed[[:space:]]+(-[a-zA-Z]*[irsz]|--)  sed -i s/a/b/ file  sed -E, a new file
sed[[:space:]][^|]*[{;][^|}]*[^;[:space:]{]\}['"'"'"]  sed -n '"'"'/a/{/b/p}'"'"'  a ; before the }
grep[[:space:]]+-[a-zA-Z]*P  grep -oP a  grep -E
date[[:space:]][^|)]*(-d|--|%N)  date -d yesterday  date -u +...
xargs[[:space:]][^|]*(-r|-d|--)  xargs -r ls  a loop
find[[:space:]][^|]*(-printf|-regextype|-executable)  find . -printf %f  -exec
(sort|uniq)[[:space:]][^|]*(-[a-zA-Z]*[zV]|--)  sort -z  names without line breaks
(^|[;&|({`]|[[:space:]](do|then|else|!))[[:space:]]*(cp|mv|ln|rm|mkdir|mktemp|ps|pgrep|cut|tr|df|du|ls)[[:space:]]+([^|;&]*[[:space:]])?--[a-z]  cp --parents file folder  short options
head[[:space:]]+-c  head -c 10  dd, od -N
paste[[:space:]]+-[a-z]+([[:space:]]+['"'"'"][^'"'"'"]+['"'"'"])?[[:space:]]*(\)|\||$)  paste -sd '"'"','"'"'  paste ... -
base64[[:space:]]+-w  base64 -w0  base64 | tr -d
tar[[:space:]][^|]*-c[[:space:]]  tar -c .  tar -cf -
openssl[[:space:]]+x509[[:space:]][^|]*-ext[[:space:]]  openssl x509 -noout -ext subjectAltName  openssl x509 -text
'

failed=0
# check RULES FILE...: names each line that a rule forbids.
check() {
    local rules=$1 rule pattern example found
    shift
    while IFS= read -r rule; do
        [ -n "$rule" ] || continue
        pattern=${rule%%  *} rule=${rule#*  }
        example=${rule%%  *}
        grep -E -e "$pattern" <<<"$example" >/dev/null || { echo "portability: '$pattern' does not find its example, '$example'" >&2 && failed=1; }
        found=$(grep -nHE -e "$pattern" "$@" | grep -vE '^[^:]+:[0-9]+:[[:space:]]*#|# Linux$' || true)
        [ -n "$found" ] || continue
        printf '%s\n    write instead: %s\n' "$found" "${rule#*  }" >&2
        failed=1
    done <<<"$rules"
}

if [ $# -gt 0 ]; then
    all=("$@")
    portable=("$@")
else
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    mapfile -t all < <(find . -name '*.sh' -not -name check_portability.sh -not -path './target/*' -not -path './.cluster/*' -not -path '*/node_modules/*' | sed 's|^\./||' && echo .ci/run)
    mapfile -t portable < <(printf '%s\n' "${all[@]}" | grep -vE "$LINUX")
fi
check "$EVERYWHERE" "${all[@]}"
check "$PORTABLE" "${portable[@]}"
[ "$failed" -eq 0 ] || exit 1
[ $# -gt 0 ] || echo "portability: ${#portable[@]} of ${#all[@]} scripts are for every machine, and use nothing that is not there"
