"""Pure's own client for REST 2.x, unmodified, against the simulator. See ../tests/clients.rs."""

import os
import pathlib

from check import check, done
from pypureclient import flashblade
from pypureclient.flashblade import FileSystemSnapshot, FileSystemSnapshotPost

mount = pathlib.Path(os.environ["SIM_DIR"])
where = f"127.0.0.1:{os.environ['SIM_PORT']}"
try:
    flashblade.Client(where, api_token="T-wrong", verify_ssl=False).get_arrays()
    check("wrong token", False)
except Exception as error:
    check("wrong token", "PureError" in type(error).__name__ or "token" in str(error).lower())
array = flashblade.Client(where, api_token=os.environ["SIM_SECRET"], verify_ssl=False)


def items(answer):
    return list(answer.items) if answer.status_code == 200 else answer


check("array", items(array.get_arrays())[0].name == "fb1")
check("array space", items(array.get_arrays_space())[0].capacity > 0)
check("blades", len(items(array.get_blades())) == 2)
(mount / "file").write_bytes(b"x" * 5000)
found = array.get_file_systems(names=["fs1"])
check("file system", items(found)[0].space.total_physical == 5000)
missing = array.get_file_systems(names=["fs9"])
check("no such file system", missing.status_code == 400)
check("says so", "does not exist" in missing.errors[0].message)
speed = array.get_file_systems_performance(names=["fs1"], protocol="nfs")
check("performance", items(speed)[0].reads_per_sec == 120.4)

for suffix in ["s1", "s2", "s3"]:
    post = FileSystemSnapshotPost(suffix=suffix)
    answer = array.post_file_system_snapshots(source_names=["fs1"], file_system_snapshot=post)
    made = items(answer)[0]
    check("create " + suffix, made.name == "fs1." + suffix and made.source.name == "fs1")
check("seen", (mount / ".snapshot/s1/file").stat().st_size == 5000)
twice = array.post_file_system_snapshots(
    source_names=["fs1"], file_system_snapshot=FileSystemSnapshotPost(suffix="s1"))
check("twice", twice.status_code == 400 and "already exists" in twice.errors[0].message)
page = array.get_file_system_snapshots(names_or_owner_names=["fs1"], limit=2)
token = page.continuation_token
check("first page", token is not None)
page = array.get_file_system_snapshots(
    names_or_owner_names=["fs1"], limit=2, continuation_token=token)
check("last page", [item.suffix for item in page.items] == ["s3"])
early = array.delete_file_system_snapshots(names=["fs1.s1"])
check("not destroyed", early.status_code == 400)
array.patch_file_system_snapshots(
    names=["fs1.s1"], file_system_snapshot=FileSystemSnapshot(destroyed=True))
gone = array.delete_file_system_snapshots(names=["fs1.s1"])
check("gone", gone.status_code == 200 and not (mount / ".snapshot/s1").exists())
done()
