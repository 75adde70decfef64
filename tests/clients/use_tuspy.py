"""tuspy: HEAD first, resumes by HEAD, asks HEAD again after any failure."""

from tusclient.client import TusClient

from world import (
    MIB, NAMES, SIZES, Cutter, check, check_arrived, check_nothing_staged, content, end, source, url,
)


def uploader(relpath, data, target, chunk_size=4 * MIB, retries=0):
    client = TusClient(target)
    return client.uploader(
        file_path=str(source(relpath, data)),
        url=target,
        chunk_size=chunk_size,
        retries=retries,
        retry_delay=0,
    )


for size in SIZES:
    data = content(size, size)
    uploader(f"size-{size}", data, url("upload", f"size-{size}", size=size)).upload()
    check_arrived(f"{size} bytes", f"size-{size}", data)

for name in NAMES:
    data = content(name, 50_000)
    uploader(name, data, url("upload", f"n/{name}", size=len(data))).upload()
    check_arrived(name, f"n/{name}", data)

# Stopped in the middle and taken up again by a new uploader, which asks HEAD where to go on.
data = content("resume", 10 * MIB)
target = url("upload", "resume", size=len(data))
uploader("resume", data, target, chunk_size=MIB).upload(stop_at=3 * MIB)
again = uploader("resume", data, target, chunk_size=MIB)
check("HEAD tells where to go on", again.offset == 3 * MIB, str(again.offset))
again.upload()
check_arrived("a resumed upload", "resume", data)

# Connections are cut in the middle of PATCHes; each retry goes on from what HEAD says.
data = content("cuts", 12 * MIB)
cutter = Cutter([{}, {"up": 3 * MIB}, {}, {"up": 5 * MIB}, {}, {"up": 100}])
target = url("upload", "cuts", base=cutter.base, size=len(data))
uploader("cuts", data, target, chunk_size=8 * MIB, retries=20).upload()
check("connections were cut", 6 < cutter.count, str(cutter.count))
check_arrived("an upload with cut connections", "cuts", data)

# The answer to the last PATCH is lost: the HEAD that follows must say that all is there.
data = content("lost", MIB)
cutter = Cutter([{}, {"swallow": True}])
target = url("upload", "lost", base=cutter.base, size=len(data))
uploader("lost", data, target, retries=3).upload()
check_arrived("an upload whose last answer was lost", "lost", data)

check_nothing_staged()
end()
