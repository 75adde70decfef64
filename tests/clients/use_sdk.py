"""The Python SDK, unmodified: VFolder upload and download through a Manager that only forwards.

The Manager here answers the handful of calls that lead to a token, and nothing else; the bytes go
between the SDK and the server under test, some of them through a proxy that cuts connections.
"""

import asyncio
import os
import sys

from forwarding import point_the_sdk_at_it, state
from world import (
    FOLDER, MIB, NAMES, SCRATCH, SIZES, Cutter, check, check_arrived, check_nothing_staged, content,
    end, source,
)


async def downloaded(folder, name, data, target, **more):
    target.mkdir(parents=True, exist_ok=True)
    await folder.download([name], basedir=target, **more)
    got = (target / name).read_bytes()
    check(f"download of {name}", got == data, f"{len(got)} bytes of {len(data)}, or other ones")


async def main():
    await point_the_sdk_at_it()
    from ai.backend.client.session import AsyncSession

    up, down = SCRATCH / "up", SCRATCH / "down"
    async with AsyncSession() as session:
        folder = session.VFolder("folder")
        for size in SIZES:
            name, data = f"size-{size}", content(size, size)
            source(f"up/{name}", data)
            await folder.upload([name], basedir=up)
            check_arrived(f"{size} bytes", name, data)
            await downloaded(folder, name, data, down)
        for name in NAMES:
            data = content(name, 200_000)
            source(f"up/{name}", data)
            await folder.upload([name], basedir=up, chunk_size=70_000)
            check_arrived(name, name, data)
            await downloaded(folder, name, data, down)

        # A whole directory, into a directory of the folder.
        for name in ("tree/a", "tree/sub/b"):
            source(f"up/{name}", content(name, 1000))
        await folder.upload(["tree"], basedir=up, recursive=True)
        for name in ("tree/a", "tree/sub/b"):
            check_arrived(f"recursive {name}", name, content(name, 1000))
        source("up/in-dst", b"in a directory")
        await folder.upload(["in-dst"], basedir=up, dst_dir="dst/dir")
        check_arrived("dst_dir", "dst/dir/in-dst", b"in a directory")
        (down / "in-dst").unlink(missing_ok=True)
        await downloaded(folder, "in-dst", b"in a directory", down, dst_dir="dst/dir")

        # A cut at every 16 MiB: the SDK goes on with Range and If-Range.
        data = content("big", 50 * MIB)
        (FOLDER / "big").write_bytes(data)
        cutter = Cutter([{"down": 16 * MIB}] * 3)
        state["base"] = cutter.base
        await downloaded(folder, "big", data, down)
        check("the download was cut and resumed", cutter.count == 4, str(cutter.count))

        # A file that changes between two tries: everything comes again, nothing is mixed.
        before, after = content("before", 20 * MIB), content("after", 20 * MIB)
        changing = FOLDER / "changing"
        changing.write_bytes(before)
        os.utime(changing, (1_700_000_000, 1_700_000_000))
        cutter = Cutter([{"down": 9 * MIB}])
        state["base"] = cutter.base

        async def change():
            while cutter.count == 0:
                await asyncio.sleep(0)
            while not (down / "changing").exists():
                await asyncio.sleep(0)
            changing.with_suffix(".new").write_bytes(after)
            changing.with_suffix(".new").rename(changing)

        changed = asyncio.create_task(change())
        await folder.download(["changing"], basedir=down)
        await changed
        got = (down / "changing").read_bytes()
        check("a changed file is not stitched together", got in (before, after), str(len(got)))
    check_nothing_staged()


asyncio.run(main())
end()
sys.exit(0)
