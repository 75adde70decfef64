"""The Python SDK in a loop, four at a time, while the server is replaced: nothing fails.

Goes on for as long as the file of STORAGE_GO_ON is there.
"""

import asyncio
import os
import sys
from pathlib import Path

from forwarding import point_the_sdk_at_it
from world import FOLDER, MIB, SCRATCH, check, check_nothing_staged, content, end, source

GO_ON = Path(os.environ["STORAGE_GO_ON"])
CHUNK = 1 * MIB
SIZE = 24 * MIB


async def loop(session, number):
    folder = session.VFolder("folder")
    name, rounds = f"file-{number}", 0
    down = SCRATCH / "down"
    down.mkdir(exist_ok=True)
    while True:
        is_last = not GO_ON.exists()
        data = content(f"{number}-{rounds}", SIZE)
        source(f"up/{name}", data)
        await folder.upload([name], basedir=SCRATCH / "up", chunk_size=CHUNK)
        assert (FOLDER / name).read_bytes() == data, f"{name} arrived with other bytes"
        (down / name).unlink(missing_ok=True)
        await folder.download([name], basedir=down)
        assert (down / name).read_bytes() == data, f"{name} came back with other bytes"
        rounds += 1
        if is_last:
            return rounds


async def main():
    await point_the_sdk_at_it()
    from ai.backend.client.session import AsyncSession

    async with AsyncSession() as session:
        (SCRATCH / "begun").touch()
        rounds = await asyncio.gather(*(loop(session, number) for number in range(4)))
        check(f"{sum(rounds)} uploads and downloads of {SIZE >> 20} MiB", all(rounds))
    check_nothing_staged()


asyncio.run(main())
end()
sys.exit(0)
