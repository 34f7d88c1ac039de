#!/usr/bin/env bash
# Starts the API server in llm-local's own environment.
self=$(readlink -f -- "${BASH_SOURCE[0]}") && root=$(dirname -- "$self") || exit
if [ ! -f "$root/src/llm_local/api_server.py" ]; then
  echo "api.sh: error: the API server is not built yet; ask one question with ./run.sh scripts/run_once.py \"Hello\"." >&2
  exit 1
fi
exec "$root/run.sh" -m llm_local.api_server "$@"
