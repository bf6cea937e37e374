"""The plugin's databases and vhosts: fresh, separate, and gone afterwards; and what it says of what it cannot have."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import aio_pika
import asyncpg
import pytest
from redis.asyncio import Redis

from carillon.testing import eventually, rabbitmq_node
from carillon.testing.rabbitmq import RabbitMQ
from carillon.testing.rabbitmq_node import ContainerNode, NodeError, answers_amqp, container_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from carillon.testing.rabbitmq_node import Node
    from carillon.testing.servers import SessionServers

pytestmark = pytest.mark.long(seconds=100)

pytest_plugins = ["pytester"]


async def test_a_test_database_begins_empty_and_takes_tables(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)

    await connection.execute("create table bells (note text)")
    tables = await connection.fetch("select tablename from pg_tables where schemaname = 'public'")
    await connection.close()

    assert [row["tablename"] for row in tables] == ["bells"]


async def test_a_database_made_from_a_template_has_its_tables(new_database: Callable[..., str]) -> None:
    template = new_database()
    connection = await asyncpg.connect(template)
    await connection.execute("create table bells (note text)")
    await connection.close()

    copy = await asyncpg.connect(new_database(template.rsplit("/", 1)[1]))
    tables = await copy.fetch("select tablename from pg_tables where schemaname = 'public'")
    await copy.close()

    assert [row["tablename"] for row in tables] == ["bells"]


async def test_a_dropped_database_is_gone_although_somebody_was_connected(test_servers: SessionServers) -> None:
    url = test_servers.create_database()
    connection = await asyncpg.connect(url)

    await asyncio.to_thread(test_servers.drop_database, url)

    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(url)
    await connection.close(timeout=1)


async def test_a_redis_database_is_empty_but_for_its_claim(redis_url: str) -> None:
    client = Redis.from_url(redis_url)

    keys = await client.keys()
    await client.aclose()

    assert keys == [b"carillon:tests:claimed"]


def test_two_claims_never_get_the_same_redis_database(test_servers: SessionServers, redis_url: str) -> None:
    other = test_servers.claim_redis()
    test_servers.release_redis(other)

    assert other != redis_url


async def test_a_rabbit_vhost_takes_queues(rabbit_url: str, rabbit_prefix: str) -> None:
    connection = await aio_pika.connect(rabbit_url)
    channel = await connection.channel()

    queue = await channel.declare_queue(f"{rabbit_prefix}.bells", durable=True)
    await channel.default_exchange.publish(aio_pika.Message(b"ding"), routing_key=queue.name)
    message = await queue.get(timeout=10)
    await message.ack()
    await connection.close()

    assert message.body == b"ding"


@pytest.fixture(scope="module")
def engine() -> str:
    found = container_engine()
    if found is None:
        pytest.skip("no container engine answers")
    return found


@pytest.fixture(scope="module")
def contained(engine: str) -> Iterator[Node]:
    try:
        rabbitmq_node.have_image(engine)
    except NodeError as error:
        pytest.skip(str(error))
    node = ContainerNode(engine)
    yield node
    node.stop()


@pytest.fixture(
    params=[
        pytest.param("private_rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("contained", marks=pytest.mark.timeout(500)),
    ]
)
def node(request: pytest.FixtureRequest) -> Node:
    found: Node = request.getfixturevalue(request.param)
    return found


async def test_a_node_comes_back_from_a_restart_with_its_queues(node: Node) -> None:
    connection = await aio_pika.connect(node.url)
    await (await connection.channel()).declare_queue("kept", durable=True)
    await connection.close()

    await asyncio.to_thread(node.restart)

    assert "kept" in await asyncio.to_thread(node.ctl, "list_queues", "name")


async def test_a_wiped_node_lets_its_user_in_and_has_no_queues(node: Node) -> None:
    connection = await aio_pika.connect(node.url)
    await (await connection.channel()).declare_queue("lost", durable=True)
    await connection.close()

    await asyncio.to_thread(node.wipe)
    connection = await aio_pika.connect(node.url)
    await connection.close()

    assert "lost" not in await asyncio.to_thread(node.ctl, "list_queues", "name")


async def test_a_node_of_our_own_gives_vhosts_to_its_user(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    server = RabbitMQ()
    monkeypatch.setattr(server, "_url", node.url)
    monkeypatch.setattr(server, "_node", node)

    made = await asyncio.to_thread(server.create_vhost)
    assert made is not None
    connection = await aio_pika.connect(made)
    await (await connection.channel()).declare_queue("bells", durable=True)
    await connection.close()
    await asyncio.to_thread(server.delete_vhost, made)

    assert made.rsplit("/", 1)[1] not in await asyncio.to_thread(node.ctl, "list_vhosts", "name")


async def test_another_process_that_is_told_of_a_node_has_vhosts_of_it_too(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = RabbitMQ(), RabbitMQ()
    monkeypatch.setattr(first, "_url", node.url)
    monkeypatch.setattr(first, "_node", node)

    second.take_over(json.loads(json.dumps(first.hand_over())))
    made = await asyncio.to_thread(second.create_vhost)

    assert made is not None
    assert made.rsplit("/", 1)[1] in await asyncio.to_thread(node.ctl, "list_vhosts", "name")


KILLED = """
import sys, threading
from carillon.testing.rabbitmq_node import ContainerNode

