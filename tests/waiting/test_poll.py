"""One poll for all: what it costs, who is told what and when, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from itertools import pairwise

import pytest

from airflow_provider_quicksync import polling
from airflow_provider_quicksync.client import (
    DamagedError,
    NotFoundError,
    QuickSyncClient,
    RefusedError,
    SessionExpiredError,
)
from airflow_provider_quicksync.client.names import QS_SHARE, name_cipher
from airflow_provider_quicksync.connection import Configuration
from airflow_provider_quicksync.local.connection import CONNECTION_VARIABLE

from .conftest import DEADLINE_SECONDS, Bucket, in_loop, looked, outcomes, poll_threads, until, waiting

pytestmark = pytest.mark.usefixtures("no_hub")


# What it costs


@in_loop
async def test_many_waiters_cost_one_listing_an_interval(bucket):
    keys, began = bucket.pending(50), time.time()
    waiters = [waiting(key, interval=0.3) for key in keys]
    await until(lambda: bucket.count() >= 4)
    assert looked(bucket)[3] - began >= 3 * 0.3
    await asyncio.to_thread(bucket.complete, *keys)
    files = await outcomes(waiters)
    assert [file.file_key for (file,) in files] == keys
    assert all(file.completed for (file,) in files)
    assert bucket.count("get_file") == 0


@in_loop
async def test_one_waiter_costs_one_metadata_call(bucket):
    (key,) = bucket.pending()
    waiters = [waiting(key), waiting(key)]
    await until(lambda: bucket.count() >= 3)
    await asyncio.to_thread(bucket.complete, key)
    assert [file.file_key for (file,) in await outcomes(waiters)] == [key, key]
    assert bucket.count("list_files") == 0


@in_loop
async def test_the_shortest_wished_interval_counts(bucket):
    one, two, three = bucket.pending(3)
    waiters = [waiting(one, interval=1000), waiting(two, interval=0.05)]
    await until(lambda: bucket.count() >= 4)
    await asyncio.to_thread(bucket.complete, one)
    assert await asyncio.wait_for(waiters[0], 5)
    waiters[1].cancel()
    await outcomes(waiters)
    # The other way round: an impatient one joins, and the poll doesn't go on at leisure.
    bucket.reset_log()
    waiters = [waiting(two, interval=1000)]
    await until(lambda: bucket.count() == 1)
    waiters.append(waiting(three, interval=0.05))
    await until(lambda: bucket.count() >= 4)
    for waiter in waiters:
        waiter.cancel()
    await outcomes(waiters)


@in_loop
async def test_an_interval_that_grows(bucket):
    (key,), began = bucket.pending(), time.time()
    waiter = waiting(key, interval=0.02, longest_interval=0.5)
    await until(lambda: bucket.count() >= 7)
    assert looked(bucket)[6] - began >= 0.04 + 0.08 + 0.16 + 0.32 + 0.5 + 0.5
    waiter.cancel()
    await outcomes([waiter])


@in_loop
async def test_who_joins_late_is_answered_before_the_interval_is_over(bucket):
    first, second = bucket.pending(2)
    waiters = [waiting(first, interval=8.0)]
    await until(lambda: bucket.count() == 1)
    await asyncio.to_thread(bucket.complete, second)
    waiters.append(waiting(second, interval=8.0))
    assert (await asyncio.wait_for(waiters[1], 6.0))[0].file_key == second
    waiters[0].cancel()
    await outcomes(waiters)


@in_loop
async def test_who_joins_what_is_known_to_be_complete_is_answered_at_once(bucket):
    first, second = bucket.pending(2)
    bucket.complete(second)
    patient = waiting(first, interval=1000)
    other = waiting("gone", interval=1000)  # so that the whole listing is read
    assert isinstance((await outcomes([other]))[0], NotFoundError)
    bucket.reset_log()
    assert (await asyncio.wait_for(waiting(second, interval=1000), 5))[0].completed
    assert bucket.count() == 0
    patient.cancel()
    await outcomes([patient])


@in_loop
async def test_who_joins_during_a_look_is_answered_soon_after_it(bucket):
    first, second = bucket.pending(2)
    bucket.complete(second)
    bucket.fail("get_file", delay_seconds=0.5)
    patient = waiting(first, interval=0.4)
    await until(lambda: bucket.count() == 1)
    joined = waiting(second, interval=1000)
    assert (await asyncio.wait_for(joined, 5))[0].file_key == second
    patient.cancel()
    await outcomes([patient])


@in_loop
async def test_an_interval_of_nothing_does_not_look_without_a_pause(bucket, monkeypatch):
    monkeypatch.setattr(polling, "SHORTEST_SECONDS", 0.2)
    (key,), began = bucket.pending(), time.time()
    waiter = waiting(key, interval=0)
    await until(lambda: bucket.count() >= 3)
    assert looked(bucket)[2] - began >= 2 * 0.2
    waiter.cancel()
    await outcomes([waiter])


@in_loop
async def test_a_slow_service_is_not_asked_without_a_pause(bucket):
    (key,), began = bucket.pending(), time.time()
    bucket.fail("get_file", delay_seconds=0.4, times=None)
    waiter = waiting(key, interval=0.3)
    await until(lambda: bucket.count() >= 4)
    assert looked(bucket)[3] - began >= 3 * (0.4 + 0.3)
    waiter.cancel()
    await outcomes([waiter])


@in_loop
async def test_several_files_of_one_waiter(bucket):
    keys = bucket.pending(3)
    waiter = waiting(*keys)
    await until(lambda: bucket.count() >= 2)
    for key in reversed(keys):
        assert not waiter.done()
        await asyncio.to_thread(bucket.complete, key)
    (files,) = await outcomes([waiter])
    assert [file.file_key for file in files] == keys


@in_loop
async def test_nothing_to_wait_for(bucket):
    assert await outcomes([waiting()]) == [[]]


@in_loop
async def test_names_are_read_also_where_only_the_service_knows_the_session(bucket, monkeypatch):
    raw = name_cipher(QS_SHARE).encrypt("Bericht.pdf", bucket.session_id)
    keys = bucket.pending(3, name=raw)
    connection = bucket.airflow_connection()
    del connection["extra"]["session_id"]
    monkeypatch.setenv(CONNECTION_VARIABLE, json.dumps(connection))

    def named(server):
        server.core.store.database.execute("UPDATE uploads SET file_name = ?", (raw,))

    bucket._on_loop(named)
    bucket.complete(*keys)
    # That the session's id can't be asked for now is as good as that nobody can look now.
    bucket.fail("current_session", status=503, times=2)
    waiters = [waiting(key) for key in keys]
    assert [file.name for (file,) in await outcomes(waiters)] == ["Bericht.pdf"] * 3
    assert bucket.count("current_session") == 3


# What goes wrong


@in_loop
async def test_a_gone_file_fails_who_waits_for_it_and_nobody_else(bucket):
    keys = bucket.pending(3)
    waiters = [waiting(*keys[:1]), waiting(keys[1], "nowhere"), waiting(keys[2])]
    lost = (await outcomes(waiters[1:2]))[0]
    assert isinstance(lost, NotFoundError)
    assert "nowhere" in str(lost)
    assert keys[1] not in str(lost)
    await asyncio.to_thread(bucket.remove, keys[2])
    assert isinstance((await outcomes(waiters[2:]))[0], NotFoundError)
    await asyncio.to_thread(bucket.complete, keys[0])
    assert (await outcomes(waiters[:1]))[0][0].file_key == keys[0]


@in_loop
async def test_the_only_file_is_gone(bucket):
    assert isinstance((await outcomes([waiting("nowhere", interval=1000)]))[0], NotFoundError)
    assert bucket.count("get_file") == 1


@in_loop
async def test_a_failure_reaches_each_waiter_once_with_an_error_of_its_own(bucket):
    keys = bucket.pending(20)
    waiters = [waiting(key) for key in keys]
    await until(lambda: bucket.count() >= 2)
    bucket.fail("list_files", status=401, times=None)
    bucket.reset_log()
    errors = await outcomes(waiters)
    assert {type(error) for error in errors} == {RefusedError}
    assert len({id(error) for error in errors}) == 20
    assert len({str(error) for error in errors}) == 1
    assert bucket.count() == 1


@in_loop
async def test_who_comes_after_a_failure_gets_another_poll(bucket):
    keys = bucket.pending(3)
    bucket.fail("list_files", status=403)
    failed = [waiting(key) for key in keys[:2]]
    assert all(isinstance(error, RefusedError) for error in await outcomes(failed))
    later = [waiting(keys[0], interval=1000)]
    poller = polling.poller_for("quicksync_default")
    later.append(waiting(keys[1], interval=1000))
    await asyncio.sleep(0)
    assert polling.poller_for("quicksync_default") is poller
    for waiter in later:
        waiter.cancel()
    await outcomes(later)


@in_loop
async def test_a_failed_poll_does_not_take_its_successor_with_it(bucket):
    one, two = bucket.pending(2)
    bucket.fail("get_file", status=403)
    failing = waiting(one)

    async def at_once():
        """Wait again as soon as the first has failed, before it has cleaned up."""
        await until(lambda: bucket.count() == 1)
        while polling.poller_for("quicksync_default") is old:
            await asyncio.sleep(0)
        return waiting(two, interval=1000)

    await asyncio.sleep(0)
    old = polling.poller_for("quicksync_default")
    successor = await at_once()
    await asyncio.sleep(0)
    new = polling.poller_for("quicksync_default")
    assert isinstance((await outcomes([failing]))[0], RefusedError)
    assert polling.poller_for("quicksync_default") is new
    successor.cancel()
    await outcomes([successor])


@in_loop
async def test_an_error_that_cannot_be_copied_reaches_everybody(bucket, monkeypatch):
    class Stubborn(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one}{two}")

    async def refuse(conn_id):
        raise Stubborn("no connection ", conn_id)

    monkeypatch.setattr(polling, "get_async_connection", refuse)
    errors = await outcomes([waiting("a"), waiting("b")])
    assert [str(error) for error in errors] == ["no connection quicksync_default"] * 2


@in_loop
async def test_a_connection_that_is_not_there(bucket):
    errors = await outcomes([waiting("a", conn_id="nobody_knows"), waiting("b", conn_id="nobody_knows")])
    assert {type(error).__name__ for error in errors} <= {"AirflowNotFoundException", "AirflowException"}
    assert "nobody_knows" in str(errors[0])


@in_loop
async def test_an_expired_session(bucket):
    keys = bucket.pending(2)
    waiters = [waiting(key) for key in keys]
    await until(lambda: bucket.count() >= 1)
    await asyncio.to_thread(bucket.expire_session)
    assert {type(error) for error in await outcomes(waiters)} == {SessionExpiredError}


@in_loop
async def test_an_answer_that_is_no_listing(bucket):
    keys = bucket.pending(2)
    bucket.fail("list_files", body="not_json")
    assert {type(error) for error in await outcomes([waiting(key) for key in keys])} == {DamagedError}


@pytest.mark.parametrize(
    "fault",
    [{"status": 503}, {"status": 429}, {"cut": "reset"}, {"cut": "response"}, {"status": 500}],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
@in_loop
async def test_a_busy_or_unreachable_service_is_waited_out(bucket, caplog, fault):
    keys = bucket.pending(2)
    bucket.fail("list_files", times=3, **fault)
    waiters = [waiting(key, interval=0.02) for key in keys]
    await until(lambda: bucket.count() >= 5)
    gaps = [later - earlier for earlier, later in pairwise(looked(bucket))]
    assert all(gap >= 0.02 * 2**number for number, gap in enumerate(gaps[:3], 1)), gaps
    assert caplog.text.count("looking again in") == 3
    bucket.complete(*keys)
    assert [file.file_key for (file,) in await outcomes(waiters)] == keys


@in_loop
async def test_retry_after_is_kept_also_when_others_join(bucket):
    keys = bucket.pending(4)
    bucket.complete(*keys)
    bucket.fail("list_files", status=429, retry_after=2)
    waiters = [waiting(key, interval=0.02) for key in keys[:2]]
    await until(lambda: bucket.count() == 1)
    waiters += [waiting(key, interval=0.02) for key in keys[2:]]
    await outcomes(waiters)
    first, second = looked(bucket)
    assert second - first >= 2.0


@in_loop
async def test_who_joins_during_a_pause_waits_for_its_end(bucket):
    one, two = bucket.pending(2)
    bucket.complete(two)
    bucket.fail("get_file", status=503)
    waiters = [waiting(one, interval=1.0)]
    await until(lambda: bucket.count() == 1)
    poller = polling.poller_for("quicksync_default")
    await until(lambda: poller._failures)
    waiters.append(waiting(two, interval=0.05))
    assert (await outcomes(waiters[1:]))[0][0].file_key == two
    first, second = looked(bucket)[:2]
    assert second - first >= 2.0
    waiters[0].cancel()
    await outcomes(waiters)


@in_loop
async def test_pauses_are_bounded_whatever_is_asked_for_and_however_often_it_failed(bucket, monkeypatch):
    monkeypatch.setattr(polling, "BUSY_SECONDS", 0.2)
    (key,) = bucket.pending()
    bucket.fail("get_file", status=503, retry_after=86_400)
    bucket.fail("get_file", status=503, times=2)
    waiter = waiting(key, interval=0.02)
    await until(lambda: bucket.count() == 1)
    polling.poller_for("quicksync_default")._failures = 5000
    await until(lambda: bucket.count() >= 4)
    bucket.complete(key)
    assert (await outcomes([waiter]))[0][0].file_key == key


@in_loop
async def test_the_server_is_restarted_under_the_waiters(bucket):
    keys = bucket.pending(5)
    waiters = [waiting(key) for key in keys]
    await until(lambda: bucket.count() >= 2)
    await asyncio.to_thread(bucket.stop)
    await asyncio.sleep(0)
    await asyncio.to_thread(bucket.start)
    await asyncio.to_thread(bucket.complete, *keys)
    assert [file.file_key for (file,) in await outcomes(waiters)] == keys


# The connection changes under the waiters


@pytest.mark.parametrize("old_token", ["refused", "of another session"])
@in_loop
async def test_a_fresh_token_in_the_connection_is_taken(bucket, monkeypatch, old_token):
    """A poll lives as long as anybody waits; the token that was there when it began may not."""
    with Bucket() as older:
        old_keys = older.pending(2)
        monkeypatch.setenv(CONNECTION_VARIABLE, older.connection_json())
        waiters = [waiting(old_keys[0])]
        await until(lambda: older.count() >= 1)
        (key,) = bucket.pending()
        bucket.complete(key)
        monkeypatch.setenv(CONNECTION_VARIABLE, bucket.connection_json())
        if old_token == "refused":
            older.fail("*", status=401, times=None)
        waiters.append(waiting(key))
        found, gone = (await outcomes(waiters))[::-1]
        assert found[0].file_key == key
        assert isinstance(gone, NotFoundError)  # as a sensor that pokes would be told


@in_loop
async def test_a_refused_token_that_is_still_the_connections(bucket, monkeypatch):
    (key,) = bucket.pending()
    bucket.fail("get_file", status=401)
    assert isinstance((await outcomes([waiting(key)]))[0], RefusedError)
    assert bucket.count() == 1


@in_loop
async def test_a_connection_that_cannot_be_read_again_does_not_hide_why(bucket, monkeypatch):
    (key,) = bucket.pending()
    waiter = waiting(key)
    await until(lambda: bucket.count() >= 1)
    monkeypatch.delenv(CONNECTION_VARIABLE)
    bucket.remove(key)
    assert isinstance((await outcomes([waiter]))[0], NotFoundError)


# Nothing is left


@in_loop
async def test_one_of_many_is_cancelled(bucket):
    keys = bucket.pending(3)
    waiters = [waiting(key) for key in keys]
    await until(lambda: bucket.count() >= 1)
    waiters[1].cancel()
    await outcomes(waiters[1:2])
    assert waiters[1].cancelled()
    bucket.complete(*keys)
    assert [file.file_key for (file,) in await outcomes([waiters[0], waiters[2]])] == [keys[0], keys[2]]


@in_loop
async def test_the_last_waiter_takes_everything_along(bucket):
    (key,) = bucket.pending()
    waiter = waiting(key)
    await until(lambda: bucket.count() >= 1)
    assert poll_threads()
    waiter.cancel()
    await outcomes([waiter])
    await until(lambda: not poll_threads())
    bucket.reset_log()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(until(lambda: bucket.count(), "quiet"), 0.2)


@pytest.mark.parametrize("end", ["answered", "failed", "cancelled", "another connection"])
@in_loop
async def test_every_client_is_closed(bucket, monkeypatch, end):
    made, closed = [], []
    make, close = Configuration.client, QuickSyncClient.close
    monkeypatch.setattr(Configuration, "client", lambda *a, **k: made.append(make(*a, **k)) or made[-1])
    monkeypatch.setattr(QuickSyncClient, "close", lambda client: closed.append(client) or close(client))
    (key,) = bucket.pending()
    waiter = waiting(key)
    await until(lambda: bucket.count() >= 1)
    if end == "answered":
        bucket.complete(key)
    elif end == "failed":
        bucket.fail("get_file", status=403)
    elif end == "cancelled":
        waiter.cancel()
    else:
        monkeypatch.setenv(
            CONNECTION_VARIABLE, json.dumps({**bucket.airflow_connection(), "host": bucket.url + "/"})
        )
        bucket.remove(key)
    await outcomes([waiter])
    assert len(made) == (2 if end == "another connection" else 1)
    assert made == closed


@pytest.mark.parametrize("moment", ["before it runs", "while it connects", "before it looks"])
@in_loop
async def test_cancelled_before_the_first_look(bucket, monkeypatch, moment):
    reached, go_on = asyncio.Event(), asyncio.Event()
    get = polling.get_async_connection

    async def slow(conn_id):
        reached.set()
        await go_on.wait()
        return await get(conn_id)

    if moment == "while it connects":
        monkeypatch.setattr(polling, "get_async_connection", slow)
    waiter = waiting("a")
    if moment != "before it runs":
        await asyncio.sleep(0)
    if moment == "while it connects":
        await reached.wait()
    waiter.cancel()
    await outcomes([waiter])
    assert waiter.cancelled()
    assert bucket.count() == 0


@in_loop
async def test_cancelled_during_a_request_that_stalls(bucket):
    keys = bucket.pending(2)
    bucket.fail("list_files", stall_seconds=2)
    waiters = [waiting(key) for key in keys]
    await until(lambda: bucket.count() >= 1)
    began = time.monotonic()
    for waiter in waiters:
        waiter.cancel()
    await outcomes(waiters)
    assert time.monotonic() - began < 1.5  # the event loop doesn't wait for the request; its thread does
    await until(lambda: not poll_threads())


@in_loop
async def test_who_comes_while_the_last_one_leaves(bucket):
    one, two = bucket.pending(2)
    waiter = waiting(one)
    await until(lambda: bucket.count() >= 1)
    waiter.cancel()
    await asyncio.sleep(0)  # it is cleaning up now
    successor = waiting(two)
    bucket.complete(two)
    assert (await outcomes([waiter, successor]))[1][0].file_key == two


@in_loop
async def test_two_connections_have_two_polls(bucket, monkeypatch):
    with Bucket() as other:
        other.fail("negotiate", status=404, times=None)
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", other.connection_json())
        (here,), (there,) = bucket.pending(), other.pending()
        waiters = [waiting(here), waiting(there, conn_id="other")]
        await until(lambda: bucket.count() >= 1 and other.count() >= 1)
        other.fail("get_file", status=401)
        assert isinstance((await outcomes(waiters[1:]))[0], RefusedError)
        bucket.complete(here)
        assert (await outcomes(waiters[:1]))[0][0].file_key == here


def test_two_event_loops_have_two_polls(bucket):
    keys = bucket.pending(2)
    found = []

    @in_loop
    async def wait_for(key):
        found.append((await outcomes([waiting(key)]))[0][0].file_key)

    threads = [threading.Thread(target=wait_for, kwargs={"key": key}) for key in keys]
    for thread in threads:
        thread.start()
    bucket.complete(*keys)
    for thread in threads:
        thread.join(20)
    assert sorted(found) == sorted(keys)


def test_an_event_loop_that_ends_takes_its_polls_along(bucket):
    async def main():
        waiting("a", interval=1000)
        await until(lambda: poll_threads())

    asyncio.run(main())


@in_loop
async def test_what_the_poll_logs_is_not_in_the_context_of_the_first_task(bucket, caplog):
    from contextvars import ContextVar

    task, seen = ContextVar("task", default=None), []
    get = polling.get_async_connection

    async def noting(conn_id):
        seen.append(task.get())
        return await get(conn_id)

    task.set("the first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polling, "get_async_connection", noting)
        assert isinstance((await outcomes([waiting("gone")]))[0], NotFoundError)
    assert set(seen) == {None}


@in_loop
async def test_the_loop_is_not_blocked_by_a_slow_answer(bucket):
    keys = bucket.pending(2)
    bucket.fail("list_files", stall_seconds=1.5)
    waiters, ticks = [waiting(key) for key in keys], [time.monotonic()]
    while bucket.journal.counters().get("list_files", {}).get("requests", 0) < 2:
        await asyncio.sleep(0.001)
        ticks.append(time.monotonic())
    assert max(later - earlier for earlier, later in pairwise(ticks)) < 1.0
    bucket.complete(*keys)
    await outcomes(waiters)


@pytest.mark.parametrize("turns", range(4))
@in_loop
async def test_a_cancel_that_comes_together_with_the_end_of_a_pause(bucket, turns):
    waiter, loop = waiting(*bucket.pending(), interval=0.3), asyncio.get_running_loop()
    await until(lambda: bucket.count() >= 1 and not bucket.looking)
    pause = polling.poller_for("quicksync_default")._due - time.monotonic()

    def cancel(turns: int) -> None:
        if turns > 0:
            loop.call_soon(cancel, turns - 1)
        else:
            waiter.cancel()

    cancel(turns)
    time.sleep(pause + 0.01)  # noqa: ASYNC251 - the pause ends before the loop turns again
    await asyncio.wait([waiter], timeout=DEADLINE_SECONDS)
    assert waiter.cancelled()


@pytest.mark.parametrize("turns", range(4))
@in_loop
async def test_a_cancel_that_comes_together_with_a_change_of_the_next_look(turns):
    poller = polling.Poller("any", None, on_end=lambda: None)
    pause = asyncio.create_task(poller._until_due())
    await asyncio.sleep(0)
    poller._set_due(time.monotonic() + 3600)
    for _ in range(turns):
        await asyncio.sleep(0)
    pause.cancel()
    await asyncio.wait([pause], timeout=10)
    assert pause.cancelled()
