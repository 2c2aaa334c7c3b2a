"""Sessions as pipelines use them: opened, joined, outlived, found again, closed."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import fsspec
import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator, ObjectStoragePath

from airflow_provider_quicksync.client import UsageError
from airflow_provider_quicksync.client.transfer.checkpoint import Checkpoint
from airflow_provider_quicksync.connection import read_connection
from airflow_provider_quicksync.hooks import QuickSyncHook
from airflow_provider_quicksync.local.settings import MIB
from airflow_provider_quicksync.operators import (
    CreateQuickSyncSessionOperator,
    DeleteQuickSyncFileOperator,
    DeleteQuickSyncSessionOperator,
    DownloadFromQuickSyncOperator,
    ListQuickSyncFilesOperator,
    UploadToQuickSyncOperator,
)
from airflow_provider_quicksync.sensors import QuickSyncUploadCompletionSensor
from airflow_provider_quicksync.task_groups import upload_over_workers

pytest.importorskip("coincurve", reason="the extra [wallet] is not installed")

EXAMPLE = "quicksync_session.py"
ALICE, BOB = (f"{number:064x}" for number in (1, 2))
BOBS_ADDRESS = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF"
PASSWORD = "open sesame"


def has_task_state():
    import importlib.metadata

    return tuple(map(int, importlib.metadata.version("apache-airflow").split(".")[:2])) >= (3, 3)


@pytest.fixture
def wallet(quicksync, connect):
    """Let `quicksync_default` have a wallet in place of the token; `extra` settings are added."""

    def give(key: str = ALICE, *, password: str = "", **extra: Any) -> None:
        extra = {"session_id": None, "wallet_private_key": key, **extra}
        connect(quicksync, password=password, extra=extra)

    give()
    return give


@pytest.fixture
def session(quicksync, wallet):
    """A session of Alice's; `quicksync_default` has her wallet."""
    with QuickSyncHook() as hook:
        session_id = hook.create_session()["session_id"]
    quicksync.reset_log()
    return session_id


def others(quicksync) -> list[str]:
    """The ids of the sessions besides the server's own."""
    return [session["id"] for session in quicksync.sessions() if session["id"] != quicksync.session_id]


def states(result):
    return {task: state for task, state in result.states.items() if state != "success"}


class TestExample:
    def test_a_session_lives_for_one_run(self, quicksync, wallet, run_dag):
        quicksync.configure(complete_after_polls=1)
        result = run_dag(EXAMPLE)
        assert states(result) == {}, result
        created = result.xcoms["open_session"]
        assert set(created) >= {"session_id", "expiry", "max_files", "max_users", "role"}
        assert [receipt["session_id"] for receipt in result.xcoms["upload"]] == [created["session_id"]] * 3
        assert [file["name"] for file in result.xcoms["wait"]] == result.xcoms["hand_out"]
        assert result.xcoms["close_session"] == {"session_id": created["session_id"], "deleted": True}
        assert others(quicksync) == []
        assert quicksync.files() == []

    def test_its_upload_may_outlive_the_bearers(self, quicksync, wallet, run_dag):
        quicksync.configure(complete_after_polls=1, token_seconds=3)
        quicksync.fail("put_part", delay_seconds=4, times=3)
        result = run_dag(EXAMPLE)
        assert states(result) == {}, result
        assert quicksync.calls.count("initiate") == 3
        assert others(quicksync) == []

    def test_it_is_closed_when_the_upload_fails(self, quicksync, wallet, run_dag):
        quicksync.fail("put_part", status=422, times=None)
        result = run_dag(EXAMPLE)
        assert (result.states["upload"], result.states["close_session"]) == ("failed", "success")
        assert result.state == "failed"
        assert others(quicksync) == []

    def test_nothing_is_sent_or_closed_where_none_was_opened(self, quicksync, wallet, run_dag):
        wallet("12" * 31)
        result = run_dag(EXAMPLE)
        assert states(result) == {
            "open_session": "failed",
            "upload": "upstream_failed",
            "wait": "upstream_failed",
            "hand_out": "upstream_failed",
            "close_session": "upstream_failed",
        }
        assert quicksync.calls == []


