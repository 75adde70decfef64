"""Dell's own client, unmodified, against the simulator. See ../tests/clients.rs."""

import os
import pathlib
import time

import isilon_sdk.v9_12_0 as isi
from check import check, done
from isilon_sdk.v9_12_0.rest import ApiException

mount = pathlib.Path(os.environ["SIM_DIR"])
IFS = "/ifs/data/backend"


def connect(secret):
    config = isi.Configuration()
    config.host = os.environ["SIM_URL"]
    config.username = os.environ["SIM_USER"]
    config.password = secret
    config.verify_ssl = True
    config.ssl_ca_cert = os.environ["SIM_CA"]
    return isi.ApiClient(config)


def refused(status, call, *args, **more):
    """Whether a call fails with this status."""
    try:
        call(*args, **more)
        return False
    except ApiException as error:
        return error.status == status


client = connect("wrong")
check("wrong password", refused(401, isi.QuotaApi(client).list_quota_quotas))
client = connect(os.environ["SIM_SECRET"])
quotas, snapshots = isi.QuotaApi(client), isi.SnapshotApi(client)
check("no quotas yet", quotas.list_quota_quotas().quotas == [])


def quota(path, hard):
    limits = isi.QuotaQuotaThresholds(hard=hard)
    return isi.QuotaQuotaCreateParams(
        path=path, type="directory", include_snapshots=False, container=True,
        thresholds=limits, thresholds_on="fslogicalsize", enforced=True)


check("no directory", refused(400, quotas.create_quota_quota, quota(f"{IFS}/a", 1 << 20)))
(mount / "a").mkdir()
made = quotas.create_quota_quota(quota(f"{IFS}/a", 1 << 20))
check("ids are long", len(made.id) >= 32)
check("quota twice", refused(409, quotas.create_quota_quota, quota(f"{IFS}/a", 1)))
one = quotas.get_quota_quota(made.id).quotas[0]
check("quota is read", one.path == f"{IFS}/a" and one.thresholds.hard == 1 << 20)
check("an empty one is ready", one.ready is True and one.usage.fslogical == 0)
(mount / "a" / "file").write_bytes(b"x" * 5000)
check("usage is summed", quotas.get_quota_quota(made.id).quotas[0].usage.fslogical == 5000)
change = isi.QuotaQuota(thresholds=isi.QuotaQuotaThresholds(hard=4000))
quotas.update_quota_quota(change, made.id)
one = quotas.get_quota_quota(made.id).quotas[0]
check("limit changes", one.thresholds.hard == 4000 and one.thresholds.hard_exceeded)
check("by path", len(quotas.list_quota_quotas(path=f"{IFS}/a", type="directory").quotas) == 1)
check("by another path", quotas.list_quota_quotas(path=f"{IFS}/b").quotas == [])

(mount / "full").mkdir()
(mount / "full" / "file").write_bytes(b"x")
slow = quotas.create_quota_quota(quota(f"{IFS}/full", 1 << 20))
looks = [quotas.get_quota_quota(slow.id).quotas[0].ready for _ in range(3)]
check("a full one is counted first", looks == [False, True, True])
page = quotas.list_quota_quotas(limit=1)
check("pages", len(page.quotas) == 1 and page.resume is not None)
rest = quotas.list_quota_quotas(resume=page.resume)
check("the rest", len(rest.quotas) == 1 and rest.resume is None)
quotas.delete_quota_quota(made.id)
check("quota is gone", refused(404, quotas.get_quota_quota, made.id))
check("and stays so", refused(404, quotas.delete_quota_quota, made.id))

at = int(time.time()) + 3600
kept = snapshots.create_snapshot_snapshot(
    isi.SnapshotSnapshotCreateParams(name="s1", path=f"{IFS}/a", expires=at))
check("snapshot", kept.name == "s1" and kept.expires == at and kept.state == "active")
check("snapshot is seen", (mount / "a/.snapshot/s1/file").stat().st_size == 5000)
twice = isi.SnapshotSnapshotCreateParams(name="s1", path=f"{IFS}/a")
check("snapshot twice", refused(409, snapshots.create_snapshot_snapshot, twice))
past = isi.SnapshotSnapshotCreateParams(name="s2", path=f"{IFS}/a", expires=1)
check("expiry in the past", refused(400, snapshots.create_snapshot_snapshot, past))
listed = snapshots.list_snapshot_snapshots().snapshots
check("snapshots are listed", [(snap.name, snap.path) for snap in listed] == [("s1", f"{IFS}/a")])
check("snapshot by name", snapshots.get_snapshot_snapshot("s1").snapshots[0].id == kept.id)
snapshots.delete_snapshot_snapshot("s1")
check("snapshot is gone", not (mount / "a/.snapshot").exists())
check("no such snapshot", refused(404, snapshots.delete_snapshot_snapshot, "s1"))

pool = isi.StoragepoolApi(client).get_storagepool_storagepools().storagepools[0]
check("pool", int(pool.usage.total_bytes) > int(pool.usage.used_bytes) >= 5000)
config = isi.ClusterApi(client).get_cluster_config()
check("cluster", config.name == "simulated" and config.has_quorum and len(config.devices) == 3)
nodes = isi.ClusterNodesApi(client)
check("hardware", nodes.get_node_hardware(1).nodes[0].product == "F200")
check("batteries", nodes.get_node_status_nvram(1).nodes[0].batteries[0].status == "OK")
interfaces = isi.NetworkApi(client).get_network_interfaces().interfaces
check("interfaces", interfaces[0].name == "ext-1")
stats = isi.StatisticsApi(client)
summary = stats.get_summary_protocol_stats().protocol_stats
check("protocol statistics", summary.disk.iops == 300.4 and summary.onefs.out == 2.5)
load = stats.get_summary_workload(system_names=["nfs3"]).workload[0]
check("workload", (load.latency_read, load.latency_write) == (350.5, 720.25))
rate = stats.get_statistics_current(keys=["cluster.disk.xfers.out.rate"]).stats[0]
check("rates", float(rate.value) == 200.4)
done()
