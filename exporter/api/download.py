"""A whole list as a file: written to the local disk first, so that it is sent whole or not at all.

A file that ended where the database did would look like a shorter list.
"""

import asyncio
import csv
import io
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date
from typing import IO, Any, Literal

import xlsxwriter
from aiohttp import hdrs, web

from exporter.api.explain import plain_value
from exporter.api.export import CSV_TYPE, XLSX_OPTIONS, XLSX_TYPE, csv_cell, write_row
from exporter.database.connect import Connection
from exporter.http.problem import Problem
from exporter.kpis.lists import ListQuery

Kind = Literal["csv", "xlsx"]

# Rows that a sheet of a workbook has, its head among them: a limit of the format.
XLSX_ROWS = 1_048_576
_BATCH = 1000
_IN_MEMORY = 1 << 20  # bytes; what is larger goes to a file that has no name
_CHUNK = 1 << 16
_TYPES = {"csv": CSV_TYPE, "xlsx": XLSX_TYPE}


class _CsvWriter:
    """Writes rows as CSV."""

    def __init__(self, file: IO[bytes]) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self._writer = csv.writer(self._text, lineterminator="\r\n")

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        self._writer.writerows([csv_cell(value) for value in row] for row in rows)

    def close(self) -> None:
        self._text.detach()


class _XlsxWriter:
    """Writes rows as a workbook of one sheet, which keeps one row in memory."""

    def __init__(self, file: IO[bytes], title: str) -> None:
        options = {**XLSX_OPTIONS, "constant_memory": True}
        self._book = xlsxwriter.Workbook(file, options)
        self._sheet = self._book.add_worksheet(title[:31])
        self._sheet.freeze_panes(1, 0)
        self._line = 0

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        for row in rows:
            write_row(self._sheet, self._line, row)
            self._line += 1

    def close(self) -> None:
        self._book.close()


async def write_list(connection: Connection, wanted: ListQuery, kind: Kind) -> IO[bytes]:
    """Write a whole list to a file without a name, which the caller closes.

    Raises Problem (422) for a list that a sheet has no room for, and what asyncpg raises.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        if kind == "xlsx" and (rows := await wanted.count(connection)) >= XLSX_ROWS:
            raise Problem(
                422,
                f"the list has {rows:,} rows, and a sheet {XLSX_ROWS - 1:,}: use format=csv,"
                " or fewer days",
            )
        with ExitStack() as on_failure:
            file = on_failure.enter_context(tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))
            await _write(connection, wanted, kind, file)
            on_failure.pop_all()
            return file


async def _write(connection: Connection, wanted: ListQuery, kind: Kind, file: IO[bytes]) -> None:
    writer = _CsvWriter(file) if kind == "csv" else _XlsxWriter(file, wanted.chosen.name)
    head_written = False
    async for columns, records in wanted.batches(connection, _BATCH):
        table = [[_cell(value) for value in record.values()] for record in records]
        if not head_written:
            table.insert(0, columns)
            head_written = True
        # Thousands of rows take a while, in which webhooks come.
        await asyncio.to_thread(writer.write, table)
    await asyncio.to_thread(writer.close)


def _cell(value: Any) -> Any:
    value = plain_value(value)
    return value.isoformat() if isinstance(value, date) else value


async def send_file(
    request: web.Request, file: IO[bytes], kind: Kind, *, complete: bool
) -> web.StreamResponse:
    """Send a file. Its length goes first, so that a connection that breaks is noticed."""
    name = file_name(request, complete=complete)
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    response = web.StreamResponse(
        headers={
            hdrs.CONTENT_TYPE: _TYPES[kind],
            hdrs.CONTENT_DISPOSITION: f'attachment; filename="{name}.{kind}"',
            hdrs.CACHE_CONTROL: "no-store",
            hdrs.VARY: "Authorization",
        }
    )
    response.content_length = size
    await response.prepare(request)
    while chunk := await asyncio.to_thread(file.read, _CHUNK):
        await response.write(chunk)
    await response.write_eof()
    return response


def file_name(request: web.Request, *, complete: bool) -> str:
    """Return the name of a request's file, without its ending.

    `complete`: whether it is of the whole history; the name says where it is not.
    """
    place = "-".join(part for part in request.path.split("/")[3:] if part)
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in place)
    return name if complete else f"{name}-not-final"
