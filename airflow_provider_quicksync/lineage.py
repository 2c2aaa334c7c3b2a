"""
OpenLineage: what tasks read and wrote. Imported only by the OpenLineage provider, through the operators.

A file is the dataset ``quicksync://<host>`` / ``<name>``; its facet ``quicksyncFile`` has the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import attr
from airflow.providers.common.compat.openlineage.facet import (
    Dataset,
    DatasetFacet,
    InputDataset,
    LifecycleStateChange,
    LifecycleStateChangeDatasetFacet,
    OutputDataset,
    OutputStatisticsOutputDatasetFacet,
)
from airflow.providers.openlineage.extractors import OperatorLineage

from airflow_provider_quicksync.assets import SCHEME


@attr.define
class QuickSyncFileDatasetFacet(DatasetFacet):
    """A file of QuickSync: its key, its size, and its SHA-256 where it is known."""

    fileKey: str = attr.field(default="")
    sizeBytes: int | None = attr.field(default=None)
    sha256: str | None = attr.field(default=None)


def of_upload(source: Any, host: str, receipts: Iterable[Mapping[str, Any]]) -> OperatorLineage[Any, Any]:
    """From what was named as source to the files that were made."""
    outputs = [
        OutputDataset(
            namespace=f"{SCHEME}://{host}",
            name=receipt["name"],
            facets=_facets(receipt, LifecycleStateChange.CREATE),
            outputFacets=_written(receipt),
        )
        for receipt in receipts
    ]
    return OperatorLineage(inputs=[_dataset(one, InputDataset) for one in _sources(source)], outputs=outputs)


def of_download(host: str, receipts: Iterable[Mapping[str, Any]]) -> OperatorLineage[Any, Any]:
    """From files to where they were put."""
    inputs, outputs = [], []
    for receipt in receipts:
        name = _name(receipt)
        inputs.append(InputDataset(namespace=f"{SCHEME}://{host}", name=name, facets=_facets(receipt)))
        outputs.append(_dataset(receipt["path"], OutputDataset, outputFacets=_written(receipt)))
    return OperatorLineage(inputs=inputs, outputs=outputs)


def of_delete(host: str, deleted: Iterable[Mapping[str, Any]]) -> OperatorLineage[Any, Any]:
    """The files that are gone."""
    inputs = [
        InputDataset(
            namespace=f"{SCHEME}://{host}", name=_name(file), facets=_facets(file, LifecycleStateChange.DROP)
        )
        for file in deleted
    ]
    return OperatorLineage(inputs=inputs)


def _facets(file: Mapping[str, Any], change: LifecycleStateChange | None = None) -> dict[str, Any]:
    facets: dict[str, Any] = {
        "quicksyncFile": QuickSyncFileDatasetFacet(
            fileKey=file["file_key"], sizeBytes=file.get("size_bytes"), sha256=file.get("sha256")
        )
    }
    if change:
        facets["lifecycleStateChange"] = LifecycleStateChangeDatasetFacet(lifecycleStateChange=change)
    return facets


def _written(file: Mapping[str, Any]) -> dict[str, Any]:
    statistics = OutputStatisticsOutputDatasetFacet(size=file["size_bytes"], rowCount=None)
    return {"outputStatistics": statistics}


def _name(file: Mapping[str, Any]) -> str:
    """A file's name; by its key where only that is known."""
    from airflow_provider_quicksync.client.listing import path_of_key

    return file.get("name") or path_of_key(file["file_key"])


def _sources(source: Any) -> list[Any]:
    from airflow_provider_quicksync.sources import is_collection

    if source is None:
        return []
    return list(source) if is_collection(source) else [source]


def _dataset(place: Any, kind: type[Dataset], **facets: Any) -> Dataset:
    """The dataset of a path or URL, named as OpenLineage's conventions say."""
    text = str(place)
    if "://" not in text:
        return kind(namespace="file", name=os.path.abspath(text), **facets)
    uri = urlsplit(text)
    bucket = uri.netloc.rpartition("@")[2]
    return kind(
        namespace=f"{uri.scheme}://{bucket}" if bucket else uri.scheme, name=uri.path.lstrip("/"), **facets
    )
