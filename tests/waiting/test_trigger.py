"""The trigger: what is kept of it, the events it fires, and that it shares its poll."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json

import pytest
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_provider_quicksync import polling
from airflow_provider_quicksync.client import BusyError, NotFoundError, SessionExpiredError
from airflow_provider_quicksync.hooks import error_of_event
from airflow_provider_quicksync.triggers import QuickSyncUploadCompletionTrigger

from .conftest import in_loop, outcomes, until


def rebuilt(trigger):
    """What the triggerer makes of what was kept in the database."""
    path, arguments = json.loads(json.dumps(trigger.serialize()))
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)(**arguments)


async def events(trigger):
    return [event async for event in trigger.run()]


async def only_event(trigger):
    (event,) = await asyncio.wait_for(events(rebuilt(trigger)), 20)
    return event


EVERYTHING = {
    "file_keys": ["a", "b"],
    "quicksync_conn_id": "other",
    "poke_interval": 7.5,
    "longest_interval": 60.0,
    "session_id": "s",
    "payload": {"receipts": [{"file_key": "a", "size_bytes": 1}], "older": []},
    "end_task": "many",
}


def test_every_argument_survives_being_kept():
    assert set(EVERYTHING) == set(inspect.signature(QuickSyncUploadCompletionTrigger).parameters)
    trigger = QuickSyncUploadCompletionTrigger(**EVERYTHING)
    assert rebuilt(trigger).serialize() == trigger.serialize()
    assert trigger.serialize()[1] == EVERYTHING


def test_the_defaults_survive_too():
    trigger = QuickSyncUploadCompletionTrigger(file_keys=["a"])
    assert rebuilt(trigger).serialize() == trigger.serialize()


@in_loop
async def test_the_event_of_complete_files(no_hub):
    keys = no_hub.pending(2)
    no_hub.complete(*keys)
    event = await only_event(QuickSyncUploadCompletionTrigger(file_keys=keys, payload={"x": 1}))
    assert type(event) is TriggerEvent
    assert json.loads(json.dumps(event.payload)) == event.payload
    assert [file["file_key"] for file in event.payload.pop("files")] == keys
    assert event.payload == {"status": "complete", "payload": {"x": 1}}


@in_loop
async def test_the_event_of_a_file_that_is_gone(no_hub):
    event = await only_event(QuickSyncUploadCompletionTrigger(file_keys=["nowhere"], payload=7))
    message = event.payload.pop("message")
    assert "nowhere" in message
    assert len(message.splitlines()) == 1
    assert event.payload == {"status": "failed", "error": "NotFoundError", "hopeless": True, "payload": 7}


@in_loop
async def test_the_event_of_an_answer_that_is_no_listing(no_hub):
    no_hub.fail("get_file", body="not_json")
    event = await only_event(QuickSyncUploadCompletionTrigger(file_keys=no_hub.pending()))
    assert (event.payload["error"], event.payload["hopeless"]) == ("DamagedError", False)


@pytest.mark.parametrize("end_task", ["one", "many", "silently"])
@in_loop
async def test_ending_the_task(no_hub, end_task):
    keys = no_hub.pending()
    no_hub.complete(*keys)
    event = await only_event(QuickSyncUploadCompletionTrigger(file_keys=keys, end_task=end_task))
    assert isinstance(event, TaskSuccessEvent)
    if end_task == "silently":
        assert event.xcoms is None
    else:
        found = event.xcoms["return_value"]
        assert (found[0] if end_task == "many" else found)["file_key"] == keys[0]


@in_loop
async def test_a_failure_is_not_ended_by_the_trigger(no_hub):
    trigger = QuickSyncUploadCompletionTrigger(file_keys=["nowhere"], end_task="one")
    assert (await only_event(trigger)).payload["status"] == "failed"


@pytest.mark.parametrize("kind", [NotFoundError, SessionExpiredError, BusyError])
def test_an_event_becomes_the_error_again(kind):
    event = {"error": kind.__name__, "hopeless": False, "message": "why"}
    error = error_of_event(event)
    assert (type(error), str(error)) == (kind, "why")


def test_a_hopeless_event_is_not_retried():
    error = error_of_event({"error": "NotFoundError", "hopeless": True, "message": "why"})
    assert (type(error).__name__, str(error)) == ("AirflowFailException", "why")


@in_loop
async def test_an_unexpected_error_leaves_the_trigger(no_hub):
    trigger = QuickSyncUploadCompletionTrigger(file_keys=["a"], quicksync_conn_id="nobody_knows")
    with pytest.raises(Exception, match="nobody_knows"):
        await only_event(trigger)


@in_loop
async def test_triggers_of_one_connection_share_a_poll(no_hub):
    keys = no_hub.pending(30)
    triggers = [QuickSyncUploadCompletionTrigger(file_keys=[key], poke_interval=0.5) for key in keys]
    running = [asyncio.create_task(only_event(trigger)) for trigger in triggers]
    await until(lambda: no_hub.count() >= 2)
    assert len(polling._pollers[asyncio.get_running_loop()]) == 1
    assert no_hub.count("get_file") == 0
    no_hub.complete(*keys)
    assert [event.payload["status"] for event in await outcomes(running)] == ["complete"] * 30


@in_loop
async def test_a_session_of_its_own_has_a_poll_of_its_own(no_hub):
    (key,) = no_hub.pending()
    triggers = [
        QuickSyncUploadCompletionTrigger(file_keys=[key], poke_interval=0.5, session_id=session_id)
        for session_id in (None, no_hub.session_id)
    ]
    running = [asyncio.create_task(only_event(trigger)) for trigger in triggers]
    await until(lambda: no_hub.count() >= 2)
    assert len(polling._pollers[asyncio.get_running_loop()]) == 2
    no_hub.complete(key)
    assert [event.payload["status"] for event in await outcomes(running)] == ["complete"] * 2


@in_loop
async def test_cancelled_as_a_triggerer_does(no_hub):
    running = asyncio.create_task(only_event(QuickSyncUploadCompletionTrigger(file_keys=no_hub.pending())))
    await until(lambda: no_hub.count() >= 1)
    running.cancel()
    await outcomes([running])
    assert running.cancelled()
