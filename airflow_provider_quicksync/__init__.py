"""QuickSync for Apache Airflow: upload, wait for, fetch and delete files on IPFS storage."""

from __future__ import annotations

__version__ = "0.1.0"
