#!/usr/bin/env bash
# Starts the rich chat in llm-local's own environment.
self=$(readlink -f -- "${BASH_SOURCE[0]}") && root=$(dirname -- "$self") || exit
exec "$root/run.sh" -m llm_local.chat_cli_rich "$@"
