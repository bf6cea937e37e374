"""RabbitMQ nodes of our own, which tests may restart and wipe: an installed rabbitmq-server, or a container."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from carillon.embedded import process

START_SECONDS = 90.0
CONTROL_SECONDS = 90.0
#: Pulling the image the first time, in seconds.
PULL_SECONDS = 300.0
IMAGE = "docker.io/library/rabbitmq:4"
#: The user guest is refused from outside of the container. Erlang goes through every file it might have open, which
#: takes minutes where an engine sets no limit.
CONTAINER_OPTIONS = (
    "-e", "RABBITMQ_DEFAULT_USER=carillon", "-e", "RABBITMQ_DEFAULT_PASS=carillon", "--ulimit", "nofile=4096:4096",
)  # fmt: skip
#: Starts a container, and removes it with its volume when our end of the pipe closes, which also a killed test run
#: does: one process does both, so that a run that is killed while the container starts leaves none either.
KEEPER = """
engine=$1 name=$2; shift 2
"$engine" run -d --name "$name" "$@" && cat >/dev/null
"$engine" rm -f -v "$name" >/dev/null 2>&1
"""
#: The port mapper is ours, a test needs few schedulers, and nobody outside of this machine may come in.
ERLANG_OPTIONS = "-start_epmd false +S 2:2 -kernel inet_dist_use_interface {127,0,0,1}"
STOP_STEPS = ((signal.SIGTERM, 20.0),)


class NodeError(Exception):
    """A RabbitMQ of our own did not do what it was told; the sentence says what it said."""


@dataclass(frozen=True)
class Control:
    """How rabbitmqctl is run for one node, in a form that another process can be told."""

    command: list[str]
    #: None is the environment of whoever runs it.
    env: dict[str, str] | None = None

    def __call__(self, *arguments: str) -> str:
        """Run rabbitmqctl and return what it printed; raises `NodeError`."""
        return _run([*self.command, "-q", *arguments], CONTROL_SECONDS, self.env)


class Node(Protocol):
    """A RabbitMQ that belongs to the tests alone."""

    @property
    def control(self) -> Control:
        """How rabbitmqctl is run for it."""

    @property
    def url(self) -> str:
        """The address of its default vhost."""

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl and return what it printed."""

    def restart(self) -> None:
        """Stop the node and start it again with its data; returns when it answers."""

    def wipe(self) -> None:
        """Forget every queue, exchange, vhost and message; returns when it answers."""

    def stop(self) -> None:
        """End the node and remove what it kept."""


def programs() -> Path | None:
    """The folder of rabbitmq-server's own scripts; Debian's wrapper in /usr/sbin insists on its system user."""
    on_path = shutil.which("rabbitmq-server")
    candidates = [
        Path("/usr/lib/rabbitmq/bin"),
        Path("/opt/rabbitmq/sbin"),
        *([Path(on_path).parent] if on_path else []),
    ]
    usable = (folder for folder in candidates if os.access(folder / "rabbitmq-server", os.X_OK))
    return next(usable, None) if shutil.which("erl") else None


def answers_amqp(port: int, host: str = "127.0.0.1") -> bool:
    """Whether an AMQP server completes the first step of a handshake at this port."""
    with suppress(OSError), socket.create_connection((host, port), timeout=2) as connection:
        connection.settimeout(2)
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        return connection.recv(1) == b"\x01"
    return False


