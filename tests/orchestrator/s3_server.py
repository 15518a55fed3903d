"""An S3 server of this test run, and what its buckets hold as another client sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class S3Server:
    """A running server; `environment` is what a client needs to find it."""

    def __init__(self, url: str) -> None:
        import boto3

        self.environment = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "no_proxy": "127.0.0.1",
        }
        self._client: Any = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )
        self._buckets = 0

    def new_bucket(self) -> str:
        """The name of a new, empty bucket."""
        self._buckets += 1
        name = f"bucket{self._buckets}"
        self._client.create_bucket(Bucket=name)
        return name

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Store an object."""
        self._client.put_object(Bucket=bucket, Key=key, Body=content)

    def files(self, bucket: str, prefix: str) -> dict[str, bytes]:
        """The objects below a prefix, by the rest of their names."""
        listed = self._client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
        return {
            entry["Key"].removeprefix(prefix): self._client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
            for entry in listed
        }


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Start a server in this process, and stop it at the end."""
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        host, port = running.get_host_and_port()
        yield S3Server(f"http://{host}:{port}")
    finally:
        running.stop()
