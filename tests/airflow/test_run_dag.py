"""The `run_dag` fixture tells of a DAG what the other tests want to know."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    AirflowSkipException,
    BaseSensorOperator,
    task,
)
from airflow.triggers.base import BaseTrigger, TriggerEvent


def dag(**arguments):
    return DAG(dag_id="tiny", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), **arguments)


def test_states_and_xcoms_of_a_plain_run(run_dag):
    with dag() as tiny:

        @task
        def double(number):
            return number * 2

        @task
        def total(numbers):
            return {"total": sum(numbers)}

        total(double.expand(number=[1, 2]))

    result = run_dag(tiny)

    assert result.state == "success"
    assert result.states == {"double[0]": "success", "double[1]": "success", "total": "success"}
    assert result.xcoms == {"double[0]": 2, "double[1]": 4, "total": {"total": 6}}
    assert result.errors == {}


def test_a_second_run_has_the_new_shape_and_its_own_conf(run_dag):
    with dag() as tiny:

        @task
        def told(params=None, ti=None, dag_run=None):
            ti.xcom_push(key="also", value=[1])
            return dag_run.conf["word"]

        told()

    for word in ("one", "two"):
        result = run_dag(tiny, conf={"word": word})
        assert result.states == {"told": "success"}
        assert result.xcoms == {"told": word}
        assert result.xcom("told", "also") == [1]


def test_what_a_failing_task_raised(run_dag):
    with dag() as tiny:

        @task
        def hopeless():
            raise AirflowFailException("no such thing")

        @task
        def mapped(number):
            if number:
                raise ValueError(f"not {number}")

        @task
        def skipped():
            raise AirflowSkipException("nothing to do")

        @task
        def after():
            pass

        hopeless() >> after()
        mapped.expand(number=[0, 1])
        skipped()

    result = run_dag(tiny)

    assert result.state == "failed"
    assert result.states == {
        "hopeless": "failed",
        "after": "upstream_failed",
        "mapped[0]": "success",
        "mapped[1]": "failed",
        "skipped": "skipped",
    }
    assert {task_id: str(error) for task_id, error in result.errors.items()} == {
        "hopeless": "no such thing",
        "mapped[1]": "not 1",
    }


def test_a_retry_runs_again(run_dag):
    with dag(default_args={"retries": 1, "retry_delay": timedelta(seconds=0)}) as tiny:

        @task
        def second_time_lucky(ti=None):
            if ti.try_number == 1:
                raise ValueError("the first time")
            return ti.try_number

        second_time_lucky()

    result = run_dag(tiny)

    assert result.states == {"second_time_lucky": "success"}
    assert result.xcoms == {"second_time_lucky": 2}
    assert str(result.errors["second_time_lucky"]) == "the first time"


class AtOnce(BaseTrigger):
    def __init__(self, word):
        super().__init__()
        self.word = word

    def serialize(self):
        return f"{__name__}.AtOnce", {"word": self.word}

    async def run(self):
        yield TriggerEvent({"word": self.word})


class SecondLook(BaseSensorOperator):
    """Is not done at its first look, and waits in each of the three ways there are."""

    looks = 0

    def __init__(self, *, deferrable=False, **arguments):
        super().__init__(**arguments)
        self.deferrable = deferrable

    def execute(self, context):
        if not self.deferrable:
            return super().execute(context)
        self.defer(trigger=AtOnce("resumed"), method_name="resumed")

    def resumed(self, context, event):
        return event["word"]

    def poke(self, context):
        SecondLook.looks += 1
        return SecondLook.looks > 1


@pytest.mark.parametrize(
    "how",
    [{"mode": "poke"}, {"mode": "reschedule"}, {"deferrable": True}],
    ids=["poke", "reschedule", "deferrable"],
)
def test_waiting(run_dag, how, monkeypatch):
    monkeypatch.setattr(SecondLook, "looks", 0)
    with dag() as tiny:
        SecondLook(task_id="wait", poke_interval=0.01, **how)

    result = run_dag(tiny)

    assert result.states == {"wait": "success"}
    assert result.xcoms == {"wait": "resumed" if "deferrable" in how else None}


def test_a_file_is_loaded_as_airflow_loads_it(run_dag, tmp_path):
    file = tmp_path / "one.py"
    file.write_text(
        "from airflow.providers.common.compat.sdk import dag, task\n"
        "import pendulum\n"
        "@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1))\n"
        "def from_a_file():\n"
        "    @task\n"
        "    def hello():\n"
        "        return 'hello'\n"
        "    hello()\n"
        "from_a_file()\n"
    )

    assert run_dag(file).xcoms == {"hello": "hello"}
