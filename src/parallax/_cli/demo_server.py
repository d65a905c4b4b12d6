"""The demo's HTTP server, run as a script in a process of its own: serves one folder on loopback.

    python -I demo_server.py FOLDER MILLISECONDS

Prints its port, answers each request after that many milliseconds as a server over a network
would, and ends when its standard input ends: with the demo, however that ends.
Assumption: executed by path, so it imports nothing of parallax.
"""

from __future__ import annotations

import functools
import signal
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Handler(SimpleHTTPRequestHandler):
    delay = 0.0

    def do_GET(self) -> None:
        """Wait, then serve the file."""
        time.sleep(self.delay)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Stay silent."""


class _Server(ThreadingHTTPServer):
    #: The default of 5 makes the system drop connections when many come at once.
    request_queue_size = 512

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: a client that left in the middle is an interrupted demo."""


def main(folder: str, milliseconds: str) -> None:
    """Serve a folder until standard input ends, each answer after that many milliseconds."""
    # Ctrl-C reaches the whole process group; the demo ends, and with it our standard input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Handler.delay = float(milliseconds) / 1000
    handler = functools.partial(_Handler, directory=folder)
    with _Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
