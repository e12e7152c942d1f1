# shellcheck shell=bash
# Sourced, in the root of the repository: tells what is running of this clone.

# A native cluster holds its lock while it runs.
runs_natively() { [ -e .cluster/lock ] && ! flock --nonblock .cluster/lock true 2>/dev/null; } # Linux

# native_process SERVICE: the process id of a service of the native cluster. The kernel keeps the first 15 characters of a name.
native_process() {
    pgrep --parent "$(cat .cluster/lock)" --exact "${1:0:15}" || { # Linux
        echo "${0##*/}: $1 does not run" >&2
        return 1
    }
}

# The names of exported variables that a program gets from us, not from the environment of the service.
replaced=()

# run_again PROCESS ARGUMENTS...: runs the program of a process once more, in its environment, except for `replaced`. The shell itself sets
# the variables: among the arguments of a program like env, every user of the machine could read the passwords.
run_again() (
    process=$1
    shift
    kept=()
    for name in ${replaced[@]+"${replaced[@]}"}; do kept+=("$name=${!name}"); done
    while IFS= read -r name; do unset "$name" || true; done < <(compgen -e)
    # shellcheck disable=SC2163 # the names are in the values
    while IFS= read -r -d '' variable; do export "$variable"; done <"/proc/$process/environ" # Linux
    # shellcheck disable=SC2163
    for variable in ${kept[@]+"${kept[@]}"}; do export "$variable"; done
    exec "/proc/$process/exe" "$@" # Linux
)

# demands_tokens natively|in_docker: whether it runs so, with the issuer of ./run.sh --auth.
demands_tokens() {
    case $1 in
    natively) [ -e .cluster/issuer.key ] && runs_natively ;;
    in_docker) runs_in_docker && [[ $(<.cluster/docker_mode) == *docker-compose.auth.yml* ]] ;;
    esac
}

# ./run.sh writes this record before the first container starts. It is removed after the last has ended.
runs_in_docker() { [ -e .cluster/docker_mode ]; }

# Also of a deployment that ./run.sh did not start: COMPOSE_FILE names its files, as for Compose itself.
has_containers() { [ -n "${COMPOSE_FILE:-}" ] || runs_in_docker; }
