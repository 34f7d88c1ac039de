#!/usr/bin/env bash
# Starts the plain chat in llm-local's own environment; run.sh makes that on the first run.
self=$(readlink -f -- "${BASH_SOURCE[0]}") && root=$(dirname -- "$self") || exit
exec "$root/run.sh" -m llm_local.chat_cli "$@"
