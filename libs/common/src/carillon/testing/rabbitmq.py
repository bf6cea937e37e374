"""The RabbitMQ that tests run on: one that answers, else one of our own, else a plain sentence on how to get one."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import aio_pika
from aio_pika.exceptions import AMQPError

from carillon.testing import apt
from carillon.testing.blocking import wait_for
from carillon.testing.rabbitmq_node import (
    ContainerNode,
    Control,
    Node,
    NodeError,
    PrivateNode,
    container_engine,
    have_image,
    programs,
)

if TYPE_CHECKING:
    from collections.abc import Callable

#: A server that does not answer within this many seconds counts as absent.
PROBE_SECONDS = 5.0
DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"
MISSING = (
    "no RabbitMQ could be had; set RABBIT_URL, or install rabbitmq-server (Debian, Ubuntu: "
    "`sudo apt-get install rabbitmq-server`; macOS: `brew install rabbitmq`), or start docker or podman"
)


class RabbitMQ:
    """The RabbitMQ of one test session; nothing is looked for before the first question."""

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        self._say = say
        self._names = itertools.count(1)
        self._url: str | None = None
        self._node: Node | None = None
        self._private: Node | None = None
        self._told: Control | None = None
        self._may_install = True
        #: Why there is none, once that is known.
        self.missing: str | None = None

    def find(self) -> str | None:
        """The address of a server, or None, and then `missing` says why."""
        if self._url is None and self.missing is None:
            self._url = self._look()
        return self._url

    def private(self) -> Node | None:
        """A node that the tests may restart and wipe, or None, and then `missing` says why."""
        if self._private is None and self.missing is None:
            self._private = self._own_node()
            if self._private is None:
                self.missing = MISSING
        return self._private

    def provide(self) -> None:
        """See to it that another process of this session can start a node, which may not install anything."""
        if programs():
            return
        if (engine := container_engine()) is not None:
            with suppress(NodeError):
                have_image(engine)
                return
        try:
            self._install()
        except (apt.AptError, OSError, subprocess.SubprocessError) as error:
            self._say(f"RabbitMQ for the tests, tried and failed: apt-get: {error}")

    def hand_over(self) -> dict[str, Any]:
        """What was found, for `take_over` in another process of this session; strings, lists and dictionaries."""
        control = self._node.control if self._node is not None else None
        return {"url": self._url, "missing": self.missing, "control": asdict(control) if control else None}

    def take_over(self, found: dict[str, Any]) -> None:
        """Use what another process found, and install nothing, which it did where it could be done."""
        self._url, self.missing = found["url"], found["missing"]
        self._told = Control(**found["control"]) if found["control"] else None
        self._may_install = False

    def stop(self) -> None:
        """Stop what was started."""
        for node in (self._node, self._private):
            if node is not None:
                node.stop()

    def create_vhost(self) -> str | None:
        """A vhost of its own on the server that was found, or None where we may not make one."""
        if (url := self.find()) is None or (ctl := self._control()) is None:
            return None
        name, user = f"carillon_test_{os.getpid()}_{next(self._names)}", unquote(urlsplit(url).username or "guest")
        try:
            ctl("add_vhost", name)
            ctl("set_permissions", "-p", name, user, ".*", ".*", ".*")
        except (NodeError, subprocess.SubprocessError):
            return None
        made = with_vhost(url, name)
        # rabbitmqctl speaks to the node on this machine; the address may lead to another.
        if wait_for(_connects(made)):
            return made
        with suppress(NodeError):
            ctl("delete_vhost", name)
        return None

    def delete_vhost(self, url: str) -> None:
        """Remove a vhost made here, with its queues."""
        if (ctl := self._control()) is not None:
            with suppress(NodeError):
                ctl("delete_vhost", unquote(urlsplit(url).path.lstrip("/")))

    def delete_queues(self, prefix: str) -> None:
        """Remove what a test left on the shared vhost; only where the server can be asked for its queues."""
        if (url := self.find()) is None or (ctl := self._control()) is None:
            return
        listed = ctl("list_queues", "-p", unquote(urlsplit(url).path.lstrip("/")) or "/", "name")
        names = [name for name in listed.splitlines() if name.startswith(prefix)]
        if names:
            wait_for(_delete_queues(url, names))

    def _look(self) -> str | None:
        if named := os.environ.get("RABBIT_URL"):
            if wait_for(_connects(named)):
                return named
            self.missing = "RABBIT_URL names a RabbitMQ that does not let us in; start it, or unset RABBIT_URL"
            return None
        if wait_for(_connects(DEFAULT_URL)):
            return DEFAULT_URL
        self._node = self._own_node()
        if self._node is None:
            self.missing = MISSING
            return None
        return self._node.url

    def _own_node(self) -> Node | None:
        failures: list[str] = []
        for name, make in (
            ("rabbitmq-server", self._installed),
            ("container", self._contained),
            ("apt-get", self._bought),
        ):
            try:
                if (node := make()) is not None:
                    return node
            except (NodeError, apt.AptError, OSError, subprocess.SubprocessError) as error:
                failures.append(f"{name}: {error}")
        for failure in failures:
            self._say(f"RabbitMQ for the tests, tried and failed: {failure}")
        return None

    def _installed(self) -> Node | None:
        scripts = programs()
        return PrivateNode(scripts) if scripts else None

    def _contained(self) -> Node | None:
        engine = container_engine()
        if engine is None:
            return None
        self._say("starting a RabbitMQ container for the tests ...")
        return ContainerNode(engine)

    def _bought(self) -> Node | None:
        return self._installed() if self._install() else None

    def _install(self) -> bool:
        if programs() or not self._may_install or not apt.may_install():
            return False
        self._say("installing rabbitmq-server for the tests (apt-get, about a minute) ...")
        apt.install("rabbitmq-server")
        return True

    def _control(self) -> Control | None:
        if self._node is not None:
            return self._node.control
        if self._told is not None:
            return self._told
        program = shutil.which("rabbitmqctl")
        return Control([program]) if program and os.geteuid() == 0 else None


def with_vhost(url: str, name: str) -> str:
    """The same server's address with another vhost."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{quote(name, safe='')}"))


async def _connects(url: str) -> bool:
    with suppress(OSError, TimeoutError, AMQPError):
        connection = await aio_pika.connect(url, timeout=PROBE_SECONDS)
        await connection.close()
        return True
    return False


async def _delete_queues(url: str, names: list[str]) -> None:
    connection = await aio_pika.connect(url, timeout=PROBE_SECONDS)
    async with connection:
        channel = await connection.channel()
        for name in names:
            await channel.queue_delete(name)