class TestOutliving:
    DATA = "0123456789" * 2400

    @pytest.fixture
    def slow(self, quicksync):
        """Let an upload of DATA take some five seconds: 24 parts, two at a time."""
        quicksync.fail("put_part", delay_seconds=0.4, times=None)
        return {"data": self.DATA, "name": "a", "part_size_mib": 1000 / MIB, "max_concurrency": 2}

    def test_an_upload_outlives_its_bearers(self, quicksync, session, slow, run_task):
        quicksync.configure(token_seconds=3)
        ran = run_task(UploadToQuickSyncOperator, session_id=session, wait_for_completion=True, **slow)
        assert ran.state == "success", ran
        assert (ran.result["session_id"], ran.result["completed"]) == (session, True)
        assert quicksync.calls.count("initiate") == 1
        assert quicksync.calls.count("join_session") >= 2

    def test_an_upload_that_outlives_its_own_session_starts_again_in_another(
        self, quicksync, wallet, slow, run_task, log_text
    ):
        wallet(session_expiry_seconds=6)
        quicksync.clear_faults()
        quicksync.fail("put_part", delay_seconds=2, times=8)  # the second time is fast
        ran = run_task(UploadToQuickSyncOperator, **slow)
        assert ran.state == "success", ran
        assert len(others(quicksync)) == 2
        assert ran.result["session_id"] in others(quicksync)
        assert (quicksync.calls.count("create_session"), quicksync.calls.count("initiate")) == (2, 2)
        assert "starting again in a new session" in log_text()

    def test_a_session_that_is_always_too_short_ends_it_with_what_to_do(
        self, quicksync, wallet, slow, run_task
    ):
        wallet(session_expiry_seconds=1)
        ran = run_task(UploadToQuickSyncOperator, **slow, retries=2)
        assert (ran.state, ran.attempts) == ("failed", 1)
        assert re.search(
            "use a session with a longer life$|check that the session lives long enough", ran.said
        )
        assert quicksync.calls.count("create_session") == 2

    def test_a_session_that_others_look_into_is_not_replaced(self, quicksync, session, slow, run_task):
        quicksync.fail("put_part", status=401, times=None, skip=4)
        quicksync.expire_session(session)
        ran = run_task(UploadToQuickSyncOperator, session_id=session, **slow)
        assert "The session has ended." in ran.said
        assert quicksync.calls.count("create_session") == 0


