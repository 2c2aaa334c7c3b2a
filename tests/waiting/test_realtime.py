"""Real time: what the hub's events do to who waits, and that without it polling goes on."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time

import pytest
from aiohttp import WSMsgType, web

from airflow_provider_quicksync import polling
from airflow_provider_quicksync.client import NotFoundError, RefusedError, SessionExpiredError, realtime
from airflow_provider_quicksync.local.connection import CONNECTION_VARIABLE

from .conftest import Bucket, in_loop, outcomes, poll_threads, until, waiting

END = "\x1e"
NEVER = 1000.0
"""An interval after which nobody looks within a test."""


async def listening(bucket: Bucket, count: int = 1) -> None:
    """Until the hub is listened to, and what was missed before has been looked at."""
    poller = polling.poller_for("quicksync_default")

    def settled() -> bool:
        later = time.monotonic() + polling.SAFETY_SECONDS / 2
        return poller._live and poller._due > later and not bucket.looking

    await until(lambda: bucket.hub_connections == count and settled())


async def left(*waiters: asyncio.Task) -> None:
    for waiter in waiters:
        waiter.cancel()
    await outcomes(list(waiters))


# What events do


@in_loop
async def test_a_completion_wakes_its_waiter_at_once(bucket):
    keys = bucket.pending(3)
    waiters = [waiting(key, interval=NEVER) for key in keys]
    await listening(bucket)
    bucket.reset_log()
    bucket.complete(keys[1])
    assert (await asyncio.wait_for(waiters[1], 10))[0].file_key == keys[1]
    assert not waiters[0].done()
    assert bucket.count() == 0
    bucket.complete(keys[0], keys[2])
    await outcomes(waiters)
    assert bucket.count() == 0


@in_loop
async def test_several_files_of_one_waiter(bucket):
    keys = bucket.pending(20)
    waiter = waiting(*keys, interval=NEVER)
    await listening(bucket)
    for key in reversed(keys):
        assert not waiter.done()
        bucket.complete(key)
    assert [file.file_key for file in await asyncio.wait_for(waiter, 10)] == keys


@in_loop
async def test_a_removed_file_fails_its_waiters_at_once_and_nobody_else(bucket):
    keys = bucket.pending(3)
    waiters = [waiting(*keys[:2], interval=NEVER), waiting(keys[0], interval=NEVER)]
    waiters.append(waiting(keys[2], interval=NEVER))
    await listening(bucket)
    bucket.remove(keys[0])
    errors = await outcomes(waiters[:2])
    assert {type(error) for error in errors} == {NotFoundError}
    assert all(keys[0] in str(error) and keys[1] not in str(error) for error in errors)
    bucket.complete(keys[2])
    assert (await asyncio.wait_for(waiters[2], 10))[0].file_key == keys[2]


@pytest.mark.parametrize("event", ["SessionExpired", "SessionDestroyed"])
@in_loop
async def test_the_end_of_the_session_fails_everybody_at_once(bucket, event):
    keys = bucket.pending(3)
    waiters = [waiting(key, interval=NEVER) for key in keys]
    await listening(bucket)
    bucket.publish(event)
    errors = await outcomes(waiters)
    assert {type(error) for error in errors} == {SessionExpiredError}
    assert event in str(errors[0])
    assert "another session" in str(errors[0])


@in_loop
async def test_events_of_others_change_nothing(bucket):
    (key,) = bucket.pending()
    waiter = waiting(key, interval=NEVER)
    await listening(bucket)
    other = {"fileKey": "theirs", "completed": True, "totalParts": 1, "originalSizeInBytes": 1}
    bucket.publish("FileComplete", other)
    bucket.publish("FileRemoved", {"fileKey": "theirs"})
    bucket.publish("FileProgress", {"fileKey": key})
    bucket.publish("UserAdded", {"id": "x"})
    bucket.publish("SomethingNew", {"a": 1})
    bucket.complete(key)
    assert (await asyncio.wait_for(waiter, 10))[0].file_key == key


@in_loop
async def test_a_file_that_is_added_while_one_waits_for_it(bucket):
    (key,) = bucket.pending()
    waiter = waiting(key, interval=NEVER)
    await listening(bucket)
    (other,) = bucket.pending()
    joined = waiting(other, interval=NEVER)
    await asyncio.sleep(0)
    bucket.complete(other)
    assert (await asyncio.wait_for(joined, 10))[0].completed
    await left(waiter)


@in_loop
async def test_an_event_during_a_look_is_not_undone_by_it(bucket):
    """The look may have seen what was before the event."""
    first, second, third = bucket.pending(3)
    waiter = waiting(first, interval=NEVER)
    await listening(bucket)
    bucket.fail("list_files", stall_seconds=1)
    other = waiting(third, interval=0.02)  # makes the poller look
    await until(lambda: bucket.count("list_files"))
    bucket.complete(second)
    poller = polling.poller_for("quicksync_default")
    await until(lambda: poller._files.get(second) and poller._files[second].completed)
    await until(lambda: poller._due < float("inf"))  # the look is over
    assert poller._files[second].completed
    await left(waiter, other)


@in_loop
async def test_what_happens_between_the_first_look_and_the_connection_is_not_missed(bucket):
    (key,) = bucket.pending()
    bucket.silence_hub()
    bucket.fail("get_file", stall_seconds=1)
    bucket.fail("negotiate", delay_seconds=0.3)  # so that the hub is connected meanwhile
    waiter = waiting(key, interval=0.05)
    await until(lambda: bucket.count("get_file") == 1)
    bucket.complete(key)
    await until(lambda: bucket.hub_connections == 1)
    assert (await asyncio.wait_for(waiter, 15))[0].file_key == key


@in_loop
async def test_while_the_hub_tells_looking_is_a_slow_safety_net(bucket, monkeypatch):
    monkeypatch.setattr(polling, "SAFETY_SECONDS", 0.3)
    (key,), began = bucket.pending(), time.time()
    waiter = waiting(key, interval=0.02)
    await listening(bucket)
    await until(lambda: bucket.count() >= 3)
    bucket.reset_log()
    began = time.time()
    await until(lambda: bucket.count() >= 3)
    assert time.time() - began > 2 * 0.3
    # It is a net: what no event told of is found.
    bucket.silence_hub()
    bucket.complete(key)
    assert (await asyncio.wait_for(waiter, 10))[0].file_key == key


# The hub goes away


@pytest.mark.parametrize("goodbye", [None, True], ids=["cut", "close message"])
@in_loop
async def test_a_lost_connection_is_made_again_and_what_was_missed_is_looked_at(bucket, monkeypatch, goodbye):
    monkeypatch.setattr(realtime, "FIRST_PAUSE_SECONDS", 0.5)
    one, two = bucket.pending(2)
    waiters = [waiting(one, interval=0.05), waiting(two, interval=0.05)]
    await listening(bucket)
    bucket.drop_hub_connections(allow_reconnect=goodbye)
    await until(lambda: bucket.hub_connections == 0)
    bucket.complete(one)  # nobody hears that
    assert (await asyncio.wait_for(waiters[0], 10))[0].file_key == one
    await listening(bucket)
    bucket.complete(two)
    assert (await asyncio.wait_for(waiters[1], 10))[0].file_key == two


@in_loop
async def test_a_hub_that_says_goodbye_for_good_is_left_alone(bucket, caplog):
    caplog.set_level("INFO")
    (key,) = bucket.pending()
    waiter = waiting(key, interval=0.05)
    await listening(bucket)
    bucket.drop_hub_connections(allow_reconnect=False)
    await until(lambda: "has ended the connection for good: polling alone" in caplog.text)
    bucket.reset_log()
    await until(lambda: bucket.count() >= 3)
    assert bucket.count("negotiate") == 0
    bucket.complete(key)
    assert (await asyncio.wait_for(waiter, 10))[0].file_key == key


@in_loop
async def test_a_silent_hub_is_noticed(bucket, monkeypatch):
    monkeypatch.setattr(realtime, "SILENCE_SECONDS", 0.4)
    (key,) = bucket.pending()
    waiter = waiting(key, interval=0.05)
    await listening(bucket)
    bucket.silence_hub()
    bucket.complete(key)
    bucket.reset_log()
    assert (await asyncio.wait_for(waiter, 10))[0].file_key == key
    assert bucket.count("get_file") >= 1


@in_loop
async def test_pings_keep_the_connection(bucket, monkeypatch):
    monkeypatch.setattr(realtime, "PING_SECONDS", 0.05)
    bucket.configure(hub_timeout_seconds=0.5)
    (key,) = bucket.pending()
    waiter = waiting(key, interval=NEVER)
    await listening(bucket)
    end = time.monotonic() + 1.5
    await until(lambda: time.monotonic() > end)
    assert bucket.count("negotiate") == 1
    bucket.complete(key)
    assert (await asyncio.wait_for(waiter, 10))[0].file_key == key


@in_loop
async def test_the_server_is_restarted_under_the_waiters(bucket):
    one, two = bucket.pending(2)
    waiters = [waiting(one, interval=0.05), waiting(two, interval=0.05)]
    await listening(bucket)
    await asyncio.to_thread(bucket.restart)
    bucket.complete(one)
    assert (await asyncio.wait_for(waiters[0], 15))[0].file_key == one
    await until(lambda: bucket.hub_connections == 1)
    bucket.complete(two)
    assert (await asyncio.wait_for(waiters[1], 15))[0].file_key == two


@pytest.mark.parametrize("call", ["negotiate", "hub"])
@pytest.mark.parametrize("status", [401, 403])
@in_loop
async def test_a_refused_token_ends_listening_and_polling_goes_on(bucket, caplog, call, status):
    caplog.set_level("INFO")
    bucket.fail(call, status=status, times=None)
    (key,) = bucket.pending()
    waiter = waiting(key, interval=0.05)
    await until(lambda: "polling alone" in caplog.text)
    await until(lambda: bucket.count("get_file") >= 4)
    assert bucket.count(call) == 1
    assert caplog.text.count("polling alone") == 1
    bucket.complete(key)
    assert (await asyncio.wait_for(waiter, 10))[0].file_key == key


@in_loop
async def test_a_service_without_a_hub(bucket, caplog):
    caplog.set_level("INFO")
    bucket.fail("negotiate", status=404, times=None)
    (key,) = bucket.pending()
    waiter = waiting(key, interval=0.05)
    await until(lambda: bucket.count("get_file") >= 4)
    assert bucket.count("negotiate") == 1
    assert caplog.text.count("polling alone") == 1
    bucket.complete(key)
    assert (await asyncio.wait_for(waiter, 10))[0].file_key == key


@in_loop
async def test_without_the_extra(bucket, monkeypatch, caplog):
    caplog.set_level("INFO")
    for name in [name for name in sys.modules if name.partition(".")[0] == "websockets"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "websockets", None)
    (key,) = bucket.pending()
    waiter = waiting(key, interval=0.05)
    await until(lambda: bucket.count("get_file") >= 4)
    assert bucket.count("negotiate") == 0
    assert caplog.text.count("polling alone") == 1
    assert "airflow-provider-quicksync[realtime]" in caplog.text
    bucket.complete(key)
    assert (await asyncio.wait_for(waiter, 10))[0].file_key == key


@in_loop
async def test_a_hub_out_of_reach_is_said_once_and_tried_again(bucket, caplog):
    caplog.set_level("INFO")
    bucket.fail("negotiate", status=503, times=3)
    (key,) = bucket.pending()
    waiter = waiting(key, interval=NEVER)
    await listening(bucket)
    assert caplog.text.count("out of reach") == 1
    bucket.complete(key)
    assert (await asyncio.wait_for(waiter, 10))[0].file_key == key


@in_loop
async def test_a_negotiation_that_stalls_holds_nobody_up(bucket):
    bucket.fail("negotiate", delay_seconds=3)
    (key,) = bucket.pending()
    waiter = waiting(key, interval=0.05)
    await until(lambda: bucket.count("negotiate"))
    bucket.complete(key)
    began = time.monotonic()
    assert (await asyncio.wait_for(waiter, 10))[0].file_key == key
    assert time.monotonic() - began < 2


@in_loop
async def test_a_hub_that_comes_and_goes_makes_nobody_look_more_often(bucket):
    (key,), interval = bucket.pending(), 0.5
    waiter, began = waiting(key, interval=interval), time.monotonic()
    for _ in range(6):
        await until(lambda: bucket.hub_connections == 1)
        bucket.drop_hub_connections()
        await until(lambda: bucket.hub_connections == 0)
    assert bucket.count("get_file") <= 2 + (time.monotonic() - began) / interval
    await left(waiter)


@in_loop
async def test_a_hub_that_comes_back_ends_the_pause(bucket):
    """A service that answers again is looked at again, however long it was away."""
    (key,) = bucket.pending()
    waiter = waiting(key, interval=0.05)
    await listening(bucket)
    bucket.fail("get_file", status=503, times=1)
    poller = polling.poller_for("quicksync_default")
    poller._failures = 15  # the next pause is as long as can be
    bucket.drop_hub_connections()
    bucket.complete(key)
    poller._set_due(0.0)
    assert (await asyncio.wait_for(waiter, 15))[0].file_key == key


@in_loop
async def test_a_hub_that_comes_back_does_not_shorten_what_the_service_asked_for(bucket):
    (key,) = bucket.pending()
    bucket.fail("get_file", status=429, retry_after=2)
    waiter = waiting(key, interval=0.05)
    await asyncio.sleep(0)
    poller = polling.poller_for("quicksync_default")
    await until(lambda: poller._not_before)
    await until(lambda: bucket.hub_connections == 1)
    bucket.drop_hub_connections()
    await until(lambda: bucket.count("negotiate") == 2)
    bucket.complete(key)
    assert (await asyncio.wait_for(waiter, 15))[0].file_key == key
    times = [entry.time for entry in bucket.requests if entry.call == "get_file"]
    assert len(times) < 2 or times[1] - times[0] >= 2.0
    await until(lambda: bucket.count("get_file") >= 1)


# Hubs that misbehave


class OddHub:
    """A hub that says what it is told, and knows one file that isn't complete until it is polled for."""

    def __init__(self, *said: str | bytes, handshake: str = "{}" + END) -> None:
        self.said, self.handshake = said, handshake
        self.connections = self.polls = 0
        self.completed = False

    async def __aenter__(self) -> OddHub:
        app = web.Application()
        app.router.add_post("/v1/hubs/session/negotiate", self.negotiate)
        app.router.add_get("/v1/hubs/session", self.connect)
        app.router.add_get("/v1/buckets/file/{key}", self.file)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.port = self.runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await until(lambda: not poll_threads(), "threads are left")  # one may be about to connect
        await self.runner.cleanup()

    def connection_json(self) -> str:
        return json.dumps(
            {
                "conn_type": "quicksync",
                "host": f"http://127.0.0.1:{self.port}",
                "password": "a-token",
                "extra": {"name_cipher": "none"},
            }
        )

    async def negotiate(self, request: web.Request) -> web.Response:
        return web.json_response({"negotiateVersion": 1, "connectionToken": "ticket", "connectionId": "id"})

    async def file(self, request: web.Request) -> web.Response:
        self.polls += 1
        file = {"fileKey": request.match_info["key"], "fileName": "a", "completed": self.completed}
        return web.json_response({**file, "totalParts": 1, "originalSizeInBytes": 1})

    async def connect(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(timeout=0.1)
        await socket.prepare(request)
        self.connections += 1
        await socket.receive()
        await socket.send_str(self.handshake)
        for said in self.said:
            await (socket.send_bytes(said) if isinstance(said, bytes) else socket.send_str(said))
        while (await socket.receive()).type == WSMsgType.TEXT:
            pass
        return socket


def event(target: object, *arguments: object) -> str:
    return json.dumps({"type": 1, "target": target, "arguments": arguments}) + END


GARBAGE = {
    "not JSON": "what?" + END,
    "too deep": "[" * 100_000 + END,
    "too large": "x" * (2 << 20),
    "empty records": END * 5,
}
ODD = {
    "no record": "no end",
    "a list": "[1, 2]" + END,
    "a number": "7" + END,
    "null": "null" + END,
    "an unknown type": json.dumps({"type": 99}) + END,
    "no arguments": json.dumps({"type": 1, "target": "FileComplete"}) + END,
    "arguments that are null": json.dumps({"type": 1, "target": "FileComplete", "arguments": None}) + END,
    "arguments that are an object": json.dumps({"type": 1, "target": "FileComplete", "arguments": {"a": 1}})
    + END,
    "arguments that are a number": json.dumps({"type": 1, "target": "FileComplete", "arguments": 5}) + END,
    "an argument that is text": event("FileComplete", "abc"),
    "no data": event("FileComplete", {"sessionId": "s"}),
    "data without a key": event("FileRemoved", {"data": {"completed": True}}),
    "data of wrong types": event("FileComplete", {"data": {"fileKey": 7}}),
    "a target that is a list": event(["FileComplete"], {"data": {}}),
    "bytes": b"\xff\xfe" + END.encode(),
}


@pytest.mark.parametrize("said", GARBAGE.values(), ids=GARBAGE.keys())
@in_loop
async def test_garbage_ends_the_connection_and_polling_goes_on(monkeypatch, said):
    async with OddHub(said) as hub:
        monkeypatch.setenv(CONNECTION_VARIABLE, hub.connection_json())
        waiter = waiting("key", interval=0.05)
        await until(lambda: hub.polls >= 3 and hub.connections >= 2)
        hub.completed = True
        assert (await asyncio.wait_for(waiter, 10))[0].file_key == "key"


@in_loop
async def test_odd_messages_are_passed_over(monkeypatch):
    good = event("FileComplete", {"data": {"fileKey": "key", "fileName": "a", "completed": True}})
    async with OddHub(*ODD.values(), good) as hub:
        monkeypatch.setenv(CONNECTION_VARIABLE, hub.connection_json())
        waiter = waiting("key", interval=NEVER)
        assert (await asyncio.wait_for(waiter, 10))[0].file_key == "key"
        assert hub.connections == 1


@in_loop
async def test_several_records_in_a_frame(monkeypatch):
    file = {"fileKey": "key", "fileName": "a", "completed": False}
    added, completed = event("FileAdded", {"data": file}), event("FileComplete", {"data": file})
    async with OddHub(json.dumps({"type": 6}) + END + added + completed) as hub:
        monkeypatch.setenv(CONNECTION_VARIABLE, hub.connection_json())
        waiter = waiting("key", interval=NEVER)
        assert (await asyncio.wait_for(waiter, 10))[0].completed


@in_loop
async def test_a_hub_that_speaks_another_protocol(monkeypatch, caplog):
    caplog.set_level("INFO")
    async with OddHub(handshake=json.dumps({"error": "no JSON here"}) + END) as hub:
        monkeypatch.setenv(CONNECTION_VARIABLE, hub.connection_json())
        waiter = waiting("key", interval=0.05)
        await until(lambda: hub.polls >= 3 and hub.connections >= 2)
        assert caplog.text.count("out of reach") == 1
        hub.completed = True
        assert (await asyncio.wait_for(waiter, 10))[0].file_key == "key"


@in_loop
async def test_a_hub_that_drops_everybody_at_once_is_tried_with_growing_pauses(monkeypatch):
    monkeypatch.setattr(realtime, "LONGEST_PAUSE_SECONDS", 60.0)
    monkeypatch.setattr(realtime.random, "uniform", lambda low, high: high)
    async with OddHub("what?" + END) as hub:
        monkeypatch.setenv(CONNECTION_VARIABLE, hub.connection_json())
        began, waiter = time.monotonic(), waiting("key", interval=NEVER)
        await until(lambda: hub.connections >= 5)
        assert time.monotonic() - began >= 0.02 + 0.04 + 0.08 + 0.16
        await left(waiter)


# Secrets


@in_loop
async def test_the_token_is_in_no_log(bucket, monkeypatch, caplog):
    asyncio.get_running_loop().set_debug(True)
    asyncio.get_running_loop().slow_callback_duration = 0.0
    for name in (None, "websockets", "websockets.client", "asyncio", "urllib3", "airflow_provider_quicksync"):
        caplog.set_level(logging.DEBUG, logger=name)
    monkeypatch.setattr(realtime, "SILENCE_SECONDS", 0.5)
    bucket.fail("negotiate", status=500)
    bucket.fail("hub", status=500)
    bucket.fail("hub", cut="reset")
    one, two = bucket.pending(2)
    waiters = [waiting(one, interval=0.05), waiting(two, interval=0.05)]
    await listening(bucket)
    bucket.drop_hub_connections()
    await until(lambda: bucket.hub_connections == 0)
    await listening(bucket)
    bucket.silence_hub()
    await until(lambda: bucket.count("negotiate") >= 6)
    bucket.silence_hub(False)
    bucket.complete(one)
    await outcomes(waiters[:1])
    bucket.fail("hub", status=401, times=None)
    bucket.drop_hub_connections()
    await until(lambda: "refuses the token" in caplog.text)
    bucket.publish("SessionExpired")
    bucket.fail("get_file", status=401)
    assert isinstance((await outcomes(waiters))[1], RefusedError)
    # Records, and what each would say with everything it holds.
    text = caplog.text + "".join(repr(record.__dict__) for record in caplog.records)
    assert "quicksync" in text
    assert bucket.token not in text
    for part in bucket.token.split("."):
        assert part not in text or len(part) < 40


# Nothing is left


@in_loop
async def test_nothing_is_left_of_the_connection(bucket):
    (key,) = bucket.pending()
    waiter = waiting(key, interval=NEVER)
    await listening(bucket)
    await left(waiter)
    await until(lambda: bucket.hub_connections == 0)


@pytest.mark.parametrize("call", ["negotiate", "hub"])
@in_loop
async def test_cancelled_while_it_connects(bucket, call):
    bucket.fail(call, delay_seconds=1)
    (key,) = bucket.pending()
    waiter = waiting(key, interval=NEVER)
    await until(lambda: bucket.count(call))
    await left(waiter)


@in_loop
async def test_cancelled_while_it_says_goodbye(monkeypatch):
    """A hub that is told to close, and doesn't answer."""
    async with OddHub(json.dumps({"type": 7, "allowReconnect": False}) + END) as hub:
        monkeypatch.setenv(CONNECTION_VARIABLE, hub.connection_json())
        waiter = waiting("key", interval=0.05)
        await until(lambda: hub.connections == 1 and hub.polls >= 2)
        await left(waiter)


@in_loop
async def test_cancelled_between_two_connections(bucket, monkeypatch):
    monkeypatch.setattr(realtime, "FIRST_PAUSE_SECONDS", 100.0)
    (key,) = bucket.pending()
    waiter = waiting(key, interval=NEVER)
    await listening(bucket)
    bucket.drop_hub_connections()
    poller = polling.poller_for("quicksync_default")
    await until(lambda: not poller._live)
    await left(waiter)
