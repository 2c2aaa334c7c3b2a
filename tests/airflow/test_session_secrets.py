"""After good and bad runs no secret is anywhere: logs at DEBUG, Airflow's whole database, every error."""

from __future__ import annotations

import hashlib
import logging
import pickle
import sqlite3
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_quicksync.client.wallet import Wallet
from airflow_provider_quicksync.hooks import QuickSyncHook
from airflow_provider_quicksync.local.settings import MIB
from airflow_provider_quicksync.local.tokens import Signer
from airflow_provider_quicksync.operators import (
    CreateQuickSyncSessionOperator,
    DeleteQuickSyncSessionOperator,
    UploadToQuickSyncOperator,
)
from airflow_provider_quicksync.sensors import QuickSyncUploadCompletionSensor

pytest.importorskip("coincurve", reason="the extra [wallet] is not installed")

# Made here, because Airflow keeps the source of a DAG's file, which is this one.
WALLET_KEY, PASSWORD, API_KEY = (
    hashlib.sha256(name.encode()).hexdigest() for name in ("wallet", "password", "api key")
)


class Secrets(list[str]):
    """Every secret there is, from the connection and from what the server gives out, by what it is."""

    def __init__(self) -> None:
        super().__init__([WALLET_KEY, WALLET_KEY.upper(), PASSWORD, API_KEY])
        self.kinds = {"session": 0, "wallet": 0, "link": 0, "signature": 0}

    def note(self, kind: str, *secrets: str) -> None:
        self.kinds[kind] += 1
        self.extend(secrets)


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Secrets:
    found = Secrets()
    make_token, make_link, sign = Signer.token, Signer.link_query, Wallet.sign

    def token(signer: Signer, kind: str, *args: Any, **kwargs: Any) -> str:
        made = make_token(signer, kind, *args, **kwargs)
        found.note(kind, made, made.rpartition(".")[2])
        return made

    def link_query(signer: Signer, *args: Any) -> dict[str, str]:
        made = make_link(signer, *args)
        found.note("link", made["signature"])
        return made

    def signature(wallet: Wallet, message: str) -> str:
        made = sign(wallet, message)
        found.note("signature", made, made[2:])
        return made

    monkeypatch.setattr(Signer, "token", token)
    monkeypatch.setattr(Signer, "link_query", link_query)
    monkeypatch.setattr(Wallet, "sign", signature)
    return found


@pytest.fixture
def connected(secrets, quicksync, connect):
    """The connection, with every secret a connection can have."""

    def with_fields(**extra: Any) -> None:
        given = {
            "session_id": None,
            "wallet_private_key": "0x" + WALLET_KEY,
            "session_password": PASSWORD,
            "session_mode": "create",
            "api_key": API_KEY,
        }
        connect(quicksync, password=quicksync.token, extra={**given, **extra})

    secrets.append(quicksync.token)
    quicksync.configure(api_key=API_KEY)
    with_fields()
    return with_fields


@pytest.fixture
def everything(airflow_db: Path, caplog, capsys):
    """All text that was left behind since the test began."""
    caplog.set_level(logging.DEBUG)
    for name in ("urllib3", "requests", "tenacity", "airflow", "airflow_provider_quicksync", "task"):
        caplog.set_level(logging.DEBUG, logger=name)

    def read(*results: Any) -> str:
        shown = capsys.readouterr()
        texts = [shown.out, shown.err, caplog.text, *_records(caplog.records)]
        texts += [path.read_text(errors="replace") for path in (airflow_db.parent / "logs").rglob("*.log")]
        database = sqlite3.connect(airflow_db)
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert {"xcom", "rendered_task_instance_fields", "serialized_dag", "trigger"} <= tables
        texts += database.iterdump()
        database.close()
        for result in results:
            for error in result.errors.values():
                texts += [*traceback.format_exception(error), repr(error), repr(vars(error))]
                texts.append(repr(pickle.dumps(str(error))))
        text = "\n".join(texts)
        assert "Starting new HTTP connection" in text, "the logs are not watched at DEBUG"
        # What a task registers with the masker is a message to its supervisor, which some versions log
        # where, as in `dag.test()`, both are one process; there 3.0 also draws every frame's variables.
        return "\n".join(line for line in text.splitlines() if "MaskSecret" not in line and "│" not in line)

    return read