class TestFindingAgain:
    @pytest.fixture(autouse=True)
    def _needs_task_state(self):
        if not has_task_state():
            pytest.skip("Airflow before 3.3 keeps no task state")

    @pytest.fixture
    def break_once(self, monkeypatch):
        """Let a task die between its work and its end."""
        clear, died = Checkpoint.clear, []

        def dying(checkpoint, **options):
            if not died:
                died.append(True)
                raise ConnectionResetError("died here")
            clear(checkpoint, **options)

        monkeypatch.setattr(Checkpoint, "clear", dying)

    def test_a_retry_finds_the_session_that_was_created(self, quicksync, wallet, run_task, break_once):
        ran = run_task(
            CreateQuickSyncSessionOperator, name="x", retries=1, retry_delay=timedelta(milliseconds=1)
        )
        assert (ran.state, ran.attempts) == ("success", 2)
        assert others(quicksync) == [ran.result["session_id"]]
        assert quicksync.calls.count("create_session") == 1

    def test_one_that_has_ended_meanwhile_is_replaced(self, quicksync, wallet, run_task, break_once):
        wallet(session_expiry_seconds=1)
        retry = {"retries": 1, "retry_delay": timedelta(seconds=1.2)}
        ran = run_task(CreateQuickSyncSessionOperator, name="x", **retry)
        assert (ran.state, ran.attempts) == ("success", 2)
        assert quicksync.calls.count("create_session") == 2

    def test_a_retry_of_an_upload_goes_on_in_its_own_session(self, quicksync, wallet, run_task):
        quicksync.fail("put_part", status=503, times=None, skip=2)
        quicksync.fail("create_session", delay_seconds=0)
        original = QuickSyncHook.upload_sources
        seen = []

        def upload(hook, *args, **kwargs):
            seen.append(True)
            if len(seen) == 2:
                quicksync.clear_faults()
            return original(hook, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(QuickSyncHook, "upload_sources", upload)
            ran = run_task(
                UploadToQuickSyncOperator,
                data="0123456789" * 500,
                name="a",
                part_size_mib=1000 / MIB,
                max_concurrency=1,
                retries=1,
                retry_delay=timedelta(milliseconds=1),
            )
        assert (ran.state, ran.attempts) == ("success", 2), ran
        assert others(quicksync) == [ran.result["session_id"]]
        assert quicksync.calls.count("initiate") == 1


class TestSessionId:
    @pytest.mark.parametrize("given", ["text", "created", "receipts"])
    def test_every_task_joins_the_session_that_is_named(self, quicksync, session, run_task, given):
        named: Any = {"text": session, "created": {"session_id": session, "role": "host"}}.get(given)
        named = named or [{"file_key": key, "session_id": session} for key in "ab"]
        sent = run_task(UploadToQuickSyncOperator, data="x", name="a", session_id=named).result
        assert sent["session_id"] == session
        arguments = {"file_key": sent, "session_id": named}
        assert run_task(QuickSyncUploadCompletionSensor, **arguments).result["name"] == "a"
        deleted = run_task(DeleteQuickSyncFileOperator, **arguments).result
        assert deleted == {"deleted": [sent["file_key"]], "missing": []}
        ended = run_task(DeleteQuickSyncSessionOperator, session_id=named).result
        assert ended == {"session_id": session, "deleted": True}
        assert others(quicksync) == []

    def test_it_reaches_every_hand_of_an_upload_over_workers(
        self, quicksync, session, wallet, run_dag, tmp_path
    ):
        (tmp_path / "huge").write_bytes(b"0123456789" * 500)
        for named in (session, None):  # None: the first task creates one
            with DAG("spread", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as spread:
                upload_over_workers(
                    "up", source=str(tmp_path / "huge"), part_size_mib=1000 / MIB, workers=2, session_id=named
                )
            result = run_dag(spread)
            assert {state for task, state in result.states.items() if task != "up.abort"} == {"success"}, (
                result
            )
            at = result.xcoms["up.complete"]["session_id"]
            assert (at == session) == bool(named)
        assert set(others(quicksync)) == {session, at}

    def test_paths_are_in_it(self, quicksync, session, wallet):
        url = "quicksync://quicksync_default@/a.csv"
        with pytest.raises(UsageError, match="set session_id on the connection or in the storage options"):
            ObjectStoragePath(url).exists()
        with fsspec.open(url, "w", session_id=session) as file:
            file.write("abc")
        wallet(session_id=session)
        assert ObjectStoragePath(url).read_text() == "abc"
        assert "create_session" not in quicksync.calls

    def test_it_is_templated(self, quicksync, session, run_task):
        ran = run_task(
            UploadToQuickSyncOperator,
            data="x",
            name="a",
            session_id="{{ params.at }}",
            params={"at": session},
        )
        assert ran.result["session_id"] == session

    def test_it_reaches_the_triggers(self, quicksync, session, run_task):
        quicksync.configure(complete_after_polls=1)
        waiting = {"deferrable": True, "poke_interval": 0.1, "session_id": session}
        ran = run_task(
            UploadToQuickSyncOperator,
            data="x",
            name="a",
            wait_for_completion=True,
            if_exists="replace",
            **waiting,
        )
        assert (ran.state, ran.result["completed"]) == ("success", True), ran
        sent = run_task(UploadToQuickSyncOperator, data="x", name="b", session_id=session).result
        waited = run_task(QuickSyncUploadCompletionSensor, file_key=sent, timeout=30, **waiting)
        assert waited.result["file_key"] == sent["file_key"], waited

    def test_a_session_of_its_own_reaches_the_trigger_too(self, quicksync, wallet, run_task):
        quicksync.configure(complete_after_polls=1)
        ran = run_task(
            UploadToQuickSyncOperator,
            data="x",
            name="a",
            wait_for_completion=True,
            deferrable=True,
            poke_interval=0.1,
        )
        assert (ran.state, ran.result["completed"]) == ("success", True), ran
        assert others(quicksync) == [ran.result["session_id"]]

    @pytest.mark.parametrize("given", ["", "  ", "None", "{{ none }}", {"file_key": "k"}, 7, []])
    def test_what_names_no_session_is_never_another_one(self, quicksync, wallet, run_task, given):
        ran = run_task(UploadToQuickSyncOperator, data="x", name="a", session_id=given)
        assert (ran.kind, ran.state) == ("AirflowFailException", "failed")
        assert "not a session's id: did the task that creates it run?" in ran.said
        assert quicksync.calls == []

    def test_several_sessions_are_none(self, quicksync, wallet, run_task):
        ran = run_task(UploadToQuickSyncOperator, data="x", name="a", session_id=["a", "b"])
        assert "session_id names 2 sessions" in ran.said
        assert quicksync.calls == []

    def test_what_a_task_gave_none_for_is_not_the_connections(self, quicksync, run_dag, tmp_path):
        key = quicksync.put("a", b"x")
        quicksync.reset_log()
        (tmp_path / "b").write_text("x")
        with DAG("none", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:

            @dag.task
            def nothing():
                return None

            given = {"session_id": nothing()}
            UploadToQuickSyncOperator(task_id="upload", data="x", name="b", **given)
            DeleteQuickSyncFileOperator(task_id="delete", file_key=key, **given)
            ListQuickSyncFilesOperator(task_id="list", **given)
            DownloadFromQuickSyncOperator(task_id="fetch", file_key=key, path=str(tmp_path / "a"), **given)
            QuickSyncUploadCompletionSensor(task_id="wait", file_key=key, **given)
            upload_over_workers("group", source=str(tmp_path / "b"), **given)
        result = run_dag(dag)
        for task_id in ("upload", "delete", "list", "fetch", "wait", "group.initiate"):
            assert "session_id is NoneType, not a session's id" in str(result.errors[task_id])
        assert quicksync.calls == []

    def test_a_new_session_is_none_to_look_for_files_in(self, quicksync, wallet, run_task, tmp_path):
        wallet(session_mode="create")
        sent = run_task(UploadToQuickSyncOperator, data="x", name="a").result
        quicksync.reset_log()
        for operator, arguments in [
            (ListQuickSyncFilesOperator, {}),
            (DownloadFromQuickSyncOperator, {"file_key": sent, "path": str(tmp_path / "a")}),
            (QuickSyncUploadCompletionSensor, {"file_key": sent}),
            (DeleteQuickSyncFileOperator, {"file_key": sent}),
        ]:
            ran = run_task(operator, **arguments)
            assert (ran.kind, ran.state) == ("AirflowFailException", "failed")
            assert "name the one of the files, as in session_id=upload.output" in ran.said
            assert quicksync.calls == []
            assert run_task(operator, session_id=sent, **arguments).state == "success"
            quicksync.reset_log()

    def test_with_a_token_it_must_be_the_tokens(self, quicksync, run_task):
        sent = run_task(UploadToQuickSyncOperator, data="x", name="a", session_id=quicksync.session_id)
        assert sent.state == "success"
        quicksync.reset_log()
        for operator, arguments in [
            (UploadToQuickSyncOperator, {"data": "x", "name": "b"}),
            (DeleteQuickSyncFileOperator, {"file_key": [sent.result, "b", "c"]}),
            (QuickSyncUploadCompletionSensor, {"file_key": sent.result}),
            (DeleteQuickSyncSessionOperator, {}),
        ]:
            ran = run_task(operator, session_id="another", **arguments)
            assert f"the token is of session {quicksync.session_id}, not of session another: " in ran.said
        assert set(quicksync.calls) == {"current_session"}
        with QuickSyncHook(session_id="another") as hook:
            for _ in range(2):
                with pytest.raises(UsageError, match="not of session another"):
                    hook.list_files()


class TestClosing:
    def test_one_that_has_ended_is_fine(self, quicksync, session, run_task):
        for deleted in (True, False):
            ran = run_task(DeleteQuickSyncSessionOperator, session_id=session)
            assert ran.result == {"session_id": session, "deleted": deleted}

    def test_somebody_elses_is_refused(self, quicksync, session, wallet, run_task):
        wallet(BOB)
        ran = run_task(DeleteQuickSyncSessionOperator, session_id=session, retries=2)
        assert (ran.kind, ran.attempts) == ("AirflowFailException", 1)
        assert "only its host can delete it: the wallet that created it" in ran.said
        assert others(quicksync) == [session]

    def test_a_lost_answer_is_a_session_less(self, quicksync, session, run_task):
        quicksync.fail("delete_session", cut="answer")
        assert run_task(DeleteQuickSyncSessionOperator, session_id=session).result["deleted"]
        assert others(quicksync) == []


class TestPreflight:
    @pytest.mark.parametrize(
        ("settings", "extra", "said"),
        [
            ({"max_files": 1}, {}, r"2 file\(s\) don't fit: session \w+ allows 1 and has 0; delete some"),
            ({"max_total_megabytes": 1}, {}, r"2.0 MiB don't fit: session \w+ allows 1 MB and has 0.0 MiB"),
            (
                {},
                {"session_expiry_seconds": 30, "uplink_mib_per_second": 0.01},
                r"2.0 MiB can't be sent in time: session \w+ ends in 0:00:(30|29|28), and 0.01 MiB/s would"
                r" take 0:03:20; use a session with a longer life, or say in uplink_mib_per_second",
            ),
        ],
        ids=["files", "megabytes", "time"],
    )
    def test_what_does_not_fit_is_refused_with_the_numbers(
        self, quicksync, wallet, run_task, tmp_path, settings, extra, said
    ):
        quicksync.configure(**settings)
        wallet(**extra)
        for name in "ab":
            (tmp_path / name).write_bytes(bytes(MIB))
        ran = run_task(UploadToQuickSyncOperator, source=f"{tmp_path}/*", retries=1)
        assert (ran.kind, ran.attempts) == ("AirflowFailException", 1)
        assert re.search(said, ran.said), ran.said
        assert {"initiate", "put_part"}.isdisjoint(quicksync.calls)

    def test_what_fits_is_not_refused(self, quicksync, wallet, run_task):
        wallet(session_expiry_seconds=30, uplink_mib_per_second=1)
        assert run_task(UploadToQuickSyncOperator, data="x" * MIB, name="a").state == "success"


class TestConnectionTest:
    def test_a_token(self, quicksync):
        quicksync.configure(max_files=5, max_total_megabytes=50)
        quicksync.put("a", b"x" * MIB)
        ok, said = QuickSyncHook().test_connection()
        assert ok
        assert (
            f"{quicksync.url}: the connection's token; session {quicksync.session_id}: 1 of 5 files" in said
        )
        assert re.search(r"; left: 4 files, 49\.0 MiB, 99 users, (6 days, 23:59:\d\d|7 days, 0:00:00)$", said)

    def test_a_session_to_join(self, quicksync, session, wallet):
        wallet(BOB, session_id=session)
        ok, said = QuickSyncHook().test_connection()
        assert ok
        assert f"joined as wallet {BOBS_ADDRESS}; session {session}: 0 of 1000000 files" in said
        left = "; left: 1,000,000 files, 1,048,576.0 MiB, 98 users, "
        assert re.search(re.escape(left) + r"(23:59:\d\d|1 day, 0:00:00)$", said)

    def test_sessions_to_create_are_not_created(self, quicksync, wallet):
        wallet(BOB, session_expiry_seconds=3600)
        assert QuickSyncHook().test_connection() == (
            True,
            f"{quicksync.url}: wallet {BOBS_ADDRESS} is accepted; a task that names no session creates one of"
            " 3,600 s; the test creates none",
        )
        assert others(quicksync) == []

    def test_what_is_wrong(self, quicksync, session, wallet):
        wallet(BOB, session_id="unknown")
        ok, said = QuickSyncHook().test_connection()
        assert not ok
        assert "There is no such session" in said

    def test_where_the_service_tells_no_rules(self, quicksync):
        quicksync.fail("current_session", status=404, times=None)
        assert QuickSyncHook().test_connection() == (
            True,
            f"{quicksync.url}: the connection's token; 0 files; the service tells no rules",
        )


class TestMode:
    @pytest.mark.parametrize(
        ("token", "extra", "named", "mode"),
        [
            ("t", {}, None, "token"),
            ("t", {"session_id": "s"}, None, "token"),
            ("t", {}, "s", "token"),
            ("t", {"wallet_private_key": ALICE}, None, "token"),
            ("t", {"wallet_private_key": ALICE}, "s", "join"),
            ("t", {"wallet_private_key": ALICE, "session_id": "s"}, None, "join"),
            ("t", {"wallet_private_key": ALICE, "session_mode": "create"}, None, "create"),
            ("t", {"wallet_private_key": ALICE, "session_mode": " Token"}, "s", "token"),
            ("", {"wallet_private_key": ALICE}, None, "create"),
            ("", {"wallet_private_key": ALICE, "session_id": "s"}, None, "join"),
            ("", {"wallet_private_key": ALICE, "session_mode": "create"}, "s", "join"),
            ("", {}, None, "token"),
        ],
    )
    def test_it_is_what_is_asked_for_or_possible(self, token, extra, named, mode):
        assert configuration(token, extra, named).session_mode == mode

    @pytest.mark.parametrize(
        ("extra", "said"),
        [
            ({"session_mode": "maybe"}, "session_mode must be token, join or create, not 'maybe'"),
            ({"session_mode": "join"}, "session_mode join needs a wallet: set wallet_private_key"),
            ({"session_mode": "create"}, "session_mode create needs a wallet: set wallet_private_key"),
            (
                {"session_mode": "join", "wallet_private_key": ALICE},
                "session_mode join needs a session: set session_id",
            ),
            (
                {"session_mode": "create", "wallet_private_key": ALICE, "session_id": "s"},
                "session_mode create makes new sessions: remove session_id, or use join",
            ),
            ({"session_password": "***"}, "session_password is a mask (***), not a password: enter it again"),
        ],
    )
    def test_what_cannot_be(self, extra, said):
        with pytest.raises(UsageError) as caught:
            configuration("t", extra)
        assert str(caught.value) == f"connection 'it': {said}"

    def test_a_session_needs_a_wallet(self, quicksync, run_task):
        ran = run_task(CreateQuickSyncSessionOperator, name="x")
        assert ran.said == (
            "connection 'quicksync_default': sessions are created and joined with a wallet: set"
            " wallet_private_key"
        )


def configuration(token: str, extra: dict[str, Any], named: str | None = None):
    class Connection:
        conn_id, host, port, schema, password = "it", None, None, None, token
        extra_dejson = extra

    return read_connection(Connection(), {"session_id": named})


class TestOperators:
    def test_arguments_are_rules(self, quicksync, wallet, run_task):
        wallet(session_password=PASSWORD)
        ran = run_task(
            CreateQuickSyncSessionOperator, expiry_seconds=60, capacity=3, whitelist=[BOBS_ADDRESS], name="me"
        )
        assert (ran.result["max_users"], ran.result["password_protected"]) == (3, True), ran
        assert 50 < ran.result["expiry"] - time.time() <= 60
        (session,) = [s for s in quicksync.sessions() if s["id"] == ran.result["session_id"]]
        assert session["users"][0]["name"] == "me"
        wallet(BOB, session_password=PASSWORD)
        assert (
            run_task(UploadToQuickSyncOperator, data="x", name="a", session_id=ran.result).state == "success"
        )

    def test_the_host_is_called_after_the_task(self, quicksync, wallet, run_task):
        created = run_task(CreateQuickSyncSessionOperator).result["session_id"]
        (session,) = [s for s in quicksync.sessions() if s["id"] == created]
        assert session["users"][0]["name"] == "only.it"

    @pytest.mark.parametrize("operator", [CreateQuickSyncSessionOperator, DeleteQuickSyncSessionOperator])
    def test_they_are_made_for_setup_and_teardown(self, operator):
        with DAG(dag_id="d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
            arguments = {} if operator is CreateQuickSyncSessionOperator else {"session_id": "s"}
            task = operator(task_id="t", **arguments).as_setup()
        assert isinstance(task, BaseOperator)
        assert task.is_setup

    def test_the_hook_has_what_a_session_can_do(self, quicksync, session):
        with QuickSyncHook(session_id=session) as hook:
            assert hook.current_session().session_id == hook.session_to_name == session
            hook.disconnect_session()
        with QuickSyncHook(session_id=session) as hook:
            assert hook.delete_session()
            assert not hook.delete_session()


# What is wrong, how, and what is said. `fields` are the connection's extras; `at` the session asked for.
BAD_INPUT: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "key too short": (
        {"wallet_private_key": "12" * 31},
        {},
        "connection 'quicksync_default': the wallet's private key is not 64 hexadecimal digits",
    ),
    "key out of range": ({"wallet_private_key": "00" * 32}, {}, "private key is out of the range"),
    "key masked": ({"wallet_private_key": "***"}, {}, "private key is a mask (***), not a key"),
    "key of nobody known": (
        {},
        {"call": "wallet_verify", "status": 400},
        "; check wallet_private_key",
    ),
    "key of another wallet": (
        {},
        {"whitelist": "0x" + "0" * 40},
        "The wallet is not on the whitelist of the",
    ),
    "wrong password": (
        {"session_password": "not " + PASSWORD},
        {"password": PASSWORD},
        "The password of the",
    ),
    "no password": ({}, {"password": PASSWORD}, "The password of the session is wrong"),
    "unknown session": ({}, {"session_id": "unknown"}, "404 Not Found: There is no such session."),
    "full session": ({}, {"capacity": 1}, "422 Unprocessable"),
    "expired session": ({}, {"expired": True}, "404 Not Found: The session has ended."),
    "422 on joining": ({}, {"call": "join_session", "status": 422}, "422 Unprocessable"),
    "422 on creating": (
        {"session_mode": "create"},
        {"call": "create_session", "status": 422},
        "; check the rules that the session was to have",
    ),
    "rules out of bounds": (
        {"session_mode": "create", "session_capacity": 1000},
        {},
        "rules.userCapacity: The field userCapacity must be a number from 1 to 100.",
    ),
    "whitelist of nothing": (
        {"session_mode": "create", "session_whitelist": "me, you"},
        {},
        "the session's whitelist: 'me' is no Ethereum address",
    ),
    "wrong API key": (
        {"session_mode": "create", "api_key": "not-the-key"},
        {"api_key": "the-key-of-the-account"},
        "The X-API-KEY header is missing or wrong",
    ),
    "expired token": ({"wallet_private_key": None}, {"expired": "own"}, "; put a fresh session token into"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_before_any_byte(quicksync, wallet, connect, run_task, case):
    fields, how, said = BAD_INPUT[case]
    rules = {f"session_{name}": how[name] for name in ("capacity", "whitelist", "password") if name in how}
    with QuickSyncHook(**rules) as hook:
        session_id = hook.create_session()["session_id"]
    if how.get("expired"):
        quicksync.expire_session(session_id if how["expired"] is True else None)
    if "call" in how:
        quicksync.fail(how["call"], status=how["status"], times=None)
    if "api_key" in how:
        quicksync.configure(api_key=how["api_key"])
    creates = fields.get("session_mode") == "create" or "wallet_private_key" in fields
    at = {} if creates else {"session_id": how.get("session_id", session_id)}
    wallet(BOB, password=quicksync.token if case == "expired token" else "")
    wallet(**{"key": BOB, "password": quicksync.token if case == "expired token" else "", **renamed(fields)})
    ran = run_task(UploadToQuickSyncOperator, data="x", name="a", retries=2, **at)
    assert said in ran.said
    assert (ran.state, ran.attempts, ran.kind) == ("failed", 1, "AirflowFailException")
    assert {"initiate", "put_part", "complete"}.isdisjoint(quicksync.calls)
    assert PASSWORD not in ran.said


def renamed(fields: dict[str, Any]) -> dict[str, Any]:
    return {"key" if name == "wallet_private_key" else name: value for name, value in fields.items()}


def test_bad_input_is_told_apart():
    said = [said for _, _, said in BAD_INPUT.values()]
    assert len({*said}) >= len(said) - 2  # a password that is missing is wrong; both 422 have a status
