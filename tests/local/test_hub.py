"""The session hub: SignalR's negotiation, handshake, pings, events and faults, on a WebSocket."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from airflow_provider_quicksync.local import LocalQuickSync

END = "\x1e"


class Listener:
    """A bare client of the JSON protocol."""

    def __init__(self, quicksync, token=None):
        self.url = f"{quicksync.url}/hubs/session"
        self.token = token or quicksync.token

    async def __aenter__(self):
        self.http = aiohttp.ClientSession()
        self.sockets = []
        return self

    async def __aexit__(self, *error):
        for socket in self.sockets:
            await socket.close()
        await self.http.close()

    async def negotiate(self, version=1):
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"{self.url}/negotiate?negotiateVersion={version}"
        async with self.http.post(url, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def connect(self, ticket=None, protocol="json"):
        if ticket is None:
            ticket = (await self.negotiate())[1]["connectionToken"]
        self.socket = await self.http.ws_connect(self.url, params={"id": ticket, "access_token": self.token})
        self.sockets.append(self.socket)
        return await self.ask({"protocol": protocol, "version": 1})

    async def ask(self, message):
        await self.socket.send_str(json.dumps(message) + END)
        return await self.record()

    async def record(self):
        text = await self.socket.receive_str(timeout=20)
        assert text.endswith(END)
        return json.loads(text[:-1])

    async def event(self):
        record = await self.record()
        while record == {"type": 6}:
            record = await self.record()
        assert record["type"] == 1, record
        (payload,) = record["arguments"]
        assert payload["eventType"] == record["target"]
        return payload

    async def end(self):
        """Read until the connection ends; return how, and the records on the way."""
        records = []
        while (message := await self.socket.receive(timeout=20)).type == aiohttp.WSMsgType.TEXT:
            records.append(json.loads(message.data[:-1]))
        return message.type, records


async def elsewhere(function, *arguments, **options):
    return await asyncio.to_thread(function, *arguments, **options)


def test_negotiation_gives_a_token_that_is_not_the_id(quicksync):
    async def run():
        async with Listener(quicksync) as listener:
            status, answer = await listener.negotiate()
            assert (status, answer["negotiateVersion"]) == (200, 1)
            assert answer["connectionToken"] != answer["connectionId"]
            assert answer["availableTransports"][0]["transport"] == "WebSockets"
            _, older = await listener.negotiate(version=0)
            assert "connectionToken" not in older
            assert await listener.connect(older["connectionId"]) == {}

    asyncio.run(run())


@pytest.mark.parametrize("ticket", ["unknown", "the id", "used"])
def test_an_unknown_or_used_ticket_is_not_there(quicksync, ticket):
    async def run():
        async with Listener(quicksync) as listener:
            _, answer = await listener.negotiate()
            chosen = {"unknown": "x", "the id": answer["connectionId"]}.get(ticket, answer["connectionToken"])
            if ticket == "used":
                await listener.connect(chosen)
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await listener.connect(chosen)
            assert refused.value.status == 404

    asyncio.run(run())


def test_a_wrong_token_is_refused_at_both_doors(quicksync):
    async def run():
        async with Listener(quicksync, "wrong") as listener:
            assert (await listener.negotiate())[0] == 401
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await listener.connect("x")
            assert refused.value.status == 401

    asyncio.run(run())


def test_a_request_without_an_upgrade_is_refused(api):
    assert api.send("GET", "/hubs/session").status_code == 400


def test_another_protocol_is_refused_in_the_handshake(quicksync):
    async def run():
        async with Listener(quicksync) as listener:
            assert "messagepack" in (await listener.connect(protocol="messagepack"))["error"]
            assert await listener.end() == (aiohttp.WSMsgType.CLOSE, [])

    asyncio.run(run())


def test_what_happens_in_the_bucket_is_told(quicksync, api):
    async def run():
        async with Listener(quicksync) as listener:
            await listener.connect()
            key = await elsewhere(api.uploaded, b"a" * 100, b"b")
            events = [await listener.event() for _ in range(4)]
            assert [event["eventType"] for event in events] == [
                "FileAdded",
                "FileProgress",
                "FileProgress",
                "FileComplete",
            ]
            assert events[-1]["sessionId"] == quicksync.session_id
            assert events[-1]["data"] == (await elsewhere(api.get_file, key)).json()
            assert [event["data"]["completed"] for event in events] == [False, False, False, True]
            await elsewhere(api.delete, key)
            removed = await listener.event()
            assert (removed["eventType"], removed["data"]["fileKey"]) == ("FileRemoved", key)

    asyncio.run(run())


def test_a_completion_by_polls_or_seconds_is_told_once_and_when_it_happens(quicksync, api):
    async def run():
        async with Listener(quicksync) as listener:
            await listener.connect()
            quicksync.configure(complete_after_polls=1)
            polled = await elsewhere(api.uploaded, b"x")
            assert [(await listener.event())["eventType"] for _ in range(2)] == ["FileAdded", "FileProgress"]
            for _ in range(2):
                await elsewhere(api.get_file, polled)
            assert (await listener.event())["eventType"] == "FileComplete"
            quicksync.configure(complete_after_polls=0, complete_after_seconds=0.05)
            timed = await elsewhere(api.uploaded, b"x")
            events = [await listener.event() for _ in range(3)]
            assert (events[2]["eventType"], events[2]["data"]["fileKey"]) == ("FileComplete", timed)

    asyncio.run(run())


def test_a_completion_that_was_coming_is_told_after_a_restart(quicksync, api):
    async def run():
        quicksync.configure(complete_after_seconds=1)
        key = await elsewhere(api.uploaded, b"x")
        await elsewhere(quicksync.restart)
        async with Listener(quicksync) as listener:
            await listener.connect()
            event = await listener.event()
            assert (event["eventType"], event["data"]["fileKey"]) == ("FileComplete", key)

    asyncio.run(run())


def test_events_go_to_the_sessions_own_listeners(quicksync):
    async def run():
        async with Listener(quicksync) as listener:
            await listener.connect()
            quicksync.publish("FileAdded", {"fileKey": "theirs"}, session_id="another")
            quicksync.publish("FileAdded", {"fileKey": "ours"})
            assert (await listener.event())["data"] == {"fileKey": "ours"}

    asyncio.run(run())


def test_it_pings_and_gives_up_a_silent_client():
    async def run(quicksync):
        async with Listener(quicksync) as listener:
            await listener.connect()
            kind, records = await listener.end()
            assert kind == aiohttp.WSMsgType.CLOSE
            assert records[0] == {"type": 6}
            assert (records[-1]["type"], records[-1]["allowReconnect"]) == (7, True)

    with LocalQuickSync(hub_ping_seconds=0.05, hub_timeout_seconds=0.3) as quicksync:
        asyncio.run(run(quicksync))


def test_an_invocation_is_answered_with_an_error(quicksync):
    async def run():
        async with Listener(quicksync) as listener:
            await listener.connect()
            call = {"type": 1, "invocationId": "7", "target": "Send", "arguments": []}
            answer = await listener.ask(call)
            assert (answer["type"], answer["invocationId"]) == (3, "7")
            await listener.socket.send_str(json.dumps({"type": 7}) + END)
            assert (await listener.end())[0] == aiohttp.WSMsgType.CLOSE

    asyncio.run(run())


def test_connections_are_dropped(quicksync, wait_for):
    async def run():
        async with Listener(quicksync) as listener:
            await listener.connect()
            await elsewhere(wait_for, lambda: quicksync.hub_connections == 1)
            quicksync.drop_hub_connections()
            kind, records = await listener.end()
            assert (kind in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR), records) == (True, [])
            await elsewhere(wait_for, lambda: quicksync.hub_connections == 0)

    asyncio.run(run())


@pytest.mark.parametrize("allowed", [True, False])
def test_connections_are_dropped_with_a_close_message(api, quicksync, allowed):
    async def run():
        async with Listener(quicksync) as listener:
            await listener.connect()
            await elsewhere(api.control, "POST", "/hub/drop", json={"allow_reconnect": allowed})
            kind, (message,) = await listener.end()
            assert (kind, message["type"]) == (aiohttp.WSMsgType.CLOSE, 7)
            assert message.get("allowReconnect", False) is allowed

    asyncio.run(run())


def test_a_silent_hub_sends_neither_events_nor_pings(quicksync, api):
    async def run():
        quicksync.configure(hub_ping_seconds=0.02)
        async with Listener(quicksync) as listener:
            await listener.connect()
            await listener.record()
            await elsewhere(api.control, "POST", "/hub/silence")
            await elsewhere(api.control, "POST", "/hub/publish", json={"event": "FileAdded"})
            with pytest.raises(TimeoutError):
                while True:
                    assert (await listener.socket.receive_str(timeout=0.3))[:-1] == '{"type": 6}'
            quicksync.silence_hub(False)

    asyncio.run(run())


def test_events_are_published_by_the_control_route(quicksync, api):
    async def run():
        async with Listener(quicksync) as listener:
            await listener.connect()
            body = {"event": "FileComplete", "data": {"fileKey": "k"}}
            await elsewhere(api.control, "POST", "/hub/publish", json=body)
            assert (await listener.event())["data"] == {"fileKey": "k"}

    asyncio.run(run())


@pytest.mark.parametrize("call", ["negotiate", "hub"])
def test_a_token_is_refused_by_a_fault(quicksync, call):
    async def run():
        quicksync.fail(call, status=401)
        async with Listener(quicksync) as listener:
            if call == "negotiate":
                assert (await listener.negotiate())[0] == 401
            else:
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await listener.connect()
                assert refused.value.status == 401
            assert await listener.connect() == {}

    asyncio.run(run())


def test_a_restart_says_goodbye_and_forgets_tickets(quicksync, wait_for):
    async def run():
        async with Listener(quicksync) as listener:
            await listener.connect()
            _, unused = await listener.negotiate()
            await elsewhere(wait_for, lambda: quicksync.hub_connections == 1)
            await elsewhere(quicksync.restart)
            kind, records = await listener.end()
            assert (kind, records) == (aiohttp.WSMsgType.CLOSE, [{"type": 7, "allowReconnect": True}])
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await listener.connect(unused["connectionToken"])
            assert await listener.connect() == {}

    asyncio.run(run())


@pytest.mark.parametrize("ending", ["expired", "deleted", "left", "by itself"])
def test_the_end_of_a_session_is_told_and_ends_the_connection(api_of, ending):
    async def run(quicksync):
        async with Listener(quicksync) as listener:
            await listener.connect()
            if ending == "expired":
                quicksync.expire_session()
            elif ending != "by itself":
                method, path = {"deleted": ("DELETE", "/current"), "left": ("POST", "/disconnect")}[ending]
                await elsewhere(api_of(quicksync).send, method, f"/session{path}")
            kind, (event, goodbye) = await listener.end()
            return event["target"], goodbye, kind

    expected = {"deleted": "SessionDestroyed", "left": "UserRemoved"}.get(ending, "SessionExpired")
    with LocalQuickSync(session_seconds=1 if ending == "by itself" else 1000) as quicksync:
        target, goodbye, kind = asyncio.run(run(quicksync))
    assert target == expected
    assert goodbye == {"type": 7, "error": "You are no longer in the session."}
    assert kind == aiohttp.WSMsgType.CLOSE


def test_the_log_never_has_a_hubs_token(quicksync):
    async def run():
        async with Listener(quicksync) as listener:
            await listener.connect()

    asyncio.run(run())
    assert [entry.call for entry in quicksync.requests] == ["negotiate", "hub"]
    assert quicksync.requests[1].status == 101
    assert quicksync.token not in repr(quicksync.requests)
