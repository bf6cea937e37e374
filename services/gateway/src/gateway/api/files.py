"""Rendered reports, read from the platform's storage. Nothing else in it is shown."""

from __future__ import annotations

import re

import obstore
from litestar import get
from litestar.response import Stream

from carillon.platform import Platform
from gateway.errors import NOT_FOUND, ProblemError

#: A key below `reports/`; no segment is empty or begins with a dot.
_KEY = re.compile(r"^reports(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}){1,8}$")
_CHUNK_BYTES = 256 * 1024
#: What a browser may show by itself. A report's page may style itself and can do nothing else.
_SHOWN = {
    "html": ("text/html; charset=utf-8", "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"),
    "pdf": ("application/pdf", "default-src 'none'; object-src 'self'; style-src 'unsafe-inline'"),
}
_SAVED = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


@get("/files/{key:path}", tags=["Files"])
async def report_file(key: str, platform: Platform) -> Stream:
    """One file of a rendered report: HTML and PDF to be shown, CSV and XLSX to be saved."""
    name = key.lstrip("/")
    ending = name.rpartition(".")[2]
    if not _KEY.match(name) or name != name.strip() or ending not in (*_SHOWN, *_SAVED):
        raise _nothing()
    try:
        found = await obstore.get_async(platform.storage, name)
    except FileNotFoundError:
        raise _nothing() from None
    filename = name.rpartition("/")[2]
    if ending in _SHOWN:
        media_type, policy = _SHOWN[ending]
        headers = {"Content-Security-Policy": policy, "Content-Disposition": f'inline; filename="{filename}"'}
    else:
        media_type, headers = _SAVED[ending], {"Content-Disposition": f'attachment; filename="{filename}"'}
    headers["Content-Length"] = str(found.meta["size"])
    return Stream((bytes(chunk) async for chunk in found.stream(_CHUNK_BYTES)), media_type=media_type, headers=headers)


def _nothing() -> ProblemError:
    message = "no report has this file"
    return ProblemError(NOT_FOUND, message)
