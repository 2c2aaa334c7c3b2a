"""What the tests share: an Airflow of their own, in a folder that is thrown away.

Airflow reads its settings when it is first imported, so they are set here, before any test module is.
Nothing here imports Airflow at the top: tests of the client and of the local server don't pay for it.
"""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = ["airflow_provider_quicksync.local.testing"]

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE_DAGS = ROOT / "example_dags"


def _own_airflow() -> Path:
    """Point Airflow at a new, empty home, whatever the developer's own environment says."""
    for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
        del os.environ[name]
    home = Path(tempfile.mkdtemp(prefix="airflow-home-"))
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLE_DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # Two tests may give one dag_id two shapes within Airflow's default of 30 seconds.
        "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        # Not UNIT_TEST_MODE: it replaces the settings by those of Airflow's own test suite, and lets
        # operators be called as no user's Airflow would.
    }
    return home


AIRFLOW_HOME = _own_airflow()


def pytest_collection_finish() -> None:
    """Hide what was imported from the garbage collector: tests collect often, and Airflow is large."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def airflow_db(pytestconfig: pytest.Config) -> Path:
    """Airflow's metadata database, empty and migrated.

    Migrating takes seconds: it is done once per Airflow version, kept in pytest's cache, and copied.
    """
    database = AIRFLOW_HOME / "airflow.db"
    cache = getattr(pytestconfig, "cache", None)  # absent under `-p no:cacheprovider`
    folder = cache.mkdir("airflow-db") if cache else AIRFLOW_HOME
    kept = folder / f"{importlib.metadata.version('apache-airflow')}.db"
    if kept.exists():
        shutil.copy(kept, database)
        return database
    migrated = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"], capture_output=True, text=True, check=False
    )
    assert migrated.returncode == 0, migrated.stdout + migrated.stderr
    partial = kept.with_name(f"{kept.name}.{os.getpid()}")
    shutil.copy(database, partial)
    partial.replace(kept)
    return database


@pytest.fixture(autouse=True)
def _no_masks() -> None:
    """Forget other tests' secrets: Airflow seeks each in each line, and compiles all at a new one."""
    for place, module in list(sys.modules.items()):
        if place.endswith("secrets_masker") and hasattr(module, "_secrets_masker"):
            masker = module._secrets_masker()
            masker.patterns, masker.replacer = set(), None


