"""What holds for every operator and sensor: arguments, templates, copies, serialisation, documentation."""

from __future__ import annotations

import copy
import inspect
import json
import re
from datetime import UTC, datetime

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator

import airflow_provider_quicksync.operators
import airflow_provider_quicksync.sensors

CLASSES = sorted(
    {
        found
        for module in (airflow_provider_quicksync.operators, airflow_provider_quicksync.sensors)
        for found in vars(module).values()
        if inspect.isclass(found)
        and issubclass(found, BaseOperator)
        and found.__module__.startswith("airflow_provider_quicksync")
    },
    key=lambda found: found.__name__,
)
every_class = pytest.mark.parametrize("operator", CLASSES, ids=lambda found: found.__name__)


def arguments(operator):
    """The arguments of a class that are its own."""
    return [
        name
        for name, parameter in inspect.signature(operator.__init__).parameters.items()
        if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
    ]


def documented(operator):
    """What the docstring says of each argument."""
    return dict(re.findall(r":param (\w+): (.*?)(?=\n\s*:param|\Z)", inspect.getdoc(operator), re.DOTALL))


def sample(operator, **more):
    """An operator with a different value, which nothing converts, for each of its own arguments."""
    values = {name: f"value-of-{name}" for name in arguments(operator)}
    # Airflow's sensors check these.
    values |= {name: 60 for name in ("poke_interval",) if name in values}
    return operator(task_id="it", **values, **more), values


def dag():
    return DAG(dag_id="general", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC))


def test_there_are_some():
    names = {found.__name__ for found in CLASSES}
    assert {
        "UploadToQuickSyncOperator",
        "DeleteQuickSyncFileOperator",
        "QuickSyncUploadCompletionSensor",
    } <= names


@every_class
def test_every_argument_is_documented(operator):
    assert list(documented(operator)) == arguments(operator)


@every_class
def test_every_argument_is_stored_as_it_is_under_its_own_name(operator):
    made, values = sample(operator)
    assert {name: getattr(made, name) for name in values} == values


@every_class
def test_arguments_are_by_keyword_only(operator):
    parameters = inspect.signature(operator.__init__).parameters
    kinds = {parameters[name].kind for name in arguments(operator)}
    assert kinds <= {inspect.Parameter.KEYWORD_ONLY}


@every_class
def test_what_is_said_to_be_templated_is(operator):
    said = {name for name, text in documented(operator).items() if "(templated)" in text}
    assert said == set(operator.template_fields)


@every_class
def test_templates_are_rendered(operator):
    made, _ = sample(operator)
    for name in operator.template_fields:
        setattr(made, name, "{{ word }}-" + name)
    made.render_template_fields({"word": "rendered"})
    assert {name: getattr(made, name) for name in operator.template_fields} == {
        name: f"rendered-{name}" for name in operator.template_fields
    }


@every_class
def test_a_copy_is_equal(operator):
    made, values = sample(operator)
    made.on_kill()
    copied = copy.deepcopy(made)
    copied.on_kill()
    assert {name: getattr(copied, name) for name in values} == values


@every_class
def test_it_survives_the_serialisation_of_its_dag(operator):
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialized
    except ImportError:
        from airflow.serialization.serialized_objects import SerializedDAG as Serialized

    with dag() as one:
        made, _ = sample(operator)
    data = json.loads(json.dumps(Serialized.to_dict(one)))
    rebuilt = Serialized.from_dict(data).get_task("it")
    assert rebuilt.task_type == operator.__name__
    for name in operator.template_fields:
        assert getattr(rebuilt, name) == getattr(made, name)
    assert rebuilt.ui_color == operator.ui_color


@every_class
def test_it_can_be_mapped_over_each_templated_argument(operator):
    for name in operator.template_fields:
        with dag():
            rest = {other: f"value-of-{other}" for other in operator.template_fields if other != name}
            mapped = operator.partial(task_id="it", **rest).expand(**{name: ["a", "b"]})
        assert set(mapped.template_fields) == set(operator.template_fields)


@every_class
def test_a_misspelt_argument_is_refused(operator):
    with pytest.raises((TypeError, Exception), match="quicksync_con_id"):
        sample(operator, quicksync_con_id="x")


@every_class
def test_it_has_a_colour_of_its_own_in_the_ui(operator):
    assert operator.ui_color != BaseOperator.ui_color
