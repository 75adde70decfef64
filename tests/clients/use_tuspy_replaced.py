"""tuspy in a loop, four at a time and without a second try, while the server is replaced.

Goes on for as long as the file of STORAGE_GO_ON is there.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tusclient.client import TusClient

from world import CLIENT, FOLDER, MIB, SCRATCH, check, check_nothing_staged, content, end, source, url

GO_ON = Path(os.environ["STORAGE_GO_ON"])
SIZE = 24 * MIB


def loop(number):
    name, rounds = f"file-{number}", 0
    while True:
        is_last = not GO_ON.exists()
        data = content(f"{number}-{rounds}", SIZE)
        path = source(name, data)
        target = url("upload", name, size=SIZE)
        tus = TusClient(CLIENT + "/upload")
        tus.uploader(str(path), url=target, chunk_size=MIB, retries=0).upload()
        assert (FOLDER / name).read_bytes() == data, f"{name} arrived with other bytes"
        rounds += 1
        if is_last:
            return rounds


(SCRATCH / "begun").touch()
with ThreadPoolExecutor(4) as pool:
    rounds = list(pool.map(loop, range(4)))
check(f"{sum(rounds)} uploads of {SIZE >> 20} MiB", all(rounds))
check_nothing_staged()
end()
