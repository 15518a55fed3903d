#!/bin/bash
# Writes docker/.env, which compose.yaml reads: the variant to build, and new secrets that only you can read.
#   docker/make-env.sh cuda|cpu
set -euo pipefail

variant=${1:-}
if [ "$variant" != cuda ] && [ "$variant" != cpu ]; then
    echo "usage: $0 cuda|cpu" >&2
    exit 2
fi
file=$(dirname "$0")/.env
if [ -e "$file" ]; then
    echo "error: $file is there already; the database knows its password, so edit it, or remove it and the volumes" >&2
    exit 1
fi
secret() {
    od -An -vtx1 -N32 /dev/urandom | tr -d ' \n'
}
# The program runs as you, but never as root.
user=$(id -u)
if [ "$user" = 0 ]; then
    user=1000
fi
umask 077
cat >"$file" <<END
VARIANT=$variant
COMPOSE_PROFILES=$variant
COMMIT=$(git -C "$(dirname "$0")" rev-parse HEAD 2>/dev/null || true)
USER_ID=$user
HOST_NAME=$(uname -n)
RAY_AUTH_TOKEN=$(secret)
POSTGRES_PASSWORD=$(secret)
GRAFANA_PASSWORD=$(secret)
END
echo "wrote $file"
