"""A web page where one drops a photograph and sees what an exported ensemble says, and what each of its members said.

spectral ensemble runs/sub4 --export photos.pt2 --export-members
python examples/serve.py photos.pt2

It needs torch (or onnxruntime for .onnx) and Pillow, nothing of ours, and listens on this machine alone.
"""

from __future__ import annotations

import io
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from classify import load, read
from numpy.typing import NDArray
from PIL import Image

PAGE = Path(__file__).with_name("serve.html")
LARGEST = 50_000_000  # bytes of a photograph
SHOWN = 5  # classes


class Classifier:
    """An exported ensemble that answers for photographs."""

    def __init__(self, path: str) -> None:
        self._model, self._about = load(path)

    def answer(self, photograph: bytes) -> dict[str, Any]:
        """Return what the ensemble and its members say of a photograph. Raises OSError or ValueError for no image."""
        with Image.open(io.BytesIO(photograph)) as image:
            pixels = read(image)
        fused, *members = self._model(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
        names = [member["name"] for member in self._about["members"]]
        each = dict(zip(names, members[0][0], strict=True)) if members else {}
        return {
            "fused": self._best(fused[0]),
            "members": [{"name": name, "said": self._best(said)} for name, said in each.items()],
        }

    def _best(self, log_probabilities: NDArray[np.float32]) -> list[dict[str, Any]]:
        classes, order = self._about["classes"], log_probabilities.argsort()[::-1][:SHOWN]
        return [{"class": classes[i], "probability": float(np.exp(log_probabilities[i]))} for i in order]


def handler(classifier: Classifier) -> type[BaseHTTPRequestHandler]:
    """Return what answers requests: GET / is the page, POST /classify takes the bytes of a photograph."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/":
                self._send(404, "text/plain", b"there is only /\n")
                return
            self._send(200, "text/html; charset=utf-8", PAGE.read_bytes())

        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            if self.path != "/classify" or not 0 < size <= LARGEST:
                self._json(400, {"error": f"send a photograph of up to {LARGEST // 10**6} MB to /classify"})
                return
            try:
                self._json(200, classifier.answer(self.rfile.read(size)))
            except (OSError, ValueError, Image.DecompressionBombError):
                self._json(400, {"error": "this is not an image that can be read: take a JPEG, PNG or WebP"})

        def _json(self, status: int, value: dict[str, Any]) -> None:
            self._send(status, "application/json", json.dumps(value).encode())

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing of each request."""

    return Handler


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(f"usage: {sys.argv[0]} MODEL [PORT]")
    server = ThreadingHTTPServer(
        ("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 8000), handler(Classifier(sys.argv[1]))
    )
    print(f"open http://127.0.0.1:{server.server_port} in a browser; Ctrl-C ends it", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
