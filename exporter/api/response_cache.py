"""Answers that may be kept: in Redis for `DASHBOARD_CACHE_TTL` seconds, and by who asked.

An answer's ETag hangs on what it says, not on when it was computed.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import hdrs, web
from redis.asyncio.client import Pipeline

from exporter.api.download import file_name
from exporter.api.export import CSV_TYPE, XLSX_TYPE, Files
from exporter.cache.redis import Cache
from exporter.cache.seal import Seal

Answer = dict[str, Any]

_KINDS = {"json": "application/json", "csv": CSV_TYPE, "xlsx": XLSX_TYPE}


class Answers:
    """Finds an answer in Redis, or computes and keeps it. `ttl` is in seconds; 0 keeps nothing.

    `version` tells answers of other settings, or of other code, apart.
    """

    def __init__(self, cache: Cache, seal: Seal, ttl: int, version: str) -> None:
        self._cache = cache
        self._seal = seal
        self._ttl = ttl
        self._version = version

    async def find(self, question: str, compute: Callable[[], Awaitable[Answer]]) -> bytes:
        """Return the answer to a question as JSON. Raises what `compute` raises.

        What Redis has is an answer only where this service has put it there for this very question,
        within `ttl`; without the key that proves it, nothing is kept. Nor is what is not final.
        """
        asked = f"{self._version}\0{question}"
        name = "ghl_exporter:answer:" + _digest(asked)
        keeps = self._ttl > 0 and self._cache.set_up and await self._seal.load()
        if keeps:
            known = await self._cache.run(lambda pipeline: pipeline.get(name))
            content = self._seal.open(asked, known[0], self._ttl) if known else None
            if content is not None:
                return content
        answer = await compute()
        content = orjson.dumps(answer, option=orjson.OPT_UTC_Z)
        if keeps and answer["history_complete"]:
            sealed = self._seal.close(asked, content)

            def keep(pipeline: Pipeline) -> None:
                pipeline.set(name, sealed, ex=self._ttl)

            await self._cache.run(keep)
        return content

    async def respond(
        self, request: web.Request, content: bytes, kind: str = "json", files: Files | None = None
    ) -> web.Response:
        """Answer JSON content as a kind (`files` write those), or 304 where the asker has it."""
        answer: Answer = orjson.loads(content)
        says = {key: value for key, value in answer.items() if key != "generated_at"}
        etag = f'W/"{_digest(kind + orjson.dumps(says).decode())}"'
        seconds = self._ttl if answer["history_complete"] else 0
        headers = {
            hdrs.ETAG: etag,
            hdrs.CACHE_CONTROL: f"private, max-age={seconds}",
            hdrs.VARY: "Authorization, Accept-Encoding",
        }
        wanted = request.headers.get(hdrs.IF_NONE_MATCH, "")
        if wanted.strip() == "*" or etag in (part.strip() for part in wanted.split(",")):
            return web.Response(status=304, headers=headers)
        headers[hdrs.CONTENT_TYPE] = _KINDS[kind]
        if files is not None and kind != "json":
            name = f"{file_name(request, complete=answer['history_complete'])}.{kind}"
            headers[hdrs.CONTENT_DISPOSITION] = f'attachment; filename="{name}"'
            # Thousands of rows take a while, in which webhooks come.
            content = await asyncio.to_thread(files[kind], answer)
        response = web.Response(body=content, headers=headers)
        if kind == "json":
            response.enable_compression()
        return response


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
