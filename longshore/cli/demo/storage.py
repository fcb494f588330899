"""The artifact store of the demo: SeaweedFS, a real S3 server, on loopback and with credentials of its own."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from longshore.cli.demo.ports import LOOPBACK, choose
from longshore.cli.demo.processes import Processes

BUCKET = "longshore-models"
REGION = "us-east-1"
READY_TIMEOUT = 60.0  # seconds; it takes 1.1 s on an idle machine

# Switched off: what the demo does not use, and what would bind fixed ports or call home.
_OFF = [
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-webdav=false",
    "-admin.ui=false",
    "-master.telemetry=false",
    "-volume.preStopSeconds=0",
]
_SMALL = ["-volume.max=8", "-master.volumeSizeLimitMB=64"]
_PORTS = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"]
_PORTS += ["s3.port.grpc", "admin.port", "admin.port.grpc"]


@dataclass(frozen=True)
class Storage:
    """Where the artifacts are, and the credentials for it (made anew for each run)."""

    port: int
    access_key: str = field(default_factory=lambda: secrets.token_hex(10))
    secret_key: str = field(default_factory=lambda: secrets.token_hex(20), repr=False)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def bucket_url(self) -> str:
        return f"s3://{BUCKET}"

    def environment(self) -> dict[str, str]:
        """Return the variables by which the standard credential chain finds this store."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
        }

    async def start(self, processes: Processes, folder: Path, taken: set[int]) -> None:
        """Start the server on `folder` and make the bucket. Raises DemoFailed."""
        config = self._write_config(folder)
        ports = [f"-{name}={choose(0, taken)}" for name in _PORTS]
        here = [f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}", f"-dir={folder}", f"-s3.config={config}"]
        argv = ["weed", "-logtostderr=true", "mini", *here, f"-s3.port={self.port}", *ports, *_OFF, *_SMALL]
        await processes.start("storage", argv, cwd=folder)
        await processes.until("the artifact store answers", self._make_bucket, READY_TIMEOUT)

    def upload(self, objects: Mapping[str, bytes]) -> None:
        """Put objects into the bucket, by key."""
        client = self._client()
        for key, content in objects.items():
            client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def _write_config(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "s3.json"
        config.touch(mode=0o600)
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        config.write_text(
            json.dumps({"identities": [{"name": "demo", "credentials": credentials, "actions": actions}]})
        )
        return config

    async def _make_bucket(self) -> bool:
        try:
            self._client().create_bucket(Bucket=BUCKET)
        except (BotoCoreError, ClientError) as error:
            raise OSError(str(error)) from error
        return True

    def _client(self) -> Any:
        config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, proxies={})
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=config,
        )


def remove_sockets(taken: set[int]) -> None:
    """Remove the sockets that SeaweedFS leaves in /tmp (a place that it has hard-coded), those of our ports only."""
    for port in taken:
        for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 (SeaweedFS's own place)
            with contextlib.suppress(OSError):
                socket.unlink()
