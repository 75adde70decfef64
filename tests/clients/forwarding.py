"""A Manager that only forwards: the handful of calls of the SDK that lead to a token."""

import asyncio
import os
import uuid

from aiohttp import web

from world import CLIENT, VFID, VOLUME, ask, token

state = {"base": CLIENT}


async def version(request):
    return web.json_response({"version": "v8.20240915", "manager": "26.9.6"})


async def identify(request):
    return web.json_response({"id": str(uuid.UUID(VFID.split("/")[1]))})


async def request_upload(request):
    body = await request.json()
    made = await asyncio.to_thread(token, "upload", body["path"], size=body["size"])
    return web.json_response({"token": made, "url": state["base"] + "/upload"})


async def request_download(request):
    body = await request.json()
    made = await asyncio.to_thread(
        token, "download", body["path"], archive=body.get("archive", False), unmanaged_path=None
    )
    return web.json_response({"token": made, "url": state["base"] + "/download"})


async def mkdir(request):
    body = await request.json()
    asked = {
        "volume": VOLUME, "vfid": VFID, "relpath": body["path"],
        "parents": body["parents"], "exist_ok": body["exist_ok"],
    }
    return web.json_response(await asyncio.to_thread(ask, "POST", "/folder/file/mkdir", asked))


async def forwarding_manager():
    app = web.Application()
    app.router.add_get("/", version)
    app.router.add_get("/folders/_/id", identify)
    app.router.add_post("/folders/{id}/request-upload", request_upload)
    app.router.add_post("/folders/{id}/request-download", request_download)
    app.router.add_post("/folders/{id}/mkdir", mkdir)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return "http://127.0.0.1:%d" % site._server.sockets[0].getsockname()[1]


async def point_the_sdk_at_it():
    """To be called before the SDK is imported."""
    os.environ["BACKEND_ENDPOINT"] = await forwarding_manager()
    os.environ["BACKEND_ENDPOINT_TYPE"] = "api"
    os.environ["BACKEND_ACCESS_KEY"] = "AKIAIOSFODNN7EXAMPLE"
    os.environ["BACKEND_SECRET_KEY"] = "not-a-secret"
