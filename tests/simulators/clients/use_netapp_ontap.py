"""NetApp's own client, unmodified, against the simulator. See ../tests/clients.rs."""

import os
import pathlib

from check import check, done
from netapp_ontap import HostConnection, NetAppRestError, config
from netapp_ontap.resources import (
    QuotaReport, QuotaRule, Qtree, Snapshot, Volume,
)

mount = pathlib.Path(os.environ["SIM_DIR"])
user, password = os.environ["SIM_USER"], os.environ["SIM_SECRET"]
port = int(os.environ["SIM_PORT"])


def connect(secret):
    return HostConnection("127.0.0.1", port=port, username=user, password=secret,
                          verify=True, poll_interval=0.05)


with connect("wrong"):
    try:
        list(Volume.get_collection())
        check("wrong password", False)
    except NetAppRestError as error:
        check("wrong password", error.status_code == 401)

config.CONNECTION = connect(password)

found = list(Volume.get_collection(name="vol1", fields="nas.path,svm"))
check("volume by name", len(found) == 1 and found[0].nas.path == "/vol1")
volume = found[0]
volume.get(fields="space.size,space.used,quota,files,metric,statistics")
check("volume space", volume.space.size > 0 and volume.quota.state == "off")
check("volume metric", volume.metric.iops.read == 200)
check("volume counters", volume.statistics.iops_raw.read > 10 ** 9)
check("no such volume", list(Volume.get_collection(name="vol9")) == [])
try:
    Volume(uuid="00000000-0000-0000-0000-000000000000").get()
    check("unknown uuid", False)
except NetAppRestError as error:
    check("unknown uuid", error.http_err_response.http_response.json()["error"]["code"] == "917927")

place = {"svm": {"uuid": volume.svm.uuid}, "volume": {"uuid": volume.uuid}}
tree = Qtree.from_dict({**place, "name": "abc", "user": {"id": "1000"}, "group": {"id": "1000"}})
tree.post(poll=True)
check("qtree makes a directory", (mount / "abc").is_dir())
try:
    Qtree.from_dict({**place, "name": "abc"}).post(poll=True)
    check("qtree twice", False)
except NetAppRestError:
    check("qtree twice", True)
got = Qtree.find(**{"volume.uuid": volume.uuid}, name="abc")
check("qtree is found", got is not None and got.id == 1)

rule = QuotaRule.from_dict({**place, "type": "tree", "qtree": {"name": "abc"},
                            "space": {"hard_limit": 1 << 20, "soft_limit": 1 << 20}})
rule.post(poll=True)
rules = list(QuotaRule.get_collection(**{"qtree.name": "abc"}, fields="space"))
check("rule is listed", len(rules) == 1 and rules[0].space.hard_limit == 1 << 20)
check("no report while off", list(QuotaReport.get_collection(type="tree")) == [])

change = Volume(uuid=volume.uuid)
change.quota = {"enabled": True}
change.patch(poll=True)
for _ in range(5):
    volume.get(fields="quota")
check("quotas are on", volume.quota.state == "on")
try:
    change = Volume(uuid=volume.uuid)
    change.quota = {"enabled": True}
    change.patch(poll=True)
    check("on twice", False)
except NetAppRestError as error:
    check("on twice", "5308507" in str(error) or "already on" in str(error))

(mount / "abc" / "file").write_bytes(b"x" * 5000)
report = list(QuotaReport.get_collection(type="tree", **{"qtree.name": "abc"}, fields="space"))
check("report has usage", len(report) == 1 and report[0].space.used.total == 5000)
check("report has the limit", report[0].space.hard_limit == 1 << 20)

patch = QuotaRule(uuid=rules[0].uuid)
patch.space = {"hard_limit": 100, "soft_limit": 100}
patch.patch(poll=True)
patch.get(fields="space")
check("small limits are raised", patch.space.hard_limit == 1024)
patch = QuotaRule(uuid=rules[0].uuid)
patch.space = {"hard_limit": -1, "soft_limit": -1}
patch.patch(poll=True)
again = QuotaRule(uuid=rules[0].uuid)
again.get(fields="space")
check("limits are cleared", "hard_limit" not in again.to_dict().get("space", {}))

for name in ["s1", "s2", "s3"]:
    Snapshot.from_dict({"volume": {"uuid": volume.uuid}, "name": name,
                        "comment": "kept"}).post(poll=True)
snaps = list(Snapshot.get_collection(volume.uuid, fields="create_time,comment,size", max_records=2))
check("snapshots in pages", [snap.name for snap in snaps] == ["s1", "s2", "s3"])
check("snapshot has a time", snaps[0].create_time is not None and snaps[0].comment == "kept")
check("snapshot is seen", (mount / ".snapshot/s1/abc/file").stat().st_size == 5000)
try:
    Snapshot.from_dict({"volume": {"uuid": volume.uuid}, "name": "s1"}).post(poll=True)
    check("snapshot twice", False)
except NetAppRestError as error:
    check("snapshot twice", "exists" in str(error))
snaps[0].delete(poll=True)
check("snapshot is gone", not (mount / ".snapshot/s1").exists())
locked = Snapshot.from_dict({"volume": {"uuid": volume.uuid}, "name": "s4",
                             "expiry_time": "2099-01-01T00:00:00+00:00"})
locked.post(poll=True)
locked = list(Snapshot.get_collection(volume.uuid, name="s4"))[0]
try:
    locked.delete(poll=True)
    check("expiry locks", False)
except NetAppRestError as error:
    check("expiry locks", "expired" in str(error))

QuotaRule(uuid=rules[0].uuid).delete(poll=True)
check("rule is gone", list(QuotaRule.get_collection()) == [])
Qtree.find(**{"volume.uuid": volume.uuid}, name="abc").delete(poll=True)
check("qtree takes its directory", not (mount / "abc").exists())
done()
