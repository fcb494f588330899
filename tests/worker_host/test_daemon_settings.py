"""Settings of a device say what is wrong with them in plain words."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from longshore.worker_host.settings import WorkerHostSettings


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1", "127.0.0.1:99999", ":8080", "127.0.0.1:8080\n"])
def test_listen_is_an_address(listen):
    """An operator reads what is expected, not a regular expression."""
    with pytest.raises(ValidationError, match=r"is not HOST:PORT, such as 127\.0\.0\.1:8080"):
        WorkerHostSettings(config=Path("worker.yaml"), listen=listen)


def test_listen_address_is_what_envoy_gets():
    """Host and port, taken apart."""
    settings = WorkerHostSettings(config=Path("worker.yaml"), listen="0.0.0.0:9000")
    assert settings.listen_address == ("0.0.0.0", 9000)
