"""Real servers for results: S3 with users and keys, and a line to any server that can be cut or silenced."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "one", "AWS_SECRET_ACCESS_KEY": "seldom-told", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass
class S3:
    """A server of moto's, on this machine."""

    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> Any:
        boto3 = pytest.importorskip("boto3")
        names = ("aws_access_key_id", "aws_secret_access_key", "region_name")
        return boto3.client("s3", endpoint_url=self.endpoint, **dict(zip(names, KEYS.values(), strict=True)))

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Give all that is in a bucket."""
        client = self.client()
        listed = client.list_objects_v2(Bucket=bucket).get("Contents", [])
        return {each["Key"]: client.get_object(Bucket=bucket, Key=each["Key"])["Body"].read() for each in listed}

    def ask_for_keys(self, asks: bool) -> None:
        """Check keys from now on, or no more; it knows nobody's."""
        headers = {"Content-Type": "text/plain"}
        data = b"0" if asks else b"inf"
        request = urllib.request.Request(f"{self.endpoint}/moto-api/reset-auth", data=data, headers=headers)
        urllib.request.urlopen(request, timeout=60).close()


@contextmanager
def s3_server() -> Iterator[S3]:
    """Serve S3 with an empty bucket ``models``."""
    moto = pytest.importorskip("moto.server", reason="needs the extra dev")
    pytest.importorskip("s3fs", reason="needs the extra s3")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        served = S3(server.get_host_and_port()[1])
        served.client().create_bucket(Bucket="models")
        yield served
    finally:
        server.stop()


@dataclass
class Line:
    """A port that leads to a server, or says nothing, or hangs up."""

    target: int
    mode: str = "forward"
    """forward, silent, or refuse."""
    silent_from: bytes = b""
    """When these bytes come by, the line goes silent."""
    silenced: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    """Whoever met silence has hung up."""
    port: int = 0

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(caller,), daemon=True).start()

    def _carry(self, caller: socket.socket) -> None:
        with caller:
            if self.mode == "refuse":
                return
            if self.mode == "silent":
                self._silence(caller)
                return
            with socket.create_connection(("127.0.0.1", self.target), timeout=60) as server:
                threading.Thread(target=_pour, args=(server, caller), daemon=True).start()
                while data := _received(caller):
                    if self.silent_from and self.silent_from in data:
                        self._silence(caller)
                        return
                    server.sendall(data)

    def _silence(self, caller: socket.socket) -> None:
        self.silenced.set()
        while _received(caller):
            pass
        self.left.set()


@contextmanager
def line(target: int) -> Iterator[Line]:
    """Open a line to a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        opened = Line(target, port=listener.getsockname()[1])
        threading.Thread(target=opened.serve, args=(listener,), daemon=True).start()
        yield opened


def _pour(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := _received(source):
            target.sendall(data)
    except OSError:
        return


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(65536)
    except OSError:
        return b""
