#!/bin/sh
# Runs a command as soon as a lease of a process is at risk, so that it stops leading before it is expired:
#
#   fence.sh PID COMMAND [ARGUMENT...]
#   fence.sh "$(pidof mymaster)" systemctl kill --signal=KILL mymaster
#
# It asks lease-watchdog on its Unix socket (SOCKET in the environment names another) and needs curl. Leaves
# with the command's own exit code; with 0 when the process has gone; with 2 on wrong usage. While nobody
# answers it says so and asks on: then nothing is known, and the process has only its own clock.

if [ $# -lt 2 ]; then
    echo "usage: fence.sh PID COMMAND [ARGUMENT...]" >&2
    exit 2
fi
pid=$1
shift
socket=${SOCKET:-/run/lease-watchdog/api.sock}
question="http://lease/api/v1/mine?pid=$pid&wait=at_risk&timeout=10"

while [ -d "/proc/$pid" ]; do
    if answer=$(curl -sS --fail-with-body --max-time 15 --unix-socket "$socket" "$question" 2>&1); then
        case $answer in
        *'"reached":true'*) exec "$@" ;;
        esac
    else
        echo "fence.sh: nobody watches: $answer" >&2
        sleep 1
    fi
done
