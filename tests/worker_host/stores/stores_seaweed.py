"""SeaweedFS, a real S3 server, small and on loopback only: ready in about a second."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKET = "models"
ACCESS_KEY = "stores"
SECRET_KEY = "stores-secret"

_PORTS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
)
_FLAGS = (
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-webdav=false",
    "-admin.ui=false",
    "-master.telemetry=false",
    "-volume.preStopSeconds=0",
    "-volume.max=8",
    "-master.volumeSizeLimitMB=64",
)


@dataclass(frozen=True)
class Seaweed:
    url: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(retries={"total_max_attempts": 1}, proxies={}),
        )

    def put(self, key: str, data: bytes) -> str:
        self.client().put_object(Bucket=BUCKET, Key=key, Body=data)
        return f"s3://{BUCKET}/{key}"


@contextlib.contextmanager
def running_seaweed(folder: Path):
    """Start it on `folder`, yield it when its bucket is there, and leave neither process nor socket."""
    ports = _free_ports(len(_PORTS))
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": actions,
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    here = ("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", f"-s3.config={config}")
    numbers = [f"-{name}={port}" for name, port in zip(_PORTS, ports, strict=True)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["weed", "-logtostderr=true", "mini", *here, *numbers, *_FLAGS],
            cwd=folder,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        server = Seaweed(f"http://127.0.0.1:{ports[0]}")
        _make_bucket(server, process)
        yield server
    finally:
        process.kill()
        process.wait()
        for port in ports:
            for left_over in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left_over.unlink(missing_ok=True)


def _make_bucket(server: Seaweed, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            server.client().create_bucket(Bucket=BUCKET)
        except (BotoCoreError, ClientError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
