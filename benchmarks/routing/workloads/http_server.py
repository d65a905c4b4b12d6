"""A throwaway HTTP server for work that waits: prints its port, ends with its input.

Run as `python -m benchmarks.routing.workloads.http_server SECONDS`, which it thinks about a page.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import subprocess
import sys

BODY = b"<p>a page of a small site</p>\n" * 680
REPLY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
) + BODY


def serve(thinking: float) -> int:
    """Starts a server that lives as long as this process; returns its port."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.routing.workloads.http_server", repr(thinking)],
        stdin=subprocess.PIPE,  # its end of file is the order to stop
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(_stop, server)
    assert server.stdout is not None
    return int(server.stdout.readline())


def _stop(server: subprocess.Popen[str]) -> None:
    server.kill()
    server.wait()
    for pipe in (server.stdin, server.stdout):
        if pipe is not None:
            pipe.close()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(float(sys.argv[1]))
        writer.write(REPLY)
        await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    # A thread, because Windows has no asynchronous reading of pipes.
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
