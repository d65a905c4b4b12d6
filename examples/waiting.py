"""Work that waits (networks, disks, other programs) gets more threads than there are cores."""

import socket
import threading
import time

from parallax import parallel_map


def serve(listener):
    """A server that takes 30 ms to answer, as one across a network would."""

    def answer(connection):
        with connection:
            question = connection.recv(100)
            time.sleep(0.03)
            connection.sendall(question.upper())

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


listener = socket.create_server(("127.0.0.1", 0), backlog=256)
address = listener.getsockname()
threading.Thread(target=serve, args=(listener,), daemon=True).start()


def ask(question):
    """Send a question and wait for the answer."""
    with socket.create_connection(address) as connection:
        connection.sendall(question.encode())
        return connection.recv(100).decode()


answers = parallel_map(ask, [f"question {n}" for n in range(100)])

print("example: waiting")
print(answers.report)

assert answers == [f"QUESTION {n}" for n in range(100)]
