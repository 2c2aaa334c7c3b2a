from datetime import datetime

import pytest


def dag_of(sensor_kwargs, up_kwargs={}):
    from airflow.providers.common.compat.sdk import DAG

    from airflow_provider_quicksync.operators import UploadToQuickSyncOperator
    from airflow_provider_quicksync.sensors import QuickSyncUploadCompletionSensor

    with DAG("tmpd", start_date=datetime(2026, 1, 1), schedule=None) as dag:
        up = UploadToQuickSyncOperator(task_id="up", data="x", name="n.txt", **up_kwargs)
        QuickSyncUploadCompletionSensor(
            task_id="wait", file_key=up.output, poke_interval=0.2, timeout=20, **sensor_kwargs
        )
    return dag


@pytest.mark.parametrize("kw", [{"deferrable": True}, {"deferrable": True, "end_from_trigger": True}, {}])
def test_d(run_dag, quicksync_local, kw):
    quicksync_local.configure(complete_after_seconds=1)
    r = run_dag(dag_of(kw))
    assert r.state == "success", (r.states, r.errors)
    print(r.xcoms)
    assert r.xcoms["wait"]["completed"]


def test_op(run_dag, quicksync_local):
    quicksync_local.configure(complete_after_seconds=1)
    r = run_dag(
        dag_of(
            {},
            {"wait_for_completion": True, "deferrable": True, "poke_interval": 0.2, "if_exists": "replace"},
        )
    )
    assert r.state == "success", (r.states, r.errors)
    assert r.xcoms["up"]["completed"]
    r = run_dag(dag_of({}, {"deferrable": True, "poke_interval": 0.2, "if_exists": "replace"}))
    assert r.state == "success", (r.states, r.errors)
    assert len(quicksync_local.files()) == 1
