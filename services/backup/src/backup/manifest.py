"""What a database holds, small enough to keep: per table a row count and a hash, per sequence where it stands.

Two databases with equal manifests hold the same rows. A row's hash is the 64 bits that PostgreSQL computes of its text,
the same in every version because hash partitions rest on them, in half the time of MD5; a table's is their sum, so that
the order of rows does not matter and doubled rows do. Nothing is left out silently: what cannot be compared is listed
with the reason.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from asyncpg import Connection, Record

#: The text of a row depends on these. The timeouts are off because the snapshot idles while its dump runs.
#: `row_security = off` makes a row hidden from us an error instead of an omission, as pg_dump does.
SETTINGS = {
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "lc_monetary": "C",
    "search_path": "",
    "row_security": "off",
    "lock_timeout": "60s",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "transaction_timeout": "0",
    "idle_session_timeout": "0",
}
LARGE_OBJECTS = "large objects"

APPLY_SETTINGS = """
select set_config(known.name, wanted.setting, true)
from unnest($1::text[], $2::text[]) as wanted(name, setting)
join pg_catalog.pg_settings as known on lower(known.name) = wanted.name
"""

# Columns by name: a restored table may have them in another order. Generated ones are computed anew by the restore.
LIST_RELATIONS = r"""
select format('%I.%I', n.nspname, c.relname) as name, c.relkind::text as kind, e.extname as extension,
       coalesce(s.seqcycle, false) as cycles,
       array_to_string(array(
           select format('t.%I', a.attname) from pg_catalog.pg_attribute as a
           where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
           order by a.attname collate "C"
       ), ', ') as columns
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
left join pg_catalog.pg_sequence as s on s.seqrelid = c.oid
left join pg_catalog.pg_depend as d
    on d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.objsubid = 0 and d.deptype = 'e'
left join pg_catalog.pg_extension as e on e.oid = d.refobjid
where c.relkind in ('r', 'm', 'f', 'S') and c.relpersistence <> 't'
  and n.nspname not like 'pg\_%' and n.nspname <> 'information_schema'
order by 1
"""

HASH_ROWS = """
select count(*) as rows, coalesce(sum(hashtextextended({text} collate "C", 0)), 0)::text as hash
from {relation}
"""
HASH_LARGE_OBJECTS = HASH_ROWS.format(
    text="(o.oid::text || ':' || md5(lo_get(o.oid)))", relation="pg_catalog.pg_largeobject_metadata as o"
)

NOT_COMPARED = {
    "m": "a materialized view: computed anew by the restore",
    "f": "a foreign table: its rows live on another server, and are in no dump",
}


class TableContent(BaseModel):
    """The rows of one table."""

    model_config = ConfigDict(frozen=True)

    rows: int
    #: The sum of the rows' hashes, in decimal: it outgrows 64 bits.
    hash: str


class SequenceRange(BaseModel):
    """Between which values a sequence stood during a dump: sequences move outside every snapshot."""

    model_config = ConfigDict(frozen=True)

    low: int
    high: int

    def covers(self, other: SequenceRange) -> bool:
        """Whether a dump taken meanwhile may have seen the other one's values."""
        return self.low <= other.low and other.high <= self.high


class Manifest(BaseModel):
    """The contents of one database at one moment."""

    model_config = ConfigDict(frozen=True)

    #: By qualified and quoted name, as are the others.
    tables: dict[str, TableContent]
    sequences: dict[str, SequenceRange]
    #: What the comparison leaves out, and why.
    not_compared: dict[str, str]

    @property
    def rows(self) -> int:
        """The rows of all tables together."""
        return sum(table.rows for table in self.tables.values())

    @property
    def sha256(self) -> str:
        """One hash for the whole manifest, in hexadecimal."""
        lines = [f"{name} {table.rows} {table.hash}\n" for name, table in sorted(self.tables.items())]
        lines += [f"{name} {seq.low} {seq.high}\n" for name, seq in sorted(self.sequences.items())]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def spanning(self, later: dict[str, SequenceRange]) -> Manifest:
        """Give this manifest with each sequence's range stretched to where it stood later."""
        ranges = {
            name: SequenceRange(low=min(seq.low, later[name].low), high=max(seq.high, later[name].high))
            for name, seq in self.sequences.items()
        }
        return self.model_copy(update={"sequences": ranges})


async def fix_settings(connection: Connection[Record]) -> None:
    """Make values read the same on every server, until the end of the current transaction."""
    await connection.fetch(APPLY_SETTINGS, list(SETTINGS), list(SETTINGS.values()))


async def take_manifest(connection: Connection[Record]) -> Manifest:
    """Take the manifest of what the current transaction sees. Call `fix_settings` first."""
    relations = await connection.fetch(LIST_RELATIONS)
    compared = [each for each in relations if _why_not_compared(each) is None]
    tables = {
        each["name"]: await _content(
            connection, HASH_ROWS.format(relation=f"only {each['name']} as t", text=f"row({each['columns']})::text")
        )
        for each in compared
        if each["kind"] == "r"
    }
    large_objects = await _content(connection, HASH_LARGE_OBJECTS)
    if large_objects.rows:
        tables[LARGE_OBJECTS] = large_objects
    return Manifest(
        tables=tables,
        sequences=await read_sequences(connection, [each["name"] for each in compared if each["kind"] == "S"]),
        not_compared={each["name"]: why for each in relations if (why := _why_not_compared(each)) is not None},
    )


async def read_sequences(connection: Connection[Record], names: list[str]) -> dict[str, SequenceRange]:
    """Where each sequence stands now: twice its last value, and one more once that was handed out."""
    found = {}
    for name in names:
        row = await connection.fetchrow(f"select last_value, is_called from {name}")
        place = 0 if row is None else 2 * row["last_value"] + row["is_called"]
        found[name] = SequenceRange(low=place, high=place)
    return found


def differences(expected: Manifest, found: Manifest) -> list[str]:
    """Tell what a restored copy has otherwise than its dump's source had, one sentence per table or sequence."""
    told = []
    for name in sorted(expected.tables.keys() | found.tables.keys()):
        there, here = expected.tables.get(name), found.tables.get(name)
        if there != here:
            told.append(f"{name}: {_describe(there)} became {_describe(here)}")
    for name in sorted(expected.sequences.keys() | found.sequences.keys()):
        span, stands = expected.sequences.get(name), found.sequences.get(name)
        if span is None or stands is None or not span.covers(stands):
            told.append(f"sequence {name} stands elsewhere, or only on one side")
    return told


def _describe(table: TableContent | None) -> str:
    return "no table" if table is None else f"{table.rows} rows with hash {table.hash}"


def _why_not_compared(relation: Record) -> str | None:
    if relation["extension"] is not None:
        return f"belongs to the extension {relation['extension']}, which the restore creates anew"
    if relation["cycles"]:
        return "a sequence that cycles: it may pass any value while a dump runs"
    return NOT_COMPARED.get(relation["kind"])


async def _content(connection: Connection[Record], query: str) -> TableContent:
    row = await connection.fetchrow(query)
    return TableContent(rows=row["rows"], hash=row["hash"]) if row is not None else TableContent(rows=0, hash="0")
