"""The original's own readers of announcements and of etcd, unmodified, beside a member of a fleet."""

import asyncio
import inspect
import os

from ai.backend.common.service_discovery.redis_discovery.service_discovery import (
    RedisServiceDiscovery,
    RedisServiceDiscoveryArgs,
)
from ai.backend.common.types import ValkeyTarget

from world import check, end

REDIS = os.environ["STORAGE_REDIS"]
NODE = os.environ["STORAGE_NODE_ID"]


async def main():
    target = ValkeyTarget(addr=REDIS, password=None)
    discovery = await RedisServiceDiscovery.create(RedisServiceDiscoveryArgs(valkey_target=target))
    check("the class is the package's own", "site-packages" in inspect.getfile(type(discovery)))
    for _ in range(1000):
        found = await discovery.get_service_group("storage-proxy")
        if found:
            break
        await asyncio.sleep(0.01)
    check("one server is announced", len(found) == 1, str(found))
    record = found[0]
    check("by its name", record.display_name == f"storage-{NODE}", str(record))
    check("with labels", record.labels == {"rack": "r1"}, str(record))
    check("for Prometheus", record.endpoint.prometheus_address == "10.0.0.1:16023", str(record))
    check("for the Manager", record.endpoint.address == "10.0.0.1:6022", str(record))
    check("and has a heartbeat", record.health_status.last_heartbeat > 1e9, str(record))
    check("among all services", len(await discovery.discover()) == 1)
    one = await discovery.get_service("storage-proxy", record.id)
    check("and by its id", one.id == record.id, str(one))
    await discovery.close()


asyncio.run(main())
end()
