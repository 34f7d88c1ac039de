#!/usr/bin/env bash
# Serves models of this machine over HTTP: ./api.sh --host 127.0.0.1 --port 8123 --model starter
# Makes the Python environment on the first run, as run.sh does, and then becomes `llm-local serve`.
set -u

# The project's folder, also when api.sh is called through a symbolic link.
source=${BASH_SOURCE[0]}
while [ -L "$source" ]; do
  folder=$(CDPATH='' cd -P -- "$(dirname -- "$source")" && pwd) || exit 1
  source=$(readlink -- "$source") || exit 1
  case $source in /*) ;; *) source=$folder/$source ;; esac
done
case $source in */*) folder=${source%/*} ;; *) folder=. ;; esac

exec "${folder:-/}/run.sh" llm-local serve "$@"
