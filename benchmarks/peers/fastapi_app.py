"""The service of the FastAPI peer: to-do lists in one SQLite database, WAL, synchronous FULL, a commit for each add."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel


class NewEntry(BaseModel):
    """The body of an add."""

    title: str
    date: str | None = None


_database = sqlite3.connect(os.environ["BENCH_DATABASE"], isolation_level=None, check_same_thread=False)
_database.executescript(
    """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS entry (list TEXT, id INTEGER, title TEXT, date TEXT, PRIMARY KEY (list, id))
    WITHOUT ROWID;
    """
)


# Coroutines, not functions for the thread pool: with a statement this short the pool costs more than it gives.
async def add_entry(name: str, entry: NewEntry) -> dict[str, Any]:
    """Add an entry: one statement, committed when it returns."""
    row = _database.execute(
        "INSERT INTO entry SELECT ?1, coalesce(max(id), 0) + 1, ?2, ?3 FROM entry WHERE list = ?1 RETURNING id",
        (name, entry.title, entry.date),
    ).fetchall()
    return {"id": row[0][0]}


async def entries(name: str, date: str) -> list[dict[str, Any]]:
    """Read the entries of a day."""
    rows = _database.execute(
        "SELECT id, title, date FROM entry WHERE list = ? AND date = ? ORDER BY id", (name, date)
    ).fetchall()
    return [{"id": identifier, "title": title, "date": day} for identifier, title, day in rows]


app = FastAPI()
app.add_api_route("/lists/{name}/entries", add_entry, methods=["POST"])
app.add_api_route("/lists/{name}/entries", entries, methods=["GET"])
