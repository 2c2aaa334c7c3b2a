#!/usr/bin/env bash
# Writes constraints/airflow-*.txt anew: names and versions only, for Python 3.11 to 3.13.
# Each older Airflow is resolved as of a day soon after its release, so that it is tested with the
# libraries of its time and a new release elsewhere cannot break it; the newest Airflow takes the newest.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() { # compile AIRFLOW_VERSION [uv option ...]
    local version=$1 target="constraints/airflow-${1%.*}.txt"
    shift
    echo "apache-airflow==$version" |
        .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header \
            --no-emit-index-url --no-emit-find-links \
            --constraints - pyproject.toml --all-extras --group dev "$@" |
        grep --invert-match --extended-regexp "://|^-|>= '3\.14'" > "$target.new"
    mv "$target.new" "$target"
    echo "$target: Airflow $version, $(wc -l < "$target") packages"
}

compile 2.11.2 --exclude-newer 2026-03-15
# The shim that gives one import path for every Airflow came out after 3.0's last patch.
compile 3.0.6 --exclude-newer 2025-09-05 \
    --exclude-newer-package apache-airflow-providers-common-compat=2026-01-18
compile 3.1.8 --exclude-newer 2026-03-15
compile 3.2.2 --exclude-newer 2026-06-15
compile 3.3.2
