"""Which storage a card's `storage_type` means."""

from __future__ import annotations

from longshore.schemas.failures import LongshoreError
from longshore.worker_host.stores.storage import Storage


def storage_for(storage_type: str) -> Storage:
    """Return the storage of a card's `storage_type`; its client library is imported only now.

    Raises STORAGE_UNSUPPORTED, and PROGRAM_MISSING where the library is not installed.
    """
    if storage_type == "http":
        from longshore.worker_host.stores.storage_http import HttpStorage  # noqa: PLC0415 (heavy, and not every device's)

        return HttpStorage()
    if storage_type == "s3":
        try:
            from longshore.worker_host.stores.storage_s3 import S3Storage  # noqa: PLC0415 (heavy, and an extra)
        except ImportError as error:
            raise LongshoreError("PROGRAM_MISSING", "boto3, which S3 needs, is not installed here") from error

        return S3Storage()
    raise LongshoreError("STORAGE_UNSUPPORTED", f"this device cannot read from {storage_type}")
