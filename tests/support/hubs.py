"""A web server that asks for signatures or passwords, and what must not be seen of them."""

from __future__ import annotations

import base64
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from support.buckets import HOST

PASSWORD, SIGNATURE = "s3cret/word", "X-Sig=4f%2Fe%3D&Expires=9"
BASIC = "Basic " + base64.b64encode(f"me@lab:{PASSWORD}".encode()).decode()


class Hub:
    """A web server over a folder, which remembers what it was asked.

    sign: the query that every request needs.  authorization: the header that it needs.  head: the status of every
    HEAD.  moved: where every request is sent on to.  ranges: whether it can send parts of a file.
    """

    def __init__(
        self,
        folder: Path,
        sign: str = "",
        authorization: str = "",
        head: int = 200,
        moved: str = "",
        ranges: bool = True,
        host: str = HOST,
    ) -> None:
        self.asked: list[tuple[str, str]] = []  # method and path, as sent
        self.headers: list[dict[str, str]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def answer(self) -> None:
                target = self.requestline.split(" ")[1]  # self.path has lost a slash of two at its beginning
                hub.asked.append((self.command, target))
                hub.headers.append({name.lower(): value for name, value in self.headers.items()})
                path, _, query = target.partition("?")
                file = folder / unquote(path).lstrip("/")
                data, status = b"", 200
                extra: dict[str, str] = {}
                if moved:
                    status, extra = 302, {"Location": f"{moved}{path}?{SIGNATURE}"}
                elif authorization and self.headers.get("Authorization") != authorization:
                    status = 401
                elif query != sign:
                    status, data = 403, b"<Error><Code>AccessDenied</Code></Error>"
                elif self.command == "HEAD" and head != 200:
                    status = head
                elif not file.is_file():
                    status = 404
                else:
                    data = file.read_bytes()
                    wanted = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if ranges else None
                    if wanted and int(wanted[1]) >= len(data):
                        status, data = 416, b""
                    elif wanted:
                        first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
                        status, extra = 206, {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
                        data = data[first : last + 1]
                self.send_response(status)
                extra |= {"Content-Length": str(len(data)), "ETag": '"1"'}
                extra["Last-Modified"] = "Tue, 24 Nov 2026 00:00:00 GMT"
                for name, value in extra.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_HEAD = answer  # noqa: N815

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Quiet((host, 0), Handler)
        self.host = f"[{host}]" if ":" in host else host
        self.host += f":{self._server.server_port}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def secret(text: str) -> bool:
    """True where a password or a signature, in any of its forms, is in a text."""
    return any(part in text for part in (PASSWORD, "s3cret", "X-Sig", "4f%2Fe", BASIC.split()[1], "Expires=9"))
