"""
Assets: ``quicksync://<host>/<name>``, the name percent-encoded, and what their events carry.

An upload task with such an asset among its outlets puts its receipt on the asset's event, so that the DAG
that the event starts knows the file key, size and SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from airflow.providers.common.compat.sdk import Asset, AssetAlias

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import Dataset as OpenLineageDataset

SCHEME = "quicksync"
DEFAULT_HOST = "api.quicksync.me"
_SAFE = "/!$&'()*+,;=:@~"


def create_asset(*, name: str, host: str = DEFAULT_HOST, extra: dict[str, Any] | None = None) -> Asset:
    """
    The asset of a file, or of what is below a name that ends in ``/``.

    :param name: the file's name in QuickSync.
    :param host: the host (and port) of the API that keeps it.
    """
    return Asset(uri=f"{SCHEME}://{host}/{quote(name.strip('/'), safe=_SAFE)}", extra=extra)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """
    The normal form: host in lower case without the port that is the default, name encoded one way.

    The URI of an ``ObjectStoragePath``, ``quicksync://conn_id@/name``, is left as it is: Airflow makes assets
    of these when they are read or written.

    :raises ValueError: there is neither a host nor a name.
    """
    if not uri.netloc and not uri.path.strip("/"):
        raise ValueError("a QuickSync asset is quicksync://<host>/<name>")
    path = "/" + quote(unquote(uri.path.strip("/")), safe=_SAFE)
    return uri._replace(netloc=uri.netloc if "@" in uri.netloc else _host(uri.netloc), path=path)


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> OpenLineageDataset:
    """The dataset of an asset, named as the operators name theirs."""
    from airflow.providers.common.compat.openlineage.facet import Dataset as OpenLineageDataset

    uri = urlsplit(asset.uri)
    conn_id, at, rest = uri.netloc.rpartition("@")
    if not at:
        return OpenLineageDataset(namespace=f"{SCHEME}://{uri.netloc}", name=asset_name(asset.uri))
    name = unquote(f"{rest}{uri.path}").strip("/")
    return OpenLineageDataset(namespace=f"{SCHEME}://{_host_of_connection(conn_id)}", name=name)


def asset_host(base_url: str) -> str:
    """The host that assets of an API have."""
    return _host(urlsplit(base_url).netloc)


def asset_name(uri: str) -> str:
    """The file's name in an asset's URI."""
    return unquote(urlsplit(uri).path).strip("/")


def report(
    context: Any, outlets: Iterable[Any], host: str, receipts: Sequence[Mapping[str, Any]], *, several: bool
) -> None:
    """
    Put receipts on the events of a task's QuickSync outlets.

    An asset gets the receipt of its name; where there is none, the receipt of a task that uploads one file,
    or, of one that may upload ``several``, ``{"receipts": [...]}`` with those below its name, or all. An
    ``AssetAlias`` gets an asset with its receipt for each file.
    """
    for outlet in outlets:
        if isinstance(outlet, Asset) and outlet.uri.startswith(f"{SCHEME}://"):
            context["outlet_events"][outlet].extra.update(_extra(asset_name(outlet.uri), receipts, several))
        elif isinstance(outlet, AssetAlias):
            for receipt in receipts:
                asset = create_asset(name=receipt["name"], host=host)
                context["outlet_events"][outlet].add(asset, extra=dict(receipt))


def _extra(name: str, receipts: Sequence[Mapping[str, Any]], several: bool) -> dict[str, Any]:
    same = [receipt for receipt in receipts if receipt["name"] == name]
    below = [receipt for receipt in receipts if receipt["name"].startswith(f"{name}/")]
    if same or (receipts and not several):
        return dict((same or receipts)[-1])
    return {"receipts": [dict(receipt) for receipt in below or receipts]}


def _host(netloc: str) -> str:
    return netloc.lower().removesuffix(":443")


def _host_of_connection(conn_id: str) -> str:
    """A connection's host; its id where it can't be looked up."""
    with suppress(Exception):
        from airflow_provider_quicksync.hooks import QuickSyncHook

        return asset_host(QuickSyncHook(conn_id).configuration.base_url)
    return conn_id
