"""Listens as a Manager does, with the event library of an installed Backend.AI release.

    hear_events.py REDIS_PORT

Consumes the stream as group `manager`, hears the channel, and prints one JSON object per event
that was dispatched to a handler: {"event", "fields", "request_id"}. The first line is
{"ready": VERSION}. Runs until its standard input ends; the last line is then
{"pending": N, "entries": N}, what the group has not acknowledged, and what the stream holds.
"""

import asyncio
import importlib
import inspect
import json
import sys

import redis.asyncio
from ai.backend.common import __version__
from ai.backend.common.contexts.request_id import current_request_id
from ai.backend.common.defs import REDIS_STREAM_DB, RedisRole
from ai.backend.common.events.dispatcher import EventDispatcher
from ai.backend.common.events.types import AbstractAnycastEvent, AbstractBroadcastEvent
from ai.backend.common.message_queue.redis_queue.queue import RedisMQArgs, RedisQueue
from ai.backend.common.types import HostPortPair, RedisProfileTarget, RedisTarget

MODULES = ["bgtask.broadcast", "vfolder.anycast", "volume.broadcast", "artifact.anycast"]


def say(**what):
    print(json.dumps(what, default=str), flush=True)


def events(kind):
    for name in MODULES:
        module = importlib.import_module(f"ai.backend.common.events.event_types.{name}")
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if not issubclass(cls, kind) or cls.__module__ != module.__name__:
                continue
            if inspect.isabstract(cls):
                continue
            try:
                cls.event_name()
            except (NotImplementedError, TypeError):
                continue
            yield cls


def fields(event):
    dump = getattr(event, "model_dump", None)
    if dump is not None:
        return dump()
    names = getattr(event, "__slots__", None) or vars(event)
    return {name: getattr(event, name) for name in names if not name.startswith("__")}


async def heard(_context, _source, event):
    request_id = current_request_id()
    say(event=event.event_name(), fields=fields(event), request_id=request_id)


async def main(port):
    address = HostPortPair("127.0.0.1", port)
    queue = await RedisQueue.create(
        RedisProfileTarget(addr=address).profile_target(RedisRole.STREAM),
        RedisMQArgs(
            anycast_stream_key="events",
            broadcast_channel="events_all",
            consume_stream_keys={"events"},
            subscribe_channels={"events_all"},
            group_name="manager",
            node_id="i-manager",
            db=REDIS_STREAM_DB,
        ),
    )
    dispatcher = EventDispatcher(queue)
    for cls in events(AbstractAnycastEvent):
        dispatcher.consume(cls, None, heard)
    for cls in events(AbstractBroadcastEvent):
        dispatcher.subscribe(cls, None, heard)
    await dispatcher.start()
    client = redis.asyncio.Redis(host="127.0.0.1", port=port, db=REDIS_STREAM_DB)
    while True:
        groups = await client.xinfo_groups("events") if await client.exists("events") else []
        ears = dict(await client.pubsub_numsub("events_all"))
        if groups and any(ears.values()):
            break
        await asyncio.sleep(0.05)
    say(ready=__version__)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    groups = await client.xinfo_groups("events")
    say(pending=groups[0]["pending"], entries=await client.xlen("events"))
    await dispatcher.close()
    await queue.close()


asyncio.run(main(int(sys.argv[1])))
