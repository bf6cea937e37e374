"""Test files in several processes, by pytest-xdist: one of them finds and starts what all of them use, and stops it.

The controller collects no tests. So each worker writes down, in a folder that the controller made, what its tests
need; the controller gets that once and writes down what it found, before it gives out the first test.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from carillon.testing import termination

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

#: How long workers that are told to stop may take to stop what they started, in seconds; a RabbitMQ takes 20 at most.
STOP_SECONDS = 60.0
#: The name of our entry in what pytest-xdist carries between its processes.
ENTRY = "carillon"
FOUND = "found.json"


class Node(Protocol):
    """A worker, as pytest-xdist shows it to the controller."""

    gateway: Any
    channel: Any
    workerinput: dict[str, Any]


def processes() -> int:
    """How many test processes suit this machine: one for each core, 2 to 4.

    Each starts servers, workers and browsers besides; with one more, what is timed by the clock was late now and then.
    """
    return min(max(os.cpu_count() or 1, 2), 4)


class Controller:
    """What the process does that gives out the tests."""

    def __init__(self, get: Callable[[Iterable[str]], dict[str, Any]]) -> None:
        self._get = get
        self._folder = Path(tempfile.mkdtemp(prefix="carillon-workers-"))
        self._nodes: list[Node] = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Node) -> None:
        """Tell a worker where the folder is."""
        node.workerinput[ENTRY] = str(self._folder)
        self._nodes.append(node)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Node) -> None:
        """Get what the tests need when the first worker knows them, and have it written down before any test runs."""
        found = self._folder / FOUND
        if not found.exists() and (note := self._note(node)) is not None:
            found.write_text(json.dumps(self._get(note["needs"])))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Where the session ends too early, have every worker stop what it started, and wait until it has.

        By itself pytest-xdist kills a worker that has not ended ten seconds later.
        """
        at_work = [node for node in self._nodes if not hasattr(node, "workeroutput") and not node.channel.isclosed()]
        for node in at_work:
            if (note := self._note(node)) is not None:
                os.kill(note["pid"], note["interrupt"])
        deadline = time.monotonic() + STOP_SECONDS
        for node in at_work:
            try:
                node.channel.waitclose(max(deadline - time.monotonic(), 0))
            except (EOFError, node.channel.TimeoutError, node.channel.RemoteError):
                continue
        shutil.rmtree(self._folder, ignore_errors=True)

    def not_run(self) -> dict[str, dict[str, Any]]:
        """By marker of a suite: which tests the workers left out, and what was missing."""
        merged: dict[str, dict[str, Any]] = {}
        for node in self._nodes:
            for marker, left_out in getattr(node, "workeroutput", {}).get(ENTRY, {}).items():
                merged.setdefault(marker, {"tests": [], "missing": left_out["missing"]})["tests"] += left_out["tests"]
        return merged

    def _note(self, node: Node) -> dict[str, Any] | None:
        """What a worker wrote down, or None when it has not got that far, and has started nothing."""
        note = self._folder / f"{node.gateway.id}.json"
        return dict(json.loads(note.read_text())) if note.exists() else None


class Worker:
    """What each process does that runs tests it was given."""

    def __init__(
        self,
        config: pytest.Config,
        needs: Callable[[Iterable[pytest.Item]], set[str]],
        take_over: Callable[[dict[str, Any]], None],
        not_run: Callable[[], dict[str, dict[str, Any]]],
    ) -> None:
        # pytest-xdist keeps both on the configuration of a worker.
        self._input: dict[str, Any] = config.workerinput  # type: ignore[attr-defined]
        self._output: dict[str, Any] = config.workeroutput  # type: ignore[attr-defined]
        self._needs = needs
        self._take_over = take_over
        self._not_run = not_run
        self._told = False
        # A terminal sends Ctrl-C to a whole group of processes. We hear of it from the controller, and once: a second
        # one would break off the tidying that the first one began.
        os.setpgid(0, 0)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put the files that take longest first, so that none of them is begun when the others are done.

        A file that says it is the last is begun when no other is left to begin, and has the machine almost to itself.
        """
        seconds: dict[Path, float] = defaultdict(float)
        for item in items:
            if (mark := item.get_closest_marker("long")) is not None:
                seconds[item.path] = max(seconds[item.path], float(mark.kwargs["seconds"]))
        last = {item.path for item in items if item.get_closest_marker("last") is not None}
        items.sort(key=lambda item: (item.path in last, -seconds[item.path]))

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Write down for the controller what is needed, and how this process is told to stop."""
        # A shell lets what it starts in the background ignore Ctrl-C.
        interrupt = signal.SIGINT if callable(signal.getsignal(signal.SIGINT)) else signal.SIGTERM
        note = {"pid": os.getpid(), "interrupt": interrupt, "needs": sorted(self._needs(session.items))}
        termination.heed()
        self._folder.joinpath(f"{self._input['workerid']}.json").write_text(json.dumps(note))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Generator[None, object, object]:
        """Read, before the first test, what the controller found."""
        if not self._told and (found := self._folder / FOUND).exists():
            self._take_over(json.loads(found.read_text()))
        self._told = True
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Tell the controller which tests were left out."""
        self._output[ENTRY] = self._not_run()

    @property
    def _folder(self) -> Path:
        return Path(self._input[ENTRY])
