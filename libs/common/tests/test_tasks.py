"""Declaring tasks: the schema of a signature, what arguments are refused, what is injected, and early faults."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import orjson
import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field
from shop import OrderPacked, OrderPlaced

from carillon import Retry, Run, Service, Tasks
from carillon.errors import ConfigurationError, InvalidArgumentsError, NotConnectedError, PermanentError
from carillon.testing import InProcess
from carillon.worker.broker import json_args
from carillon.worker.execution import result_json


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Line(BaseModel):
    article: str
    count: int = 1


class Press:
    """Something that is injected."""


ID = UUID("01890000-0000-7000-8000-000000000000")
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)

tasks = Tasks("print")


@tasks.task(timeout=timedelta(seconds=7), retry=Retry(attempts=2), default=True)
async def bind_book(
    title: str,
    pages: Annotated[int, Field(ge=1)],
    price: float = 9.5,
    colour: Colour | None = None,
    due: datetime | None = None,
    lines: list[Line] = [],  # noqa: B006 - pydantic copies it
    pause: timedelta = timedelta(0),
    glossy: bool = False,
    book: UUID | None = None,
    *,
    run: Run,
    press: Press,
) -> dict[str, Any]:
    """Bind one book.

    Safe to run twice: it returns what it was given.
    """
    assert isinstance(press, Press)
    assert run.task == "print.bind_book"
    return {"title": title, "pages": pages, "price": price, "colour": colour, "due": due, "lines": lines}


@tasks.hears(OrderPlaced)
def print_order(event: OrderPlaced) -> OrderPacked | None:
    """Print. Safe to run twice: it returns."""
    return OrderPacked(order=event.order)


LEAST = {"title": "Bells", "pages": 3}


def test_the_schema_has_the_arguments_and_nothing_that_is_injected():
    schema = bind_book.arguments.model_json_schema()

    Draft202012Validator.check_schema(schema)
    assert schema["title"] == "bind_book"
    assert schema["required"] == ["title", "pages"]
    assert schema["additionalProperties"] is False
    assert list(schema["properties"]) == [*LEAST, "price", "colour", "due", "lines", "pause", "glossy", "book"]
    assert schema["properties"]["pages"] == {"minimum": 1, "title": "Pages", "type": "integer"}
    assert schema["properties"]["price"]["default"] == 9.5
    assert schema["properties"]["due"]["anyOf"] == [{"format": "date-time", "type": "string"}, {"type": "null"}]


def test_the_policy_is_published_in_seconds():
    assert bind_book.policy == {
        "timeout_seconds": 7,
        "grace_seconds": 10,
        "silent_after_seconds": None,
        "process": False,
        "attempts": 2,
        "retry_base_seconds": 1,
        "retry_cap_seconds": 600,
        "retries_per_second": 20,
        "retry_rules": {},
    }


def test_what_json_can_only_say_as_text_becomes_what_the_function_wants():
    given = {**LEAST, "price": 3, "colour": "red", "due": "2026-11-24T12:00:00Z", "pause": "PT5S", "book": str(ID)}

    found = bind_book.validated({**given, "lines": [{"article": "ink"}]})

    assert (found["colour"], found["due"], found["pause"]) == (Colour.RED, NOON, timedelta(seconds=5))
    assert (found["price"], found["book"], found["lines"]) == (3.0, ID, [Line(article="ink", count=1)])


def test_what_python_submits_is_what_the_function_gets():
    given = {"colour": Colour.BLUE, "due": NOON, "lines": [Line(article="ink", count=2)], "book": ID}
    given["pause"] = timedelta(minutes=1)

    sent = json_args(bind_book.bind(["Bells", 3], given))
    found = bind_book.validated(orjson.loads(sent))

    assert {name: found[name] for name in given} == given


def test_a_default_that_can_change_is_never_shared():
    bind_book.validated(LEAST)["lines"].append("ink")

    assert bind_book.validated(LEAST)["lines"] == []


BAD = [
    ({"pages": 3}, "title: Field required"),
    ({**LEAST, "pages": "3"}, "pages: Input should be a valid integer"),
    ({**LEAST, "pages": True}, "pages: Input should be a valid integer"),
    ({**LEAST, "pages": 3.5}, "pages: Input should be a valid integer"),
    ({**LEAST, "pages": None}, "pages: Input should be a valid integer"),
    ({**LEAST, "pages": 0}, "pages: Input should be greater than or equal to 1"),
    ({**LEAST, "title": 3}, "title: Input should be a valid string"),
    ({**LEAST, "title": ["Bells"]}, "title: Input should be a valid string"),
    ({**LEAST, "price": "9.5"}, "price: Input should be a valid number"),
    ({**LEAST, "glossy": 1}, "glossy: Input should be a valid boolean"),
    ({**LEAST, "glossy": "true"}, "glossy: Input should be a valid boolean"),
    ({**LEAST, "lines": {}}, "lines: Input should be a valid array"),
    ({**LEAST, "lines": [{"article": "ink", "count": "2"}]}, "lines.0.count: Input should be a valid integer"),
    ({**LEAST, "lines": [[]]}, "lines.0: Input should be an object"),
    ({**LEAST, "colour": "green"}, "colour: Input should be 'red' or 'blue'"),
    ({**LEAST, "run": {}}, "run: Extra inputs are not permitted"),
    ({**LEAST, "press": {}}, "press: Extra inputs are not permitted"),
    ({**LEAST, "self": 1}, "self: Extra inputs are not permitted"),
    ({**LEAST, "__class__": "x"}, "__class__: Extra inputs are not permitted"),
]


@pytest.mark.parametrize(("arguments", "says"), BAD)
def test_arguments_that_do_not_fit_are_refused_by_the_worker_with_a_sentence(arguments, says):
    with pytest.raises(InvalidArgumentsError) as refused:
        bind_book.validated(arguments)

    assert str(refused.value).startswith("the arguments of print.bind_book do not fit: ")
    assert says in str(refused.value)


@pytest.mark.parametrize("arguments", [arguments for arguments, _ in BAD])
def test_the_published_schema_refuses_what_the_worker_refuses(arguments):
    assert not Draft202012Validator(bind_book.arguments.model_json_schema()).is_valid(arguments)


def test_a_refusal_names_at_most_five_faults_and_repeats_no_value():
    secrets = {"title": 1, "pages": "secret", "price": "secret", "glossy": "secret", "lines": "secret", "due": "secret"}

    with pytest.raises(InvalidArgumentsError) as refused:
        bind_book.validated(secrets)

    assert str(refused.value).count(";") == 4
    assert "secret" not in str(refused.value)


def test_arguments_by_position_and_by_name_are_bound_as_python_does():
    assert bind_book.bind(["Bells"], {"pages": 3}) == LEAST

    with pytest.raises(InvalidArgumentsError, match=r"print.bind_book was given title twice"):
        bind_book.bind(["Bells"], LEAST)
    with pytest.raises(InvalidArgumentsError, match=r"print.bind_book takes 9 arguments, 10 were given"):
        bind_book.bind(range(10), {})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"a": object()}, "the arguments are not JSON: "),
        ({"a": "\ud800"}, "the arguments are not JSON: "),
        ({"a": "\x00"}, "the character NUL, which PostgreSQL cannot keep"),
        ({"a": "x" * 300_000}, "the most is 262144; pass a storage key instead"),
    ],
)
def test_arguments_that_cannot_be_kept_are_refused_before_they_are_sent(arguments, says):
    with pytest.raises(InvalidArgumentsError) as refused:
        json_args(arguments)

    assert says in str(refused.value)


def test_what_is_injected_is_found_by_its_type():
    assert bind_book.needs == {"run": Run, "press": Press}

    tasks.check([Press])


def test_a_task_that_needs_what_nobody_provides_is_named_with_it():
    with pytest.raises(ConfigurationError, match=r"^print.bind_book needs `press: Press`, which its service does not"):
        tasks.check([])


@pytest.mark.parametrize("value", [math.nan, {"rate": [math.inf]}])
def test_a_float_that_json_has_not_is_refused_as_an_argument_and_fails_as_a_result(value):
    with pytest.raises(InvalidArgumentsError, match="a float that is NaN or infinite"):
        json_args({"a": value, "b": None})
    with pytest.raises(PermanentError, match="the result holds a float that is NaN or infinite"):
        result_json([value, None])


@pytest.mark.parametrize(("annotation", "shown"), [(Press | None, "Press | None"), (None, "object")])
def test_a_need_that_is_no_type_is_refused_in_words(annotation, shown):
    lone = Tasks("lone")

    async def work(*, press) -> None: ...

    if annotation is not None:
        work.__annotations__["press"] = annotation
    lone.task()(work)

    with pytest.raises(ConfigurationError) as refused:
        lone.check([Press])

    assert shown in str(refused.value)


YEARS = timedelta(days=366)


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        ({"timeout": 30}, "timeout=30; it must be a timedelta, such as timedelta(seconds=30)"),
        ({"timeout": None}, "timeout=None; it must be a timedelta"),
        ({"timeout": timedelta(0)}, "timeout=0:00:00; it must be more than nothing, and at most 365 days"),
        ({"timeout": -YEARS}, "it must be more than nothing"),
        ({"timeout": YEARS}, "and at most 365 days"),
        ({"grace": 5}, "grace=5; it must be a timedelta"),
        ({"grace": timedelta(seconds=-1)}, "it must be not less than nothing"),
        ({"silent_after": 5}, "silent_after=5; it must be a timedelta"),
        ({"silent_after": timedelta(0)}, "silent_after=0:00:00; it must be more than nothing"),
        ({"retry": 3}, "retry=3; it must be a Retry, such as Retry(attempts=3)"),
        ({"limits": 5}, "limits=5; it must be Limits"),
        ({"unique": True}, "unique=True; it must be Unique"),
        ({"process": "no"}, "process='no'; it must be True or False"),
        ({"on_failure": "billing.failed"}, "it must be a function"),
        ({"retries": 3}, "'retries', which nobody knows; there are timeout, grace, retry,"),
        ({"labels": {"priority": "first"}}, "labels that no run could have: priority must be one of low, normal,"),
        ({"labels": {"delay": 1}}, "the label 'delay', which is an option; say it with each submit"),
        ({"labels": {"Customer": "7"}}, "labels that no run could have: labels must be named in lower case"),
        ({"labels": {"customer": "x" * 201}}, "labels.customer must have at most 200 characters"),
    ],
)
def test_what_a_task_could_not_be_executed_by_is_refused_where_it_is_declared(terms, told):
    async def work() -> None: ...

    with pytest.raises(ConfigurationError) as refused:
        Tasks("lone").task(**terms)(work)

    assert str(refused.value).startswith("lone.work has ")
    assert told in str(refused.value)


def test_no_grace_and_what_is_none_where_it_may_be_are_taken():
    async def work() -> None: ...

    declared = Tasks("lone").task(
        grace=timedelta(0), silent_after=None, limits=None, unique=None, on_failure=None, labels={"priority": "high"}
    )(work)

    assert (declared.grace, declared.limits, declared.unique) == (timedelta(0), None, None)


def test_two_tasks_of_one_name_are_refused():
    lone = Tasks("lone")

    def declare():
        @lone.task()
        async def work() -> None: ...

    declare()

    with pytest.raises(ConfigurationError, match=r"lone.work is declared twice; rename one of the functions"):
        declare()


def test_a_handler_takes_its_event_and_nothing_else():
    async def pack(order: str) -> None: ...

    with pytest.raises(ConfigurationError, match=r"its one argument must be named `event`"):
        Tasks("lone").hears(OrderPlaced)(pack)


def test_what_is_heard_and_said_is_read_from_the_signature():
    assert print_order.hears is OrderPlaced
    assert print_order.says == (OrderPacked,)
    assert bind_book.says == ()


async def test_a_task_that_is_sent_too_early_says_what_to_enter():
    with pytest.raises(Exception, match=r".") as refused:
        await bind_book.kiq("Bells", 3)

    cause = refused.value.__cause__ or refused.value
    assert isinstance(cause, NotConnectedError)
    assert "enter `async with carillon.connect(tasks):` first" in str(cause)


async def test_a_task_can_be_called_like_the_function_that_it_is():
    assert print_order(OrderPlaced(order="o1")) == OrderPacked(order="o1")


async def test_in_process_tasks_are_validated_and_injected_as_in_a_worker():
    domain = InProcess(tasks, {Press: Press()})

    returned = await domain.run(bind_book, **LEAST, due=NOON, colour=Colour.RED)
    packed = await domain.run(print_order, event=OrderPlaced(order="o1"))

    assert (returned["due"], returned["colour"]) == (NOON, Colour.RED)
    assert domain.said == [packed]
    with pytest.raises(InvalidArgumentsError):
        await domain.run(bind_book, title="Bells", pages="3")


@pytest.mark.real("services that open their own platform")
async def test_a_service_refuses_a_task_without_a_docstring(platform):
    lone = Tasks("lone")

    @lone.task()
    async def work() -> None: ...

    service = Service(name="lone", settings=platform.settings, tasks=lone)

    with pytest.raises(ConfigurationError, match=r"lone.work has no docstring; say in it .* safe to run twice"):
        await service.run()
