#!/usr/bin/env bash
# Builds the wheel (from the sdist, so that one is whole too), installs it with no extra into an empty
# environment, and looks at it as an Airflow does. Usage: wheel_check.sh CONSTRAINTS
set -euo pipefail
cd "$(dirname "$0")/.."

constraints=$1 uv=$PWD/.venv/bin/uv work=$PWD/build/wheel examples=$PWD/example_dags
rm -rf "$work"
"$uv" build --quiet --out-dir "$work/dist"
ls "$work/dist"

"$uv" venv --quiet --python .venv/bin/python "$work/venv"
python=$work/venv/bin/python
"$uv" pip install --quiet --python "$python" --constraints "$constraints" "$work"/dist/*.whl
"$uv" pip check --python "$python"

# Away from the checkout, so that only what the wheel brought can be imported.
cd "$work"
export AIRFLOW_HOME=$work/airflow AIRFLOW__LOGGING__LOGGING_LEVEL=ERROR \
    AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False
"$work/venv/bin/airflow" providers list --output plain 2> providers.log | grep airflow-provider-quicksync ||
    { cat providers.log; echo "airflow providers list does not show airflow-provider-quicksync"; exit 1; }

"$python" - "$examples" <<'PYTHON'
import sys
from pathlib import Path

from airflow.dag_processing.dagbag import DagBag

import airflow_provider_quicksync as package

home = Path(package.__file__).parent
assert home.is_relative_to(sys.prefix), home
assert (home / "py.typed").exists(), "py.typed is not in the wheel"
for file in sorted(Path(sys.argv[1]).glob("*.py")):
    bag = DagBag(dag_folder=str(file))
    assert not bag.import_errors, "\n".join(bag.import_errors.values())
    assert bag.dags, f"{file.name} holds no DAG"
    print(f"{file.name} imports: {', '.join(bag.dags)}")
print(f"airflow-provider-quicksync {package.__version__}: the wheel is whole")
PYTHON
