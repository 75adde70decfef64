"""Pure's own client for REST 1.x, unmodified, against the simulator. See ../tests/clients.rs."""

import os
import pathlib

from check import check, done
from purity_fb import FileSystemSnapshot, PurityFb, SnapshotSuffix, rest

mount = pathlib.Path(os.environ["SIM_DIR"])
array = PurityFb(f"127.0.0.1:{os.environ['SIM_PORT']}")
array.disable_verify_ssl()
try:
    array.login("T-wrong")
    check("wrong token", False)
except rest.ApiException as error:
    check("wrong token", error.status == 400)
check("login", array.login(os.environ["SIM_SECRET"]))

check("array", array.arrays.list_arrays().items[0].name == "fb1")
check("array space", array.arrays.list_arrays_space().items[0].capacity > 0)
check("blades", len(array.blade.list_blades().items) == 2)
(mount / "file").write_bytes(b"x" * 5000)
found = array.file_systems.list_file_systems(names=["fs1"])
check("file system", found.items[0].space.total_physical == 5000)
check("total", found.total.provisioned == found.items[0].provisioned)
try:
    array.file_systems.list_file_systems(names=["fs9"])
    check("no such file system", False)
except rest.ApiException as error:
    check("no such file system", error.status == 400 and "does not exist" in error.body)
speed = array.file_systems.list_file_systems_performance(names=["fs1"], protocol="NFS")
check("performance", speed.items[0].reads_per_sec == 120.4)

snaps = array.file_system_snapshots
for suffix in ["s1", "s2", "s3"]:
    made = snaps.create_file_system_snapshots(sources=["fs1"], suffix=SnapshotSuffix(suffix))
    check("create " + suffix, made.items[0].name == "fs1." + suffix)
check("seen", (mount / ".snapshot/s1/file").stat().st_size == 5000)
try:
    snaps.create_file_system_snapshots(sources=["fs1"], suffix=SnapshotSuffix("s1"))
    check("twice", False)
except rest.ApiException as error:
    check("twice", "already exists" in error.body)
page = snaps.list_file_system_snapshots(names_or_sources=["fs1"], limit=2)
token = page.pagination_info.continuation_token
check("first page", len(page.items) == 2 and token is not None)
page = snaps.list_file_system_snapshots(names_or_sources=["fs1"], limit=2, token=token)
check("last page", [item.suffix for item in page.items] == ["s3"])
check("no more", page.pagination_info.continuation_token is None)
try:
    snaps.delete_file_system_snapshots(name="fs1.s1")
    check("not destroyed", False)
except rest.ApiException:
    check("not destroyed", True)
snaps.update_file_system_snapshots(name="fs1.s1", attributes=FileSystemSnapshot(destroyed=True))
snaps.delete_file_system_snapshots(name="fs1.s1")
check("gone", not (mount / ".snapshot/s1").exists())
array.logout()
done()
