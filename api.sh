#!/usr/bin/env bash
# Starts the API server in llm-local's own environment: ./api.sh --host 127.0.0.1 --port 8123 --model starter
self=$(readlink -f -- "${BASH_SOURCE[0]}") && root=$(dirname -- "$self") || exit
exec "$root/run.sh" llm-local serve "$@"
