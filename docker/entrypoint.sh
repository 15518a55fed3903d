#!/bin/bash
# What a container does: `head` or `worker` of a Ray cluster, or any other command, such as `orchestrate plan GRID`.
# Further arguments go to `ray start`, and win over those given here.
set -euo pipefail

require_token() {
    if [ -z "${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-}" ]; then
        echo "error: RAY_AUTH_TOKEN is not set; give every node of the cluster the same one (openssl rand -hex 32)" >&2
        exit 2
    fi
}

case "${1:-}" in
head)
    require_token
    # The address of this node, should it have been told one, is for drivers.
    exec env --unset=RAY_ADDRESS ray start --head --block --port=6379 --dashboard-host=0.0.0.0 --dashboard-port=8265 \
        --metrics-export-port=8080 "${@:2}"
    ;;
worker)
    require_token
    if [ -z "${RAY_ADDRESS:-}" ]; then
        echo "error: RAY_ADDRESS is not set; it says where the head is, such as head:6379" >&2
        exit 2
    fi
    exec ray start --address="$RAY_ADDRESS" --block --metrics-export-port=8080 "${@:2}"
    ;;
*)
    exec "$@"
    ;;
esac
