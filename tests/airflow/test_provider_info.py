"""What Airflow discovers, and the connection form that each version makes of it."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import airflow
import jsonschema
import pytest

from airflow_provider_quicksync.hooks import QuickSyncHook
from airflow_provider_quicksync.provider_info import CONNECTION_FIELDS, FORM_BEHAVIOUR, get_provider_info

VERSION = tuple(map(int, importlib.metadata.version("apache-airflow").split(".")[:2]))
PASSWORDS = {name for name, field in CONNECTION_FIELDS.items() if field["schema"].get("format") == "password"}


def in_a_new_process(program):
    """Run a program that prints JSON last, in a process whose Airflow has not met this one's."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1]), ended.stdout + ended.stderr


def schema(name):
    return json.loads((Path(airflow.__file__).parent / name).read_text())


def test_the_info_validates_as_airflow_validates_it():
    jsonschema.validate(get_provider_info(), schema("provider_info.schema.json"))


def test_what_airflow_knows_of_connection_types_validates_too():
    """The runtime schema takes anything there; the one for provider.yaml is strict."""
    types = schema("provider.yaml.schema.json")["properties"]["connection-types"]
    jsonschema.validate(get_provider_info()["connection-types"], types)


def test_every_module_and_class_exists():
    info = get_provider_info()
    for kind in ("hooks", "operators", "sensors"):
        for entry in info[kind]:
            for module in entry["python-modules"]:
                importlib.import_module(module)
    (connection,) = info["connection-types"]
    module, _, name = connection["hook-class-name"].rpartition(".")
    hook = getattr(importlib.import_module(module), name)
    assert (hook.conn_type, hook.hook_name) == (connection["connection-type"], connection["hook-name"])


def test_airflow_discovers_it():
    (name, hook), _ = in_a_new_process(
        "import json\n"
        "from airflow.providers_manager import ProvidersManager\n"
        "manager = ProvidersManager()\n"
        "provider, hook = manager.providers['airflow-provider-quicksync'], manager.hooks['quicksync']\n"
        "print(json.dumps([provider.data['name'], hook.hook_class_name]))\n"
    )
    assert (name, hook) == ("QuickSync", "airflow_provider_quicksync.hooks.QuickSyncHook")


def test_every_field_has_a_label_a_description_and_may_be_empty():
    for field in CONNECTION_FIELDS.values():
        assert field["label"]
        assert field["description"].endswith(".")
        assert "null" in field["schema"]["type"]


def test_secret_fields_are_password_fields():
    assert {"api_key", "session_password", "wallet_private_key"} == PASSWORDS


@pytest.mark.skipif(VERSION < (3, 0), reason="2.11 has no API server")
def test_the_form_of_the_api_server():
    (form, standard), logged = in_a_new_process(
        "import json\n"
        "from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService\n"
        "for hook in HookMetaService.hook_meta_data():\n"
        "    if hook.connection_type == 'quicksync':\n"
        "        shown = hook.standard_fields and hook.standard_fields.model_dump()\n"
        "        print(json.dumps([hook.extra_fields, shown]))\n"
    )
    assert "Unknown form widget in quicksync" not in logged
    if form is None and VERSION == (3, 0):
        pytest.skip("Airflow 3.0 shows the fields of providers only where flask_appbuilder is installed")
    assert list(form) == list(CONNECTION_FIELDS)
    for name, field in CONNECTION_FIELDS.items():
        shown = form[name]
        assert (shown["schema"]["title"], shown["description"]) == (field["label"], field["description"])
        assert shown["value"] == field["schema"].get("default")
        assert "null" in shown["schema"]["type"]
        assert (shown["schema"].get("format") == "password") == (name in PASSWORDS)
    relabelled = {"host": "host", "password": "password", "schema": "url_schema"}
    for name, key in relabelled.items():
        assert standard[key]["title"] == FORM_BEHAVIOUR["relabeling"][name]
    assert standard["login"]["hidden"]
    assert standard["host"]["placeholder"] == FORM_BEHAVIOUR["placeholders"]["host"]


@pytest.fixture
def widgets():
    pytest.importorskip("flask_appbuilder", reason="the form of Airflow's web server (2.11) needs it")
    return QuickSyncHook.get_connection_form_widgets()


def test_the_form_of_the_web_server(widgets):
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget

    assert list(widgets) == list(CONNECTION_FIELDS)
    for name, field in CONNECTION_FIELDS.items():
        widget = widgets[name]
        assert widget.args == (field["label"],)
        assert widget.kwargs["description"] == field["description"]
        assert widget.kwargs.get("default") == field["schema"].get("default")
        assert isinstance(widget.kwargs["widget"], BS3PasswordFieldWidget) == (name in PASSWORDS)


def test_airflow_takes_the_web_servers_form(widgets):
    (fields, behaviour), logged = in_a_new_process(
        "import json\n"
        "from airflow.providers_manager import ProvidersManager\n"
        "manager = ProvidersManager()\n"
        "fields = [key for key in manager.connection_form_widgets if 'quicksync' in key]\n"
        "print(json.dumps([fields, manager.field_behaviours['quicksync']]))\n"
    )
    assert fields == [f"extra__quicksync__{name}" for name in widgets]
    assert behaviour == QuickSyncHook.get_ui_field_behaviour()
    assert "WARNING" not in logged


@pytest.mark.parametrize(
    ("typed", "wrong"),
    [
        ({}, set()),
        ({"max_concurrency": "8", "max_attempts": "3", "part_size_mib": "7.5", "verify": "false"}, set()),
        ({"max_concurrency": "65"}, {"max_concurrency"}),
        ({"max_concurrency": "0"}, {"max_concurrency"}),
        ({"max_attempts": "many"}, {"max_attempts"}),
    ],
)
def test_what_the_web_servers_form_takes(widgets, typed, wrong):
    from werkzeug.datastructures import MultiDict
    from wtforms import Form

    form = type("ConnectionForm", (Form,), widgets)(MultiDict(dict.fromkeys(widgets, "") | typed))
    form.validate()
    assert set(form.errors) == wrong


def test_how_the_standard_fields_are_shown_is_said_once():
    behaviour = QuickSyncHook.get_ui_field_behaviour()
    assert behaviour == {
        "hidden_fields": FORM_BEHAVIOUR["hidden-fields"],
        "relabeling": FORM_BEHAVIOUR["relabeling"],
        "placeholders": FORM_BEHAVIOUR["placeholders"],
    }
