"""The Wallet verification API: a nonce to sign, and a short-lived bearer for who signed it."""

from __future__ import annotations

import time

from aiohttp import web

from airflow_provider_quicksync.local.call import Call, json_body
from airflow_provider_quicksync.local.problems import Problem, invalid
from airflow_provider_quicksync.local.tokens import WALLET_TOKEN, Refused
from airflow_provider_quicksync.local.wallets import CHAIN, is_available


async def wallet_nonce(call: Call) -> web.Response:
    """``GET /wallet-proof/nonce``."""
    nonce, message = call.core.wallets.new_message()
    return call.reply({"nonce": nonce, "message": message})


async def wallet_verify(call: Call) -> web.Response:
    """``POST /wallet-proof/verify?chain=Ethereum``."""
    if not is_available():
        raise Problem(501, "Wallets need: pip install 'airflow-provider-quicksync[wallet]'")
    if call.request.query.get("chain", "").lower() != CHAIN.lower():
        raise invalid("chain", f"The chain must be {CHAIN}.")
    body = await json_body(call)
    values = [body.get(name) for name in ("walletAddress", "message", "signature")]
    address, message, signature = (value if isinstance(value, str) else "" for value in values)
    try:
        call.core.wallets.check(address, message, signature)
    except Refused as error:
        raise Problem(400, str(error)) from error
    expires_at = time.time() + call.core.settings.wallet_seconds
    return call.reply({"token": call.core.signer.token(WALLET_TOKEN, address, expires_at)})
