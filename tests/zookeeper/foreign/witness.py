"""Takes locks in the nodes that the .NET library makes, as another program would, with kazoo.

Arguments: the server, the lock's node, the kind (read, write or semaphore), how many permits there
are, how often to take it, and the directory in which holders check that they may hold it.
"""

import sys
import threading
import time
import uuid
from pathlib import Path

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

PATIENCE = 30


def sequence(child):
    return int(child[-10:])


class Lock:
    def __init__(self, client, node, kind, limit):
        self.client, self.node, self.kind, self.limit = client, node, kind, limit
        self.mine = None

    def acquire(self):
        # Whoever leaves last removes the lock's node.
        while self.mine is None:
            try:
                self.client.ensure_path(self.node)
                prefix = f"{self.node}/{self.kind}-"
                self.mine = self.client.create(prefix, b"", ephemeral=True, sequence=True)
            except NoNodeError:
                pass
        while (changed := self.wait_for()) is not None:
            assert changed.wait(PATIENCE), f"{self.mine} was not told"

    def wait_for(self):
        """Returns what to wait for before looking again; None if the lock is held."""
        changed = threading.Event()
        watch = lambda _event: changed.set()
        kinds = ("semaphore",) if self.kind == "semaphore" else ("read", "write")
        children = self.client.get_children(self.node)
        queue = sorted((c for c in children if c[:-11] in kinds), key=sequence)
        ahead = queue[: queue.index(self.mine.rsplit("/", 1)[1])]
        if self.kind == "read":
            ahead = [child for child in ahead if child.startswith("write-")]
        if len(ahead) < self.limit:
            if self.kind == "semaphore":
                self.client.set(self.mine, b"ACQUIRED")
            return None
        if self.kind == "semaphore":
            # The next one looks at all; the others wait until they may be the next.
            if len(ahead) > self.limit:
                try:
                    data, _ = self.client.get(f"{self.node}/{ahead[-1]}", watch=watch)
                except NoNodeError:
                    changed.set()
                    return changed
                if data != b"ACQUIRED":
                    return changed
            changed = threading.Event()
            again = self.client.get_children(self.node, watch=lambda _event: changed.set())
            if set(again) != set(children):
                changed.set()
            return changed
        if self.client.exists(f"{self.node}/{ahead[-1]}", watch=watch) is None:
            changed.set()
        return changed

    def release(self):
        self.client.delete(self.mine)
        self.mine = None


def check(kind, limit, directory):
    """Does what only a holder may do."""
    if kind == "semaphore":
        sign = directory / uuid.uuid4().hex
        sign.touch()
        inside = len(list(directory.iterdir()))
        assert inside <= limit, f"{inside} of {limit} hold it"
        time.sleep(0.001)
        sign.unlink()
        return
    counter = directory / "counter"
    number = counter.read_text()
    time.sleep(0.001)
    if kind == "write":
        counter.write_text(str(int(number) + 1))
    else:
        assert counter.read_text() == number, "somebody wrote while it was read"


def main(server, node, kind, limit, rounds, directory):
    client = KazooClient(hosts=server)
    client.start(timeout=PATIENCE)
    lock = Lock(client, node, kind, int(limit))
    for _ in range(int(rounds)):
        lock.acquire()
        check(kind, int(limit), Path(directory))
        lock.release()
    client.stop()


main(*sys.argv[1:])