def _await_amqp(
    port: int, alive: Callable[[], bool] = lambda: True, said: Callable[[], str] = lambda: "nothing"
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers_amqp(port):
        if time.monotonic() > deadline or not alive():
            message = f"RabbitMQ did not answer; it said: {said().strip()}"
            raise NodeError(message)
        time.sleep(process.POLL)


def _wipe(node: Node, port: int) -> None:
    for step in ("stop_app", "reset", "start_app"):
        node.ctl(step)
    _await_amqp(port)


def _run(command: list[str], seconds: float, env: dict[str, str] | None = None) -> str:
    what = f"`{' '.join(command[:4])}`"
    try:
        # In the root folder, because Debian's rabbitmqctl becomes another user, who must be able to enter where it is.
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=seconds, env=env, cwd="/",
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        message = f"{what} did not end within {seconds:g} s"
        raise NodeError(message) from None
    if done.returncode != 0:
        message = f"{what} failed: {(done.stderr or done.stdout).strip()[-500:]}"
        raise NodeError(message)
    return done.stdout


class PrivateNode:
    """An installed RabbitMQ run with its own folder, name, ports and port mapper, as whatever user we are."""

    def __init__(self, scripts: Path) -> None:
        self._scripts = scripts
        self._folder = Path(tempfile.mkdtemp(prefix="carillon-rabbit-"))
        self._port, mapper_port = process.free_port(), process.free_port()
        self._env = self._environment(mapper_port)
        self._write_files()
        self._mapper = self._start_mapper(mapper_port)
        self._server: process.Child | None = None
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """The address of its default vhost."""
        return f"amqp://guest:guest@127.0.0.1:{self._port}/"

    @property
    def control(self) -> Control:
        """How rabbitmqctl is run for it."""
        return Control([str(self._scripts / "rabbitmqctl"), "-n", self._env["RABBITMQ_NODENAME"]], self._env)

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl against this node."""
        return self.control(*arguments)

    def restart(self) -> None:
        """Stop the program and start it again on the same data."""
        if self._server is not None:
            self._server.stop_now(*STOP_STEPS)
        self._start()

    def wipe(self) -> None:
        """Reset the node to its first day."""
        _wipe(self, self._port)

    def stop(self) -> None:
        """End the node and its port mapper, and remove their folder."""
        for child in (self._server, self._mapper):
            if child is not None:
                child.stop_now(*STOP_STEPS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        script = self._scripts / "rabbitmq-server"
        server = process.start("RabbitMQ", [script], log=self._folder / "node.log", env=self._env, cwd=self._folder)
        self._server = server
        _await_amqp(self._port, lambda: server.alive, lambda: server.log_text(2000))

    def _start_mapper(self, port: int) -> process.Child:
        """Our own epmd, as a child: the one Erlang starts by itself would outlive the tests."""
        erlang = _run(["erl", "-noshell", "-eval", 'io:format("~s", [code:root_dir()]), halt().'], 30, self._env)
        found = sorted(Path(erlang.strip()).glob("erts-*/bin/epmd")) or [Path(shutil.which("epmd") or "/usr/bin/epmd")]
        command: list[str | Path] = [found[-1], "-address", "127.0.0.1", "-port", str(port)]
        return process.start("epmd", command, log=self._folder / "epmd.log", env=self._env)

    def _environment(self, mapper_port: int) -> dict[str, str]:
        folder = self._folder
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"carillon{secrets.token_hex(4)}@localhost",
            "RABBITMQ_DIST_PORT": str(process.free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            # The script then becomes the server, so that a signal to its process reaches the server.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG_OPTIONS,
        }

    def _write_files(self) -> None:
        cookie = self._folder / ".erlang.cookie"
        cookie.touch(mode=0o600)
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        (self._folder / "rabbitmq-env.conf").write_text("")
        (self._folder / "enabled_plugins").write_text("[].\n")
        (self._folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self._port}\n"
            "disk_free_limit.absolute = 50MB\n"
            "log.file = false\nlog.console = true\nlog.console.level = error\n"
        )


def container_engine() -> str | None:
    """A docker or podman that really answers."""
    for name in ("docker", "podman"):
        if not (found := shutil.which(name)):
            continue
        with suppress(NodeError):
            _run([found, "info"], 20)
            return found
    return None


class ContainerNode:
    """RabbitMQ in a container that is removed with us, however we end."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self.name = f"carillon-test-rabbit-{secrets.token_hex(4)}"
        have_image(engine)
        self._port = process.free_port()
        # Without a name, so that nothing is left of it however we end.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._keeper = self._start_keeper()
        try:
            self._await_amqp()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """The address of its default vhost."""
        return f"amqp://carillon:carillon@127.0.0.1:{self._port}/"

    @property
    def control(self) -> Control:
        """How rabbitmqctl is run for it."""
        return Control([self._engine, "exec", self.name, "rabbitmqctl"])

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl in the container."""
        return self.control(*arguments)

    def restart(self) -> None:
        """Restart the container; its data stays."""
        _run([self._engine, "restart", "-t", "20", self.name], CONTROL_SECONDS)
        self._await_amqp()

    def wipe(self) -> None:
        """Reset the node to its first day."""
        _wipe(self, self._port)

    def stop(self) -> None:
        """Remove the container."""
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        # An engine that does not answer now may do so later, and then the keeper still removes the container.
        with suppress(subprocess.TimeoutExpired):
            self._keeper.wait(CONTROL_SECONDS)
        self._output.close()

    def _start_keeper(self) -> subprocess.Popen[bytes]:
        ports = f"127.0.0.1:{self._port}:5672"
        command = ["/bin/sh", "-c", KEEPER, "keeper", self._engine, self.name, "-p", ports, *CONTAINER_OPTIONS, IMAGE]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
            cwd="/",
        )

    def _await_amqp(self) -> None:
        _await_amqp(self._port, lambda: self._keeper.poll() is None, self._said)

    def _said(self) -> str:
        """The last words of RabbitMQ, or of an engine that could not start it."""
        logs = [self._engine, "logs", "--tail", "5", self.name]
        with suppress(subprocess.TimeoutExpired):
            done = subprocess.run(logs, capture_output=True, text=True, check=False, timeout=CONTROL_SECONDS)
            if done.returncode == 0 and (words := done.stdout + done.stderr).strip():
                return words[-1000:]
        # The keeper writes at its own place in the file, which a seek would move.
        return os.pread(self._output.fileno(), 2000, 0).decode(errors="replace")


def have_image(engine: str) -> None:
    """Pull the image where it is not there; raises `NodeError`."""
    with suppress(NodeError):
        _run([engine, "image", "inspect", IMAGE], CONTROL_SECONDS)
        return
    try:
        _run([engine, "pull", "-q", IMAGE], PULL_SECONDS)
    except NodeError as error:
        message = f"the image {IMAGE} is not here and cannot be pulled: {error}"
        raise NodeError(message) from error
