"""The client of Weka's older interface, unmodified, against the simulator: see ../tests/clients.rs.

What it does not speak, REST v2, is asked with the standard library.
"""

import json
import os
import pathlib
import ssl
import urllib.parse
import urllib.request

from check import check, done
from wekalib.exceptions import IOStopped, LoginError
from wekalib.wekaapi import WekaApi

mount = pathlib.Path(os.environ["SIM_DIR"])
user, password = os.environ["SIM_USER"], os.environ["SIM_SECRET"]
port = int(os.environ["SIM_PORT"])
trust = ssl.create_default_context(cafile=os.environ["SIM_CA"])


def connect(**more):
    return WekaApi("127.0.0.1", scheme="https", port=port, verify_cert=False, **more)


def rest(method, path, body=None, token=None):
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"https://127.0.0.1:{port}/api/v2/{path}", data=data,
                                     headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, context=trust) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text[:1] in b"{[" else text.decode()
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


api = connect()
tokens = api.get_tokens()
check("login", tokens["token_type"] == "Bearer" and tokens["expires_in"] == 300)
again = connect(tokens=dict(tokens))
check("login by refresh token", again.get_tokens()["access_token"] != tokens["access_token"])
try:
    connect(tokens={**tokens, "refresh_token": "stale"})
    check("stale refresh token", False)
except LoginError:
    check("stale refresh token", True)

systems = api.weka_api_command("filesystems_list", {})
check("one file system", len(systems) == 1 and systems[0]["name"] == "backend")
check("its key", systems[0]["fs_id"] == "FSId: 0")
uid = systems[0]["uid"]
(mount / "a").mkdir()
(mount / "a" / "file").write_bytes(b"x" * 5000)
inode = (mount / "a").stat().st_ino
params = {"activate": True, "inode_context": inode, "path": "/a",
          "soft_limit_bytes": 1 << 20, "hard_limit_bytes": 1 << 20}
check("quota is set", api.weka_api_command("set_directory_quota", params) is not None)
try:
    api.weka_api_command("set_directory_quota", {**params, "inode_context": 1})
    check("unknown inode", False)
except IOStopped:
    check("unknown inode", True)
try:
    api.weka_api_command("no_such_method", {})
    check("unknown method", False)
except IOStopped as error:
    check("unknown method", "not found" in str(error))
quotas = api.weka_api_command("directory_quota_list", {})
check("quota is listed", len(quotas) == 1 and quotas[0]["inode_id"] == inode)
check("status", api.weka_api_command("status", {})["release"] == "4.4.2")

check("no token", rest("GET", "fileSystems")[0] == 401)
wrong = {"username": user, "password": "wrong", "org": "Root"}
check("wrong password", rest("POST", "login", wrong)[0] == 401)
status, told = rest("POST", "login", {"username": user, "password": password, "org": "Root"})
token = told["data"]["access_token"]
check("login v2", status == 200 and told["data"]["expires_in"] == 300)
place = f"fileSystems/{uid}"
fs = rest("GET", place, token=token)[1]["data"]
needed = ["id", "name", "uid", "group_id", "group_name", "used_total_data", "used_total",
          "free_total", "available_total", "available_ssd_metadata", "used_ssd", "free_ssd",
          "available_ssd", "ssd_budget", "total_budget"]
check("all that the original reads", all(key in fs for key in needed))
found = rest("GET", f"{place}/resolvePath?path=/a", token=token)[1]["data"]["inode_id"]
check("inode", found == str(inode))
states = []
while "ACTIVE" not in states and len(states) < 10:
    quota = rest("GET", f"{place}/quota/{inode}", token=token)[1]["data"]
    states.append(quota["status"])
check("quota becomes active", states[0] == "ADDING" and states[-1] == "ACTIVE")
check("usage is summed", quota["total_bytes"] == 5000)
limits = {"hard_limit_bytes": 9223372036854775807, "soft_limit_bytes": 9223372036854775807,
          "grace_seconds": 0}
check("quota changes", rest("PUT", f"{place}/quota/{inode}", limits, token)[0] == 200)
check("quota is removed", rest("DELETE", f"{place}/quota/{inode}", token=token)[0] == 200)
for _ in range(3):
    status, told = rest("GET", f"{place}/quota/{inode}", token=token)
check("no quota", status == 404 and told["message"] == "Directory has no quota")

body = {"fs_uid": uid, "name": "s1", "access_point": "point1", "is_writable": False}
status, told = rest("POST", "snapshots", body, token)
check("snapshot", status == 200 and told["data"]["accessPoint"] == "point1")
check("snapshot is seen", (mount / ".snapshots/point1/a/file").stat().st_size == 5000)
check("snapshot twice", rest("POST", "snapshots", body, token)[0] == 409)
check("long names", rest("POST", "snapshots", {**body, "name": "x" * 33}, token)[0] == 400)
listed = api.weka_api_command("snapshots_list", {})
check("snapshot in the older interface", listed[0]["snapshot_id"] == "SnapshotId: 0")
snap = told["data"]["uid"]
check("snapshot is removed", rest("DELETE", f"snapshots/{snap}", token=token)[0] == 200)
removing = rest("GET", "snapshots?filesystem=backend", token=token)[1]["data"]
check("it goes in the end", removing[0]["isRemoving"] is True)
gone = rest("GET", "snapshots?filesystem=backend", token=token)[1]["data"]
check("snapshot is gone", gone == [])
check("health is a word", rest("GET", "healthcheck") == (200, "OK"))
query = urllib.parse.urlencode([("start_time", "2026-01-01T00:00:00Z"), ("stat", "ops.READS")])
stats = rest("GET", f"stats?{query}", token=token)[1]["data"]["all"]["ops"]
check("statistics", stats[-1]["stats"]["READS"] == 200.4)
both = urllib.parse.urlencode({"start_time": "2026-01-01T00:00:00+00:00Z"})
check("the original's time is refused", rest("GET", f"stats?{both}", token=token)[0] == 400)
done()
