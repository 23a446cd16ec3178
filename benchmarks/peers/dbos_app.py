"""The application of `apps.py` with DBOS, which keeps its steps in a SQLite file."""

from __future__ import annotations

import os

from dbos import DBOS, DBOSConfig
from fastapi import FastAPI

app = FastAPI()
config: DBOSConfig = {
    "name": "benchmark",
    "system_database_url": f"sqlite:///{os.environ['DBOS_FILE']}",
    "log_level": "WARNING",
}
DBOS(config=config)


@DBOS.step()
async def price(item: str) -> int:
    return len(item)


@DBOS.step()
async def reserve(item: str, cents: int) -> dict[str, str | int]:
    return {"item": item, "cents": cents}


@DBOS.workflow()
async def order(item: str) -> dict[str, str | int]:
    return await reserve(item, await price(item))


@app.get("/orders/{item}")
async def get_order(item: str) -> dict[str, str | int]:
    return await order(item)


DBOS.launch()