node = ContainerNode(sys.argv[1])
print(node.name, flush=True)
threading.Event().wait()
"""


def named_and_killed(engine: str) -> tuple[str, str]:
    """The names of a container and its volume, whose process has been killed."""
    with subprocess.Popen([sys.executable, "-c", KILLED, engine], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        mounts = (engine, "inspect", "--format", "{{range .Mounts}}{{.Name}}{{end}}", name)
        volume = subprocess.check_output(mounts, text=True).strip()
        process.send_signal(signal.SIGKILL)
    return name, volume


@pytest.mark.timeout(500)
async def test_a_container_and_its_volume_go_when_the_tests_are_killed(engine: str, contained: Node) -> None:
    name, volume = await asyncio.to_thread(named_and_killed, engine)

    assert volume
    await eventually(lambda: is_gone(engine, "container", name), within=60)
    await eventually(lambda: is_gone(engine, "volume", volume), within=20)


async def is_gone(engine: str, kind: str, name: str) -> bool:
    asked = await asyncio.to_thread(subprocess.run, [engine, kind, "inspect", name], capture_output=True, check=False)
    return asked.returncode != 0


#: An engine that notes what it is asked, waits before it runs anything, and has neither images nor a network.
NO_NETWORK = """#!/bin/sh
echo "$*" >> "$0.asked"
case $1 in
image) exit $(cat "$0.image" 2>/dev/null || echo 1) ;;
pull) echo "dial tcp: lookup registry: no such host" >&2; exit 1 ;;
run) read -r line < "$0.door"; echo "the port is taken" >&2; exit 125 ;;
logs) exit 1 ;;
rm) shift; echo "$*" > "$0.removed" ;;
esac
"""


@pytest.fixture
def poor_engine(tmp_path: Path) -> Path:
    script = tmp_path / "docker"
    script.write_text(NO_NETWORK)
    script.chmod(0o755)
    os.mkfifo(f"{script}.door")
    os.mkfifo(f"{script}.removed")
    return script


def test_an_image_that_cannot_be_had_is_said_in_one_sentence(poor_engine: Path) -> None:
    with pytest.raises(NodeError, match=r"^the image \S+ is not here and cannot be pulled: .* no such host$"):
        ContainerNode(str(poor_engine))


def test_a_container_that_cannot_start_is_removed_and_the_engine_is_quoted(poor_engine: Path) -> None:
    Path(f"{poor_engine}.image").write_text("0")
    for name in ("door", "removed"):
        Path(f"{poor_engine}.{name}").unlink()
    Path(f"{poor_engine}.door").write_text("go on\n")

    with pytest.raises(NodeError, match=r"^RabbitMQ did not answer; it said: the port is taken$"):
        ContainerNode(str(poor_engine))

    assert Path(f"{poor_engine}.removed").read_text().startswith("-f -v carillon-test-rabbit-")


def test_a_container_that_starts_while_the_tests_are_killed_is_removed_when_it_has_started(poor_engine: Path) -> None:
    Path(f"{poor_engine}.image").write_text("0")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(poor_engine)])
    # Opening a named pipe waits for whoever opens its other end: the engine that runs, and later ends.
    with Path(f"{poor_engine}.door").open("w") as door:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        asked = Path(f"{poor_engine}.asked").read_text().splitlines()
        door.write("go on\n")
    removed = Path(f"{poor_engine}.removed").read_text()

    assert asked[-1].startswith("run -d --name carillon-test-rabbit-")
    assert removed == f"-f -v {asked[-1].split()[3]}\n"


def test_a_closed_port_is_no_amqp_server() -> None:
    assert not answers_amqp(1)


NEEDS_RABBITMQ = """
    def test_with_a_queue(rabbit_url):
        pass

    def test_without():
        pass
