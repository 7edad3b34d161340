"""An S3 server in this process, on loopback, with an empty bucket; and buckets in memory."""

import logging
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import pytest
from moto.server import ThreadedMotoServer

from pipeline.disk import objects as object_paths
from pipeline.disk.objects import ObjectPath
from pipeline.disk.places import place_of

SECRET = "never-to-be-told"


@contextmanager
def object_server() -> Iterator[str]:
    """Yield the bucket's URL; where it is served, the environment says, as it would for a user."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    bucket, endpoint = f"atlas-{uuid4().hex[:8]}", f"http://{host}:{port}"
    said = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in said.items():
            patch.setenv(name, value)
        with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT")):
            object_paths._opened.cache_clear()
        yield f"s3://{bucket}"
    object_paths._opened.cache_clear()
    server.stop()


@contextmanager
def refusing_server() -> Iterator[str]:
    """Yield the address of a server that answers 403 to everything: a machine whose cloud gives it no credentials."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        do_PUT = do_GET  # noqa: N815  (the name that http.server looks for)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def place_in_memory() -> ObjectPath:
    """A run's place in a bucket of its own, which lives as long as this process."""
    place = place_of(f"memory://{uuid4().hex}/run")
    assert isinstance(place, ObjectPath)
    return place
