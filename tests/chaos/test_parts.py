"""The parts of the harness that decide: recovery, the journals, the proxy, the mutations, the table."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
from pathlib import Path

import pytest

from chaos import journal, mutations, report
from chaos.errors import MissingNameError
from chaos.matrix import Row
from chaos.proxy import Proxy
from chaos.recovery import rate, recovery_seconds
from chaos.settings import ChaosSettings


def steadily(begin: float, end: float, per_second: int) -> list[float]:
    return [begin + n / per_second for n in range(int((end - begin) * per_second))]


def test_the_rate_is_what_ended_between_two_moments():
    assert rate(steadily(0, 10, 50), 2, 4) == pytest.approx(50, rel=0.02)


def test_a_rate_that_never_fell_is_back_at_once():
    assert recovery_seconds(steadily(0, 20, 50), 50, 10, 20) == 0


def test_a_rate_is_back_when_a_whole_window_has_it():
    ends = [*steadily(0, 5, 50), *steadily(13, 25, 50)]

    assert recovery_seconds(ends, 50, 10, 25) == pytest.approx(4.6, abs=0.2)


def test_a_rate_that_stays_below_four_fifths_never_comes_back():
    ends = [*steadily(0, 5, 50), *steadily(10, 30, 38)]

    assert math.isinf(recovery_seconds(ends, 50, 10, 30))


def _write_many(file: Path, word: str) -> None:
    writer = journal.Journal(file)
    for number in range(500):
        writer.write("line", word=word * 100, number=number)


def test_lines_of_several_processes_stay_whole(tmp_path):
    file = tmp_path / "journal"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(file, word)) for word in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    lines = journal.read(file)

    assert len(lines) == 1500
    assert {line["word"][0] for line in lines} == {"a", "b", "c"}


def test_a_line_that_is_no_single_write_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no single write"):
        journal.Journal(tmp_path / "journal").write("line", word="x" * 5000)


def test_a_tail_gives_each_line_once_and_half_a_line_not_yet(tmp_path):
    file = tmp_path / "journal"
    tail = journal.Tail(file)
    file.write_bytes(b'{"n": 1}\n{"n": ')
    first = tail.lines()
    with file.open("ab") as more:
        more.write(b"2}\n")
    second = tail.lines()

    assert (first, second) == ([{"n": 1}], [{"n": 2}])


async def test_a_synced_line_is_in_the_file_when_its_writer_goes_on(tmp_path):
    writer = journal.SyncedJournal(tmp_path / "journal")
    await asyncio.gather(*(writer.put("line", number=number) for number in range(50)))

    assert sorted(line["number"] for line in journal.read(tmp_path / "journal")) == list(range(50))


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(100):
        writer.write(chunk)
    writer.close()


async def test_a_proxy_forwards_holds_heals_and_resets():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, Proxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"one")
        passed = await asyncio.wait_for(reader.readexactly(3), 5)
        proxy.black_hole()
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(3), 0.2)
        proxy.heal()
        late = await asyncio.wait_for(reader.readexactly(3), 5)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.readexactly(1), 5)
        writer.close()

    assert (passed, late) == (b"one", b"two")
    assert (proxy.counts.connections, proxy.counts.held) == (1, 1)
    assert proxy.counts.reset > 0


def test_a_name_that_is_gone_stops_the_mutation_that_replaces_it():
    class Gone:
        """Nothing is left of what it was."""

    with pytest.raises(MissingNameError, match=r"Gone\.execute is gone"):
        mutations._taken(Gone, "execute")


@pytest.mark.parametrize("name", sorted(mutations.CONTROLS))
def test_each_control_finds_what_it_replaces(name):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=mutations.CONTROLS[name])
    process.start()
    process.join(60)

    assert process.exitcode == os.EX_OK


def test_the_points_to_die_at_are_found(tmp_path):
    settings = ChaosSettings(folder=tmp_path, crashes=True, silence=4.0)
    process = multiprocessing.get_context("spawn").Process(target=mutations.apply, args=(settings,))
    process.start()
    process.join(60)

    assert process.exitcode == os.EX_OK


def test_the_table_has_every_row_between_its_marks(tmp_path, monkeypatch):
    page = tmp_path / "reliability.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    monkeypatch.setattr(report, "PAGE", page)
    rows = [
        Row("F1", "killed", "rabbitmq", 1, 9.0, "pass", tasks=700, faults={"workers killed": 4}, recovery_seconds=1.5),
        Row("F1", "killed", "postgres", 2, 9.0, "FAIL", tasks=710, lost=1, complaints=["LOST 1: x"]),
        Row("control:no-fence", "none", "rabbitmq", 1, 9.0, "noticed", complaints=["DOUBLE_TERMINAL 3: a, b, c"]),
    ]

    report.publish(rows, "quick")
    text = page.read_text()

    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| F1 | rabbitmq | 1 | 700 | workers killed 4 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 1.5 | pass |" in text
    assert "| F1 | postgres | 2 | 710 | no fault | 0 | 0 | 0 | 0 | 0 | 1 | 0 | 0 | 0 |  | FAIL |" in text
    assert "| no-fence | rabbitmq | none | DOUBLE_TERMINAL 3 | noticed |" in text
