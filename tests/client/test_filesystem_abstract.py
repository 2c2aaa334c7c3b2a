"""fsspec's own suite for filesystems, against a server."""

from __future__ import annotations

import fsspec.tests.abstract as abstract
import pytest
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_quicksync.client.filesystem import QuickSyncFileSystem


class Fixtures(abstract.AbstractFixtures):
    @pytest.fixture
    def fs(self, client):
        return QuickSyncFileSystem(client)

    @pytest.fixture
    def fs_path(self):
        return "folder"

    @pytest.fixture
    def fs_join(self):
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def local_fs(self):  # older versions of the suite have it in a way that pytest warns of
        return LocalFileSystem(auto_mkdir=True)

    @pytest.fixture
    def supports_empty_directories(self):
        return False


class TestCopy(abstract.AbstractCopyTests, Fixtures):
    pass


class TestGet(abstract.AbstractGetTests, Fixtures):
    pass


class TestPut(abstract.AbstractPutTests, Fixtures):
    pass


class TestPipe(abstract.AbstractPipeTests, Fixtures):
    pass


class TestOpen(abstract.AbstractOpenTests, Fixtures):
    pass
