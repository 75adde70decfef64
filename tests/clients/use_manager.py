"""The Manager's own storage client class, unmodified, against the manager port."""

import asyncio
import inspect
import uuid

import aiohttp
import yarl
from ai.backend.common.dto.storage.request import FileDeleteAsyncRequest
from ai.backend.manager.clients.storage_proxy.base import (
    StorageProxyClientArgs,
    StorageProxyHTTPClient,
)
from ai.backend.manager.clients.storage_proxy.manager_facing_client import (
    StorageProxyManagerFacingClient,
)
from ai.backend.manager.config.unified import StorageProxyClientTimeoutConfig
from ai.backend.manager.errors import storage as errors

from world import CLIENT, FOLDER, MANAGER, SECRET, VFID, VOLUME, check, content, end

SCOPE = f"user:{uuid.uuid4()}"
HERE = {"volume": VOLUME, "vfid": VFID}


def fresh():
    return f"{SCOPE}/{uuid.uuid4().hex}"


async def raises(name, kind, call):
    try:
        await call
    except kind as error:
        check(f"{name}: {type(error).__name__}", True)
    except Exception as error:  # any other kind is the failure that is looked for
        check(name, False, f"{type(error).__name__}: {error}")
    else:
        check(name, False, "no error")


async def until(name, ready):
    for _ in range(2000):
        if ready():
            return check(name, True)
        await asyncio.sleep(0.01)
    check(name, False, "not within 20 s")


async def volumes(client):
    listed = await client.get_volumes()
    names = [v["name"] for v in listed["volumes"]]
    check("volumes are listed", VOLUME in names, str(names))
    keys = {"name", "backend", "path", "fsprefix", "capabilities"}
    check("with all keys", all(keys <= set(v) for v in listed["volumes"]))
    info = await client.get_volume_hwinfo(VOLUME)
    check("hardware", info["status"] == "healthy" and info["metadata"] == {})
    usage = await client.get_fs_usage(VOLUME)
    check("file system usage", 0 < usage["used_bytes"] < usage["capacity_bytes"])
    await raises("performance metric", Exception, client.get_volume_performance_metric(VOLUME))


async def scopes(client):
    await raises("missing scope", errors.QuotaScopeNotFoundError,
                 client.get_quota_scope(VOLUME, SCOPE))
    await client.update_quota_scope(VOLUME, SCOPE, 1 << 30)
    scope = await client.get_quota_scope(VOLUME, SCOPE)
    check("quota scope", set(scope) == {"used_bytes", "limit_bytes"}, str(scope))
    await client.delete_quota_scope_quota(VOLUME, SCOPE)
    check("quota is lifted", True)


async def folders(client):
    made, copy = fresh(), fresh()
    await client.create_folder(VOLUME, made)
    await client.create_folder(VOLUME, fresh(), 1 << 30, 0o755)
    path = (await client.get_mount_path(VOLUME, made))["path"]
    check("mount path", path.endswith(made.split("/")[1][4:]), path)
    usage = await client.get_folder_usage(VOLUME, made)
    check("usage of an empty folder", usage == {"file_count": 0, "used_bytes": 0}, str(usage))
    used = await client.get_used_bytes(VOLUME, made)
    check("used bytes", isinstance(used["used_bytes"], int), str(used))
    task = await client.clone_folder(VOLUME, VFID, VOLUME, copy)
    check("clone is a task", isinstance(task.bgtask_id, uuid.UUID), str(task))
    from pathlib import Path

    async def there():
        try:
            return Path((await client.get_mount_path(VOLUME, copy))["path"])
        except Exception:
            return None

    for _ in range(2000):
        if (copied := await there()) and (copied / "seed").is_file():
            break
        await asyncio.sleep(0.01)
    check("the clone is there", copied is not None)
    await client.delete_folder(VOLUME, copy)
    await until("the clone is deleted", lambda: not copied.exists())
    await raises("usage of a missing folder", errors.VFolderNotFound,
                 client.get_folder_usage(VOLUME, copy))
    await raises("used bytes of a missing folder", errors.VFolderNotFound,
                 client.get_used_bytes(VOLUME, copy))