def _records(records: list[logging.LogRecord]) -> Iterator[str]:
    for record in records:
        yield record.getMessage() + repr(record.args) + repr(record.exc_info)


@pytest.fixture
def pipeline(tmp_path):
    """Open a session, upload in parts and durably, wait in the triggerer, use a link, close the session."""
    (tmp_path / "a").write_bytes(b"0123456789" * 500)

    def build(**arguments: Any) -> DAG:
        with DAG("secretive", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
            session = CreateQuickSyncSessionOperator(task_id="open").as_setup()
            upload = UploadToQuickSyncOperator(
                task_id="upload",
                source=str(tmp_path / "a"),
                part_size_mib=1000 / MIB,
                session_id=session.output,
                **arguments,
            )
            wait = QuickSyncUploadCompletionSensor(
                task_id="wait",
                file_key=upload.output,
                session_id=session.output,
                deferrable=True,
                poke_interval=0.1,
            )

            @task
            def fetch(receipt: dict, session: dict, target: str) -> dict:
                with QuickSyncHook(session_id=session) as hook:
                    assert hook.get_download_url(receipt)
                    return hook.download_file(receipt, target)

            close = DeleteQuickSyncSessionOperator(task_id="close", session_id=session.output)
            (
                wait
                >> fetch(upload.output, session.output, str(tmp_path / "b"))
                >> close.as_teardown(setups=session)
            )
        return dag

    return build


def check(secrets: Secrets, text: str) -> None:
    leaked = {secret[:4] + "…" for secret in secrets if secret in text}
    assert not leaked, [line[:500] for line in text.splitlines() if any(s in line for s in secrets)][:5]


def test_no_secret_is_left_anywhere(connected, secrets, quicksync, run_dag, pipeline, everything):
    quicksync.configure(complete_after_polls=1)
    quicksync.fail("put_part", status=401, part_number=2)  # a renewed bearer is among them
    good = run_dag(pipeline())
    assert set(good.states.values()) == {"success"}, good

    quicksync.fail("put_part", status=503, times=2, skip=2)  # what is kept for the retry is looked at too
    retried = run_dag(pipeline(retries=1, retry_delay=timedelta(milliseconds=1)))
    assert retried.states["upload"] == "success", retried
    quicksync.clear_faults()

    quicksync.fail("put_part", status=401, times=None)
    failed = run_dag(pipeline())
    assert (failed.states["upload"], failed.states["close"]) == ("failed", "success"), failed
    quicksync.clear_faults()

    quicksync.fail("put_part", status=503, times=None)
    kept = run_dag(pipeline())
    assert kept.states["upload"] == "failed"
    quicksync.clear_faults()

    assert all(count >= 3 for count in secrets.kinds.values()), secrets.kinds
    check(secrets, everything(good, retried, failed, kept))


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"wallet_private_key": WALLET_KEY + "0"}, {}),
        ({"wallet_private_key": WALLET_KEY[:-1] + "g"}, {}),
        ({"session_password": PASSWORD + "\n"}, {"call": "join_session", "status": 401}),
        ({}, {"call": "wallet_verify", "status": 400}),
        ({}, {"call": "wallet_nonce", "body": "not_json"}),
        ({}, {"call": "create_session", "status": 422}),
        ({}, {"call": "create_session", "body": "nulls"}),
        ({}, {"call": "create_session", "cut": "response"}),
        ({}, {"call": "join_session", "status": 500}),
        ({"api_key": API_KEY + "x"}, {}),
    ],
)
def test_no_refusal_shows_a_secret(
    connected, secrets, quicksync, run_dag, pipeline, everything, fields, fault
):
    connected(**fields)
    if fault:
        quicksync.fail(times=None, **fault)
    failed = run_dag(pipeline())
    assert failed.state == "failed"
    assert failed.errors
    # Parts of a key that has one digit too many are as secret as a whole one.
    secrets += [WALLET_KEY[:40], PASSWORD[:40]]
    check(secrets, everything(failed))


def test_connection_tests_show_no_secret(connected, secrets, quicksync, everything):
    for fields in (
        {},
        {"session_mode": "join", "session_id": quicksync.session_id},
        {"session_mode": "token"},
    ):
        connected(**fields)
        ok, said = QuickSyncHook().test_connection()
        assert ok, said
        check(secrets, said)
    check(secrets, everything())
