"""Answers as files: CSV and XLSX for spreadsheets, in which no cell starts a formula."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import xlsxwriter
from xlsxwriter.worksheet import Worksheet

CSV_TYPE = "text/csv; charset=utf-8"
XLSX_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

XLSX_OPTIONS = {"strings_to_formulas": False, "strings_to_urls": False}

# What a spreadsheet reads as the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

# A head and its rows.
Table = tuple[Sequence[str], Sequence[Sequence[Any]]]
Sheets = Mapping[str, Table]


def csv_cell(value: Any) -> Any:
    """Return a value as a CSV cell. A text that starts a formula is defused by an apostrophe."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def to_csv(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """Write one table. None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(map(csv_cell, head))
    writer.writerows([csv_cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def write_row(sheet: Worksheet, line: int, row: Sequence[Any]) -> None:
    """Write a row of a sheet. Texts are written as texts, whatever they hold; None is empty."""
    for column, value in enumerate(row):
        if isinstance(value, str):
            sheet.write_string(line, column, value)
        elif value is not None:
            sheet.write(line, column, value)


def to_xlsx(sheets: Sheets) -> bytes:
    """Write a workbook, a sheet for each table."""
    file = io.BytesIO()
    with xlsxwriter.Workbook(file, {**XLSX_OPTIONS, "in_memory": True}) as book:
        bold = book.add_format({"bold": True})
        for title, (head, rows) in sheets.items():
            sheet = book.add_worksheet(title[:31])
            sheet.freeze_panes(1, 0)
            for column, name in enumerate(head):
                sheet.write_string(0, column, name, bold)
            for line, row in enumerate(rows, 1):
                write_row(sheet, line, row)
            sheet.autofit()
    return file.getvalue()


def flat(answer: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return every figure of nested objects and arrays, by its path."""
    rows: list[tuple[str, Any]] = []
    for name, value in answer.items():
        if isinstance(value, dict):
            rows += flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            rows += flat({str(n): item for n, item in enumerate(value, 1)}, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", value))
    return rows


def _dashboard_csv(answer: Mapping[str, Any]) -> bytes:
    return to_csv(("figure", "value"), flat(answer))


def _dashboard_xlsx(answer: Mapping[str, Any]) -> bytes:
    """Write a sheet for each section, with the agents as a table."""
    sheets: dict[str, Table] = {}
    about = {key: value for key, value in answer.items() if not isinstance(value, dict | list)}
    for name, section in {"about": about, **answer}.items():
        if name == "trends" and section:
            sheets[name] = _trend_table(section)
        elif isinstance(section, dict):
            sheets[name] = (("figure", "value"), flat(section))
        elif isinstance(section, list):
            rows = [dict(flat(agent)) for agent in section]
            head = list(dict.fromkeys(key for row in rows for key in row)) or ["agent_id"]
            sheets[name] = (head, [[row.get(key) for key in head] for row in rows])
    return to_xlsx(sheets)


def _trend_table(found: Mapping[str, Any]) -> Table:
    days = [point["day"] for point in next(iter(found.values()))["series"]]
    rows = [
        [name, trend["previous"], trend["change_rate"], *(at["value"] for at in trend["series"])]
        for name, trend in found.items()
    ]
    return ["figure", "previous", "change_rate", *days], rows


# How each kind of file is written of an answer.
Files = Mapping[str, Callable[[Mapping[str, Any]], bytes]]
DASHBOARD_FILES: Files = {"csv": _dashboard_csv, "xlsx": _dashboard_xlsx}