async def files(client):
    made = await client.mkdir(**HERE, relpath="m/n", exist_ok=False, parents=True)
    check("mkdir", made["results"]["success"][0]["item"] == "m/n", str(made))
    made = await client.mkdir(**HERE, relpath=["m/n", "m/o"], exist_ok=False)
    check("mkdir, some", len(made["results"]["failed"]) == 1, str(made))
    await raises("mkdir, none", errors.VFolderOperationFailed,
                 client.mkdir(**HERE, relpath="m/n", exist_ok=False))
    (FOLDER / "m/file").write_bytes(b"content")
    await client.rename_file(VOLUME, VFID, "m/file", "renamed")
    await client.move_file(VOLUME, VFID, "m/renamed", "m/n")
    check("rename and move", (FOLDER / "m/n/renamed").read_bytes() == b"content")
    listed = await client.list_files(VOLUME, VFID, "m/n")
    item = listed["items"][0]
    check("list", (item["name"], item["type"]) == ("renamed", "FILE"), str(item))
    check("stat", {"mode", "size", "created", "modified"} <= set(item["stat"]), str(item))
    fetched = await client.fetch_file_content(VOLUME, VFID, "m/n/renamed")
    check("fetch", fetched == b"content")
    await raises("fetch of a missing file", errors.UnexpectedStorageProxyResponseError,
                 client.fetch_file_content(VOLUME, VFID, "m/nothing"))
    log = [c async for c in client.fetch_file_content_streaming(VOLUME, VFID, "no/log/yet")]
    check("a log that is not there yet streams as empty", log == [], str(log))
    await client.delete_files(VOLUME, VFID, ["m/n/renamed", "m/nothing"], False)
    check("delete", not (FOLDER / "m/n/renamed").exists())
    request = FileDeleteAsyncRequest(
        volume=VOLUME, vfid=VFID, relpaths=["m"], recursive=True
    )
    task = await client.delete_files_async(request)
    check("delete is a task", isinstance(task.bgtask_id, uuid.UUID))
    await until("the directory is deleted", lambda: not (FOLDER / "m").exists())
    await raises("escape", errors.VFolderBadRequest, client.list_files(VOLUME, VFID, "../.."))
    await raises("unknown volume", Exception, client.list_files("nowhere", VFID, ""))
    missing = fresh()
    await raises("list of a missing folder", errors.VFolderNotFound,
                 client.list_files(VOLUME, missing, ""))
    await raises("upload into a missing folder", errors.VFolderNotFound,
                 client.upload_file(VOLUME, missing, "x", "3"))


async def tokens(client, http):
    data = content("manager", 100_000)
    minted = await client.upload_file(VOLUME, VFID, "from manager", str(len(data)))
    target = yarl.URL(CLIENT + "/upload").with_query(token=minted["token"])
    async with http.patch(target, data=data, headers={"Upload-Offset": "0"}) as answer:
        check("upload by token", answer.status == 204, str(answer.status))
    minted = await client.download_file(volume=VOLUME, vfid=VFID, relpath="from manager")
    target = yarl.URL(CLIENT + "/download").with_query(token=minted["token"])
    async with http.get(target) as answer:
        check("download by token", await answer.read() == data)
    if not hasattr(client, "create_archive_download_token"):
        return
    minted = await client.create_archive_download_token(
        volume=VOLUME, virtual_folder_id=VFID, files=["seed"], filename="묶음.zip"
    )
    target = yarl.URL(CLIENT + "/download-archive").with_query(token=minted["token"])
    async with http.get(target) as answer:
        packed = await answer.read()
        check("archive by token", answer.status == 200 and packed[:2] == b"PK")


async def main():
    (FOLDER / "seed").write_bytes(b"seed")
    async with aiohttp.ClientSession() as session, aiohttp.ClientSession() as http:
        args = StorageProxyClientArgs(endpoint=yarl.URL(MANAGER), secret=SECRET)
        http_client = StorageProxyHTTPClient(session, args)
        client = StorageProxyManagerFacingClient(http_client, StorageProxyClientTimeoutConfig())
        check("the class is the package's own", "site-packages" in inspect.getfile(type(client)))
        for part in (volumes, scopes, folders, files):
            await part(client)
        await tokens(client, http)


asyncio.run(main())
end()