@dataclass(frozen=True)
class DagResult:
    """What a DAG run left: by task, or by `task[map_index]` where a task is mapped."""

    dag_run: Any
    state: str
    states: dict[str, str | None] = field(default_factory=dict)
    xcoms: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, BaseException] = field(default_factory=dict)

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return any other XCom than the return value, which `xcoms` has."""
        for ti in self.dag_run.get_task_instances():
            if (ti.task_id, ti.map_index) == (task_id, map_index):
                return ti.xcom_pull(task_ids=task_id, key=key, map_indexes=map_index)
        raise KeyError((task_id, map_index))


@pytest.fixture
def run_dag(airflow_db: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DagResult]:
    """Run a DAG in this process, with no scheduler: `run_dag(dag_or_file, dag_id=None, conf=None)`.

    Given a file, it is loaded as Airflow loads it, and must hold one DAG unless `dag_id` names which; a
    relative path starts at `example_dags`. The run is `dag.test()`, with what it needs from 2.11 to 3.3:

    - each run has a logical date of its own (the current time): 2.11 refuses a repeated one;
    - 3.1 and later run only a DAG that the database has a serialised version of, so that one is written
      first; a DAG that a test builds doesn't have to be in the DAGs folder;
    - 3.3 parses the whole DAGs folder at each run: during a run its bundle is an empty folder;
    - what a task raised is logged and dropped by `dag.test()`: it is caught on the way, into `errors`;
    - 3.0 to 3.2 build their API server anew for each task, in seconds: one is kept, as 3.3 does;
    - 3.0 gives a task in this process the time of its first reschedule as text: it is parsed.

    A deferred task's trigger runs inline, up to its first event. A task that is to be tried again, or a
    sensor that reschedules, really waits: keep `retry_delay` and `poke_interval` small.
    """
    errors: dict[str, BaseException] = {}
    _catch_errors(monkeypatch, errors)

    def run(dag_or_file: Any, *, dag_id: str | None = None, conf: dict[str, Any] | None = None) -> DagResult:
        dag = _load(dag_or_file, dag_id) if isinstance(dag_or_file, str | Path) else dag_or_file
        errors.clear()
        with monkeypatch.context() as empty_bundle:
            empty_bundle.setenv(
                "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", _bundle(AIRFLOW_HOME / "dags")
            )
            _serialise(dag)
            dag_run = dag.test(run_conf=conf)
        tis = dag_run.get_task_instances()
        return DagResult(
            dag_run=dag_run,
            state=str(dag_run.state),
            states={_label(ti): ti.state and str(ti.state) for ti in tis},
            xcoms={_label(ti): ti.xcom_pull(task_ids=ti.task_id, map_indexes=ti.map_index) for ti in tis},
            errors=dict(errors),
        )

    return run


@pytest.fixture
def load_dags(airflow_db: Path) -> Callable[[str | Path], dict[str, Any]]:
    """Load a file or folder as Airflow loads it: `load_dags(path)`, its DAGs by their ids."""

    def load(path: str | Path) -> dict[str, Any]:
        bag = _dag_bag(path)
        assert not bag.import_errors, "\n".join(bag.import_errors.values())
        return dict(bag.dags)

    return load


def _load(file: str | Path, dag_id: str | None) -> Any:
    """Load a DAG file as Airflow does, and return its DAG."""
    bag = _dag_bag(EXAMPLE_DAGS / file)
    assert not bag.import_errors, "\n".join(bag.import_errors.values())
    if dag_id is None:
        assert len(bag.dags) == 1, f"{file} holds {sorted(bag.dags)}: name one with dag_id"
        dag_id = next(iter(bag.dags))
    return bag.dags[dag_id]


def _dag_bag(folder: str | Path) -> Any:
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # before 3.2
        from airflow.models.dagbag import DagBag
    return DagBag(dag_folder=str(folder))


def _serialise(dag: Any) -> None:
    """Write the DAG to the database as the DAG processor would; 2.11 and 3.0 need only its assets there."""
    try:
        from airflow.dag_processing.dagbag import sync_bag_to_db
    except ImportError:
        try:
            from airflow.models.dagbag import sync_bag_to_db  # 3.1
        except ImportError:
            _write_assets(dag)
            return
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    DagBundlesManager().sync_bundles_to_db()
    bag = _dag_bag(os.devnull)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)


def _write_assets(dag: Any) -> None:
    try:
        from airflow.dag_processing.bundles.manager import DagBundlesManager
    except ImportError:
        dag.sync_to_db()  # 2.11
        return
    DagBundlesManager().sync_bundles_to_db()
    bag = _dag_bag(os.devnull)
    dag.relative_fileloc = dag.relative_fileloc or dag.fileloc
    bag.bag_dag(dag)
    bag.sync_to_db("dags-folder", None)


def _bundle(folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    bundle = {"name": "dags-folder", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle"}
    return json.dumps([bundle | {"kwargs": {"path": str(folder)}}])


def _catch_errors(monkeypatch: pytest.MonkeyPatch, errors: dict[str, BaseException]) -> None:
    """Note what each failing attempt of a task raised, the last one of a task winning."""
    try:
        from airflow.sdk.execution_time import supervisor
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    except ImportError:  # 2.11
        from airflow.models.taskinstance import TaskInstance

        run_raw_task = TaskInstance._run_raw_task

        def noting(ti: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return run_raw_task(ti, *args, **kwargs)
            except Exception as error:
                errors[_label(ti)] = error
                raise

        monkeypatch.setattr(TaskInstance, "_run_raw_task", noting)
        return
    run_task, api_server = supervisor.run_task_in_process, _one_api_server(supervisor)

    def run_task_noting(ti: Any, *args: Any, **kwargs: Any) -> Any:
        result = run_task(ti, *args, **kwargs)
        if result.error is not None:
            errors[_label(ti)] = result.error
        return result

    ask_when = RuntimeTaskInstance.get_first_reschedule_date

    def first_reschedule(ti: Any, context: Any) -> Any:
        found = ask_when(ti, context)
        return datetime.fromisoformat(found) if isinstance(found, str) else found

    monkeypatch.setattr(RuntimeTaskInstance, "get_first_reschedule_date", first_reschedule)
    monkeypatch.setattr(supervisor, "run_task_in_process", run_task_noting)
    monkeypatch.setattr(supervisor, "in_process_api_server", api_server)


@functools.cache
def _one_api_server(supervisor: Any) -> Any:
    return functools.cache(supervisor.in_process_api_server)


def _label(ti: Any) -> str:
    return ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]"
