"""The rules of the house that no other tool checks, read from the source itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "libs/common/src/carillon"
FOLDERS = [path for root in ("services", "examples") for path in sorted((ROOT / root).iterdir()) if path.is_dir()]
SERVICES = {path.name: path / "src" / path.name for path in FOLDERS}
#: A name that says nothing about what is in it.
EMPTY_NAMES = {"base", "core", "helpers", "manager", "misc", "utils"}
#: Where the library reads the environment itself, because nobody could hand it over.
READERS = ("cli/", "embedded/", "testing/", "telemetry/traces.py")
#: What a child process of a service may know of its environment is picked here; nothing is read as a setting.
CHILDREN = {"services/backup/src/backup/child.py", "services/reports/src/reports/renderer.py"}
SAFE = ("Safe to run twice:", "Safe to hear twice:")


def modules(*roots: Path) -> list[Path]:
    return sorted(path for root in roots for path in root.rglob("*.py"))


ALL = modules(LIBRARY, *SERVICES.values())


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), shown(path))


def imported(path: Path) -> Iterator[str]:
    """The full names of all modules that a module imports, wherever in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = list(path.relative_to(package_root(path)).with_suffix("").parts)
            before = package[: len(package) - node.level] if node.level else []
            module = ".".join([*before, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def package_root(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.name == "src")


def declared(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions that `@tasks.task(...)` and `@tasks.hears(...)` decorate."""
    for node in tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            calls = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
            if any(isinstance(call, ast.Attribute) and call.attr in {"task", "hears"} for call in calls):
                yield node


DECLARING = [path for root in SERVICES.values() for path in modules(root) if list(declared(path))]


def test_the_rules_look_at_every_service_and_at_its_tasks():
    assert {"analytics", "backup", "gateway", "notifications", "orders", "reports", "scheduler"} <= SERVICES.keys()
    assert {path.parent.name for path in DECLARING} >= {"analytics", "backup", "notifications", "reports"}
    assert len(ALL) > 100


@pytest.mark.parametrize("path", DECLARING, ids=shown)
def test_every_task_and_handler_says_why_it_is_safe_to_run_twice(path):
    silent = [
        f"{function.name} (line {function.lineno})"
        for function in declared(path)
        if not any(p.strip().startswith(SAFE) for p in (ast.get_docstring(function) or "").split("\n\n")[1:])
    ]

    assert silent == [], "give each a paragraph that begins with `Safe to run twice:`"


@pytest.mark.parametrize("path", DECLARING, ids=shown)
def test_tasks_are_declared_where_a_reader_looks_for_them(path):
    assert path.name in {"tasks.py", "events.py"}


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_imports_a_neighbour(service):
    neighbours = SERVICES.keys() - {service}

    found = [
        f"{shown(path)} imports {name}"
        for path in modules(SERVICES[service])
        for name in imported(path)
        if name.partition(".")[0] in neighbours
    ]

    assert found == []


def test_the_library_imports_no_service():
    found = [
        f"{shown(path)} imports {name}"
        for path in modules(LIBRARY)
        for name in imported(path)
        if name.partition(".")[0] in SERVICES
    ]

    assert found == []


def test_nothing_is_printed():
    found = [
        f"{shown(path)}:{node.lineno}"
        for path in ALL
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"print", "pprint"}
    ]

    assert found == [], "log it, or write it to a stream on purpose"


def test_nothing_is_pickled():
    pickles = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}

    assert [f"{shown(p)} imports {n}" for p in ALL for n in imported(p) if n.partition(".")[0] in pickles] == []


def test_no_module_has_a_name_that_says_nothing():
    names = {shown(path): {path.stem, path.parent.name} & EMPTY_NAMES for path in ALL}

    assert [path for path, empty in names.items() if empty] == []


def test_every_module_says_in_a_sentence_what_is_in_it():
    silent = [shown(path) for path in ALL if path.stat().st_size and not ast.get_docstring(tree(path))]

    assert silent == []


@pytest.mark.parametrize("service", SERVICES)
def test_only_the_assembly_reads_a_service_s_settings(service):
    readers = [
        path.relative_to(SERVICES[service]).as_posix()
        for path in modules(SERVICES[service])
        if any(name == f"{service}.settings" or name.startswith(f"{service}.settings.") for name in imported(path))
    ]

    assert set(readers) <= {"app.py"}


def reads_environment(path: Path) -> bool:
    names = {"environ", "environb", "getenv"}
    return any(
        (isinstance(node, ast.Attribute) and node.attr in names and isinstance(node.value, ast.Name))
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and {a.name for a in node.names} & names)
        for node in ast.walk(tree(path))
    )


def test_the_library_leaves_the_environment_to_the_settings():
    readers = [path.relative_to(LIBRARY).as_posix() for path in modules(LIBRARY) if reads_environment(path)]

    assert [reader for reader in readers if not reader.startswith(READERS)] == []


def test_services_leave_the_environment_to_their_settings():
    readers = [shown(path) for root in SERVICES.values() for path in modules(root) if reads_environment(path)]

    assert set(readers) <= CHILDREN


def test_no_decision_waits_in_a_comment():
    found = [shown(path) for path in ALL if any(word in path.read_text() for word in ("# TODO", "# FIXME", "# XXX"))]

    assert found == []
