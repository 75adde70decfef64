"""What the Python client scripts share: the server under test, content, and a cutting proxy.

The server and a folder are named by environment variables that tests/clients.rs sets. Only the
standard library is used here: the clients under test stay as their packages ship them.
"""

import json
import os
import random
import socket
import threading
import urllib.parse
import urllib.request
from pathlib import Path

CLIENT = os.environ["STORAGE_CLIENT"]
MANAGER = os.environ["STORAGE_MANAGER"]
SECRET = os.environ["STORAGE_SECRET"]
VOLUME = os.environ["STORAGE_VOLUME"]
VFID = os.environ["STORAGE_VFID"]
FOLDER = Path(os.environ["STORAGE_FOLDER"])
SCRATCH = Path(os.environ["STORAGE_SCRATCH"])

MIB = 1 << 20
SIZES = [0, 1, 16 * MIB, 16 * MIB + 1]
NAMES = ["plain.bin", "with blanks .bin", "quotes \" and '.bin", "한글 이름.bin"]

_passed = 0


def ask(method, path, body):
    """Asks the manager port; the parsed answer, None when it has no body."""
    request = urllib.request.Request(
        MANAGER + path,
        data=json.dumps(body).encode(),
        headers={"X-BackendAI-Storage-Auth-Token": SECRET, "Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def token(kind, relpath, **more):
    """A token of the kind `upload` or `download`."""
    body = {"volume": VOLUME, "vfid": VFID, "relpath": relpath, **more}
    return ask("POST", f"/folder/file/{kind}", body)["token"]


def url(kind, relpath, base=CLIENT, **more):
    """A URL with a fresh token, as the Manager's callers get it."""
    return f"{base}/{kind}?token={token(kind, relpath, **more)}"


def content(seed, size):
    """The same bytes for the same seed."""
    return random.Random(seed).randbytes(size)


def source(name, data):
    """A local file with this content."""
    path = SCRATCH / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def check(name, good, why=""):
    """Counts one check, or ends the script."""
    global _passed
    if not good:
        raise SystemExit(f"FAILED: {name} {why}")
    _passed += 1
    print(f"ok: {name}", flush=True)


def check_arrived(name, relpath, data):
    """The file is in the folder with this content, and no staging file is left."""
    path = FOLDER / relpath
    check(f"{name} arrived", path.is_file(), f"{path} is not there")
    got = path.read_bytes()
    check(f"{name} is equal", got == data, f"{len(got)} bytes of {len(data)}, or other ones")


def check_nothing_staged():
    check("nothing is left in .upload", not (FOLDER / ".upload").exists())


def end():
    """The closing line."""
    print(f"{_passed} passed, 0 failed", flush=True)


class Cutter:
    """A proxy to the client port that can cut connections.

    `plan` holds one entry per connection, in order; connections past its end are whole.
    An entry is a dict: `up` or `down` bytes after which both sides are closed, or
    `swallow: True` to take the request whole and never pass the answer on.
    """

    def __init__(self, plan):
        self.plan = list(plan)
        self.count = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.base = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        target = urllib.parse.urlsplit(CLIENT)
        while True:
            near, _ = self.listener.accept()
            far = socket.create_connection((target.hostname, target.port))
            how = self.plan[self.count] if self.count < len(self.plan) else {}
            self.count += 1
            threading.Thread(target=self._join, args=(near, far, how), daemon=True).start()

    def _join(self, near, far, how):
        cut = threading.Event()
        ways = [
            (near, far, how.get("up"), False, cut),
            (far, near, how.get("down"), how.get("swallow", False), cut),
        ]
        threads = [threading.Thread(target=self._pump, args=way, daemon=True) for way in ways]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # Closed, not only shut down: a peer that still writes must hear of it.
        near.close()
        far.close()

    @staticmethod
    def _pump(a, b, limit, swallow, cut):
        passed = 0
        try:
            while not cut.is_set():
                part = a.recv(65536)
                if not part:
                    break
                if swallow:
                    # The answer is there: the work is done, and nobody hears of it.
                    cut.set()
                    break
                if limit is not None and limit <= passed + len(part):
                    b.sendall(part[: limit - passed])
                    cut.set()
                    break
                b.sendall(part)
                passed += len(part)
        except OSError:
            cut.set()
        if cut.is_set():
            for side in (a, b):
                try:
                    side.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        else:
            try:
                b.shutdown(socket.SHUT_WR)
            except OSError:
                pass
