"""aiotusclient, as the Python SDK uses it: PATCH only, 16 MiB per request, 204 or give up."""

import asyncio

from aiotusclient import client

from world import NAMES, SIZES, MIB, check_arrived, check_nothing_staged, content, end, source, url


async def upload(relpath, data, chunk_size):
    path = source(relpath, data)
    with path.open("rb") as stream:
        uploader = client.TusClient().async_uploader(
            file_stream=stream,
            url=url("upload", relpath, size=len(data)),
            upload_checksum=False,
            chunk_size=chunk_size,
            retries=0,
        )
        await uploader.upload()


async def main():
    for size in SIZES:
        data = content(size, size)
        await upload(f"size-{size}", data, 16 * MIB)
        check_arrived(f"{size} bytes", f"size-{size}", data)
    for name in NAMES:
        data = content(name, 100_000)
        await upload(f"names/{name}", data, 30_000)
        check_arrived(name, f"names/{name}", data)
    check_nothing_staged()


asyncio.run(main())
end()
