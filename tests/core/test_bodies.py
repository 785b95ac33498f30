"""Which connections are ended: those that stand still for longest, and no more of them than bodies are waited for."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

from mailapi import bodies

STALLED, PAUSE_S = 4, 0.03


def test_a_look_that_takes_its_time_ends_the_oldest_and_not_the_newest(monkeypatch) -> None:
    """Between two measurements passes more time than between two connections, as on a machine that is busy."""
    with ExitStack() as held:
        listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))
        accepted = []
        for _ in range(STALLED + 1):
            peer = held.enter_context(socket.create_connection(listener.getsockname()))
            peer.sendall(b"POST")
            accepted.append(held.enter_context(listener.accept()[0]))
            time.sleep(PAUSE_S)

        def slowly():
            for n, connection in enumerate(accepted):
                time.sleep(4 * PAUSE_S)
                yield str(n), connection.dup()

        monkeypatch.setattr(bodies, "_connections", slowly)
        watch = bodies.Watch(late_s=0.01)
        now = time.monotonic()
        watch._waits.update(dict.fromkeys(range(STALLED), now - 60))
        watch.look(now)
        ended = []
        for connection in accepted:
            connection.settimeout(0)
            connection.recv(4)
            try:
                ended.append(connection.recv(1) == b"")
            except BlockingIOError:
                ended.append(False)
    assert ended == [True] * STALLED + [False]
