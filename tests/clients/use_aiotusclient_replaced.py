"""aiotusclient in a loop, four at a time and without a second try, while the server is replaced.

Goes on for as long as the file of STORAGE_GO_ON is there.
"""

import asyncio
import os
from pathlib import Path

from aiotusclient import client

from world import FOLDER, MIB, SCRATCH, check, check_nothing_staged, content, end, source, url

GO_ON = Path(os.environ["STORAGE_GO_ON"])
SIZE = 24 * MIB


async def loop(number):
    name, rounds = f"file-{number}", 0
    while True:
        is_last = not GO_ON.exists()
        data = content(f"{number}-{rounds}", SIZE)
        path = source(name, data)
        target = await asyncio.to_thread(url, "upload", name, size=SIZE)
        with path.open("rb") as stream:
            uploader = client.TusClient().async_uploader(
                file_stream=stream, url=target, upload_checksum=False, chunk_size=MIB, retries=0
            )
            await uploader.upload()
        assert (FOLDER / name).read_bytes() == data, f"{name} arrived with other bytes"
        rounds += 1
        if is_last:
            return rounds


async def main():
    (SCRATCH / "begun").touch()
    rounds = await asyncio.gather(*(loop(number) for number in range(4)))
    check(f"{sum(rounds)} uploads of {SIZE >> 20} MiB", all(rounds))
    check_nothing_staged()


asyncio.run(main())
end()