"""


@pytest.fixture
def no_rabbitmq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBIT_URL", "amqp://guest:guest@127.0.0.1:1/")
    monkeypatch.delenv("CI", raising=False)


@pytest.mark.usefixtures("no_rabbitmq")
def test_without_rabbitmq_the_other_tests_run_and_the_last_line_says_what_did_not(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(NEEDS_RABBITMQ)

    result = pytester.runpytest_subprocess("-p", "carillon.testing.plugin")

    result.assert_outcomes(passed=1, skipped=1)
    assert result.ret == pytest.ExitCode.OK
    assert result.outlines[-1].startswith("The RabbitMQ suite did not run (1 tests): RABBIT_URL")


@pytest.mark.usefixtures("no_rabbitmq")
def test_on_ci_a_missing_rabbitmq_is_a_failure(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    pytester.makepyfile(NEEDS_RABBITMQ)

    result = pytester.runpytest_subprocess("-p", "carillon.testing.plugin")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.outlines[-1] == "With CI set this is a failure."


@pytest.mark.usefixtures("no_rabbitmq")
def test_deselecting_the_marker_needs_no_rabbitmq(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(NEEDS_RABBITMQ)

    result = pytester.runpytest_subprocess("-p", "carillon.testing.plugin", "-m", "not rabbitmq")

    result.assert_outcomes(passed=1, deselected=1)
    assert "did not run" not in result.stdout.str()


NEEDS_CHROMIUM = """
    def test_with_a_page(chromium):
        pass

    def test_without():
        pass
"""


@pytest.fixture
def stub_of_chromium(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    # As Ubuntu's package does; and there is no apt-get on this PATH.
    stub = tmp_path / "chromium"
    stub.write_text("#!/bin/sh\necho 'requires the chromium snap to be installed' >&2\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    return str(stub)


def test_a_chromium_that_shows_no_page_counts_as_missing_and_the_last_line_says_so(
    pytester: pytest.Pytester, stub_of_chromium: str
) -> None:
    pytester.makepyfile(NEEDS_CHROMIUM)

    result = pytester.runpytest_subprocess("-p", "carillon.testing.plugin")

    result.assert_outcomes(passed=1, skipped=1)
    assert result.ret == pytest.ExitCode.OK
    assert result.outlines[-1].startswith(f"The browser suite did not run (1 tests): {stub_of_chromium} shows no page")
    assert "(requires the chromium snap to be installed)" in result.outlines[-1]
    assert "apt-get install chromium" in result.outlines[-1]


@pytest.mark.usefixtures("stub_of_chromium", "no_rabbitmq")
def test_on_ci_every_suite_that_did_not_run_is_named_and_is_a_failure(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    pytester.makepyfile(test_rabbitmq=NEEDS_RABBITMQ, test_chromium=NEEDS_CHROMIUM)

    result = pytester.runpytest_subprocess("-p", "carillon.testing.plugin")

    result.assert_outcomes(passed=2, skipped=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert [line.split(" suite did")[0] for line in result.outlines[-3:]] == [
        "The RabbitMQ", "The browser", "With CI set this is a failure."
    ]  # fmt: skip


def test_a_chromium_that_shows_a_page_is_found(chromium: str) -> None:
    assert Path(chromium).is_file()


TOLD_TO_STOP = """
    import asyncio
    import os
    import signal
    import threading

    import pytest

    async def test_that_hears_the_signal_itself():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)

    @pytest.fixture(autouse=True)
    def server(monkeypatch, test_servers):
        monkeypatch.setattr("carillon.testing.servers.find_redis", lambda: None)
        print(test_servers.redis())

    def stop():
        os.kill(os.getpid(), signal.SIGTERM)

    def test_that_waits():
        stop()
        threading.Event().wait(30)

    async def test_that_awaits():
        stop()
        await asyncio.sleep(30)

    def test_in_the_background_of_a_shell():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stop()
        threading.Event().wait(30)

    def test_that_comes_after_the_end():
        pass
"""


@pytest.mark.parametrize("one", ["that_waits", "that_awaits", "in_the_background"])
def test_a_session_that_is_told_to_stop_stops_what_it_started(pytester: pytest.Pytester, one: str) -> None:
    pytester.makepyfile(TOLD_TO_STOP)

    options = ("-s", "--asyncio-mode=auto", "-p", "carillon.testing.plugin")
    result = pytester.runpytest_subprocess(*options, "-k", f"hears or {one} or comes_after")

    address = next(line for line in result.outlines if "redis://" in line).rpartition("redis://")[2]
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(passed=1, deselected=2)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(address.partition("/")[0].rpartition(":")[2])), timeout=5)
