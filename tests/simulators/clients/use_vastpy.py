"""VAST's own client, unmodified, against the simulator. See ../tests/clients.rs."""

import base64
import json
import os
import pathlib
import urllib.parse
import urllib.request

from check import check, done
from vastpy import RESTFailure, VASTClient

mount = pathlib.Path(os.environ["SIM_DIR"])
user, password = os.environ["SIM_USER"], os.environ["SIM_SECRET"]
address = f"127.0.0.1:{os.environ['SIM_PORT']}"
trust = {"cert_file": os.environ["SIM_CA"], "cert_server_name": "localhost"}


def refused(status, call, **params):
    """Whether a call fails with this status; gives what was said."""
    try:
        call(**params)
        return None
    except RESTFailure as error:
        return json.loads(error.data) if error.status == status else None


stranger = VASTClient(user=user, password="wrong", address=address, **trust)
check("wrong password", refused(401, stranger.quotas.get) is not None)
client = VASTClient(user=user, password=password, address=address, version="v2", **trust)
check("no quotas yet", client.quotas.get() == [])
check("no directory", "path" in refused(400, client.quotas.post, name="a", path="/backend/a"))
(mount / "a").mkdir()
check("a name is needed", "name" in refused(400, client.quotas.post, path="/backend/a"))
made = client.quotas.post(name="/mnt/a", path="/backend/a", create_dir=False,
                          soft_limit=1 << 20, hard_limit=1 << 20)
check("quota is made", made["id"] > 0 and made["hard_limit"] == 1 << 20)
check("state is OK", made["state"] == "OK" and made["used_capacity"] == 0)
taken = refused(400, client.quotas.post, name="/mnt/a", path="/backend/b", create_dir=True)
check("names are unique", taken is not None and "exists" in taken["name"][0])
taken = refused(409, client.quotas.post, name="/mnt/c", path="/backend/a")
check("paths are unique", taken is not None)

(mount / "a" / "file").write_bytes(b"x" * 5000)
one = client.quotas[made["id"]]
check("usage is summed", one.get()["used_capacity"] == 5000)
changed = one.patch(soft_limit=4000, hard_limit=4500)
check("limits change", changed["hard_limit"] == 4500 and changed["state"] == "HARD_EXCEEDED")
check("paths do not", refused(400, one.patch, path="/backend/b") is not None)
check("by name", [q["id"] for q in client.quotas.get(name="/mnt/a")] == [made["id"]])
check("by another name", client.quotas.get(name="/mnt") == [])

for number in range(5):
    (mount / f"p{number}").mkdir()
    client.quotas.post(name=f"p{number}", path=f"/backend/p{number}", hard_limit=1)
page = client.quotas.get(page=1, page_size=4)
check("pages", page["count"] == 6 and len(page["results"]) == 4 and "page=2" in page["next"])
page = client.quotas.get(page=2, page_size=4)
check("last page", len(page["results"]) == 2 and page["next"] is None)

check("quota is deleted", one.delete() == b"")
gone = refused(404, one.get)
check("quota is gone", gone == {"detail": "Not found."})

cluster = client.clusters.get()[0]
check("cluster", cluster["state"] == "ONLINE" and cluster["physical_space_in_use"] >= 5000)
check("no such cluster", refused(404, client.clusters[7].get) is not None)
capacity = client.capacity.get(path="/backend/a")
check("capacity", capacity["details"][0][1]["data"][0] == 5000)

check("slash", refused(400, client.snapshots.post, name="s", path="/backend/a") is not None)
kept = client.snapshots.post(name="s1", path="/backend/a/",
                             expiration_time="2099-01-01T00:00:00Z")
check("snapshot", kept["state"] == "AVAILABLE" and kept["expiration_time"].startswith("2099"))
check("snapshot is seen", (mount / "a/.snapshot/s1/file").stat().st_size == 5000)
check("snapshot twice", refused(400, client.snapshots.post, name="s1", path="/backend/a/")
      is not None)
check("snapshots by path", len(client.snapshots.get(path="/backend/a/")) == 1)
check("snapshots by part", client.snapshots.get(name__contains="zz") == [])
later = client.snapshots[kept["id"]].patch(expiration_time="2098-01-01T00:00:00Z")
check("expiry changes", later["expiration_time"].startswith("2098"))
client.snapshots[kept["id"]].delete()
check("snapshot is gone", not (mount / "a/.snapshot").exists())

token = VASTClient(token="1Rl4k6vD.simulated", address=address, **trust)
check("token without login", len(token.quotas.get()) == 5)
other = VASTClient(token="other", address=address, **trust)
check("wrong token", refused(401, other.quotas.get) is not None)


# What the client does not do by itself: tokens that end.
def post(path, body, kind):
    url = f"https://{address}/api/v2/{path}"
    request = urllib.request.Request(url, data=body, headers={"Content-Type": kind})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


form = urllib.parse.urlencode({"username": user, "password": password}).encode()
status, tokens = post("token/", form, "application/x-www-form-urlencoded")
claims = tokens["access"].split(".")[1]
claims = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
check("token by a form", status == 200 and claims["exp"] > claims["iat"])
status, renewed = post("token/refresh/", json.dumps({"refresh": tokens["refresh"]}).encode(),
                       "application/json")
check("token is renewed", status == 200 and renewed["access"] != tokens["access"])
status, said = post("token/refresh/", b'{"refresh_token": "x"}', "application/json")
check("the original's key is refused", status == 400 and "refresh" in said)
done()
