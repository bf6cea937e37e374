"""Bad inputs: each is refused with a problem, and nothing is enqueued."""

from __future__ import annotations

import gzip
import json
import pickle
import re

import pytest

SUBMIT = "/api/v1/tasks"
BATCH = "/api/v1/tasks/batch"
GOOD = {"task": "bells.ring", "args": {"times": 1}}
LIMIT = 256 * 1024
BATCH_LIMIT = 4 * 1024 * 1024


def ring(**more):
    return GOOD | more


def args(**more):
    return {"task": "bells.ring", "args": {"times": 1} | more}


def text(body: str) -> bytes:
    return body.encode()


BODIES = {
    "empty body": (b"", 400),
    "not JSON": (b"hello", 400),
    "an array": (b"[]", 422),
    "a string": (b'"x"', 422),
    "null": (b"null", 422),
    "a number": (b"7", 422),
    "truncated": (b'{"task": "bells.ring", "args": {"times"', 400),
    "duplicate names": (b'{"task": "bells.ring", "task": "bells.crack", "args": {"times": 1}}', 400),
    "duplicate names within": (b'{"task": "bells.ring", "args": {"times": 1, "times": 2}}', 400),
    "NaN": (b'{"task": "bells.ring", "args": {"times": NaN}}', 422),
    "Infinity": (b'{"task": "bells.ring", "args": {"times": Infinity}}', 422),
    "-Infinity": (b'{"task": "bells.ring", "args": {"times": -Infinity}}', 422),
    "1e400": (b'{"task": "bells.ring", "args": {"times": 1e400}}', 422),
    "10^400": (text('{"task": "bells.ring", "args": {"times": 1' + "0" * 400 + "}}"), 422),
    "10^5000": (text('{"task": "bells.ring", "args": {"times": 1' + "0" * 5000 + "}}"), 422),
    "2^63": (text('{"task": "bells.ring", "args": {"times": 9223372036854775808}}'), 422),
    "2^53": (text('{"task": "bells.ring", "args": {"times": 9007199254740992}}'), 422),
    "10,000 deep arrays": (b'{"task": "bells.ring", "args": {"times": ' + b"[" * 10_000 + b"]" * 10_000 + b"}}", 400),
    "10,000 deep objects": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 400),
    "65 deep in an open field": (
        b'{"task": "bells.ring", "args": {"times": 1, "words": ' + b'{"a":' * 65 + b"1" + b"}" * 65 + b"}}",
        400,
    ),
    "20,001 names": (json.dumps({f"k{n}": 1 for n in range(20_001)}).encode(), 422),
    "100,001 names": (json.dumps({f"k{n}": 1 for n in range(100_001)}).encode(), 413),
    "5 MB": (json.dumps(args(words={"a": "x" * 5_000_000})).encode(), 413),
    "one byte too many": (json.dumps(GOOD).encode().ljust(LIMIT + 1), 413),
    "invalid UTF-8": (b'{"task": "bells.ring\xff"}', 400),
    "a lone surrogate": (rb'{"task": "bells.ring", "args": {"times": 1, "words": {"a": "\ud800"}}}', 400),
    "a byte order mark": (b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), 400),
    "UTF-16": (json.dumps(GOOD).encode("utf-16"), 400),
    "NUL in an argument": (rb'{"task": "bells.ring", "args": {"times": 1, "words": {"a": "\u0000"}}}', 422),
    "NUL in a name": (rb'{"task": "bells.ring", "args": {"times": 1, "words": {"\u0000": 1}}}', 422),
    "NUL in the task": (rb'{"task": "bells.ring\u0000", "args": {"times": 1}}', 422),
    "NUL in a label": (rb'{"task": "bells.ring", "args": {"times": 1}, "labels": {"a": "\u0000"}}', 422),
    "a raw NUL": (b'{"task": "bells.ring\x00"}', 400),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_cannot_be_one_is_refused(gateway, name):
    body, status = BODIES[name]
    before = gateway.recorded()

    answer = gateway.post(SUBMIT, body)

    assert_problem(answer, status)
    assert gateway.recorded() == before


REQUESTS = {
    "right to left": ring(task="bells.\u202egnir"),
    "zero width": ring(task="bells.ri\u200bng"),
    "homoglyph": ring(task="b\u0435lls.ring"),
    "escape": ring(task="\x1b[31mbells.ring"),
    "a second line": ring(task="bells.ring\n"),
    "no task": {"args": {"times": 1}},
    "unknown task": ring(task="bells.unknown"),
    "a path": ring(task="../x"),
    "code": ring(task="__import__('os').system"),
    "a module": ring(task="os:system"),
    "10 KB of name": ring(task="a." + "x" * 10_000),
    "an event handler": {"task": "bells.ring_on_request", "args": {"event": {"bell": "x"}}},
    "an extra field": ring(extra=1),
    "an extra argument": args(extra=1),
    "a missing argument": {"task": "bells.ring", "args": {}},
    "no arguments": {"task": "bells.ring"},
    "a string for an integer": args(times="1"),
    "a bool for an integer": args(times=True),
    "a fraction for an integer": args(times=1.5),
    "an integer for a bool": args(loud=1),
    "a list for an object": args(words=[]),
    "a list of arguments": ring(args=[1]),
    "args and kwargs": ring(kwargs={"times": 1}),
    "args twice over": ring(data={"times": 1}),
    **{f"the argument {name}": args(**{name: 1}) for name in ("self", "context", "__class__", "run")},
    **{
        f"the field {name}": ring(**{name: value})
        for name, value in {
            "task_id": "0198f0c1-0000-7000-8000-000000000000", "id": "x", "tenant": "other", "queue": "q",
            "queue_name": "q", "routing_key": "#", "exchange": "e", "ack_type": "manual", "timeout": -1,
            "max_retries": 10**9, "_retries": 0, "retry_on_error": True, "x_delay": 1, "schedule": "* * * * *",
            "reply_to": "q", "correlation_id": "c", "headers": {}, "eta": "2026-01-01T00:00:00Z",
        }.items()
    },
    **{
        f"the label {name}": ring(labels={name: "x"})
        for name in (
            "CC", "BCC", "cc", "bcc", "x-death", "x-delay", "traceparent", "task_id", "_retries", "a\n", "a b", "",
        )
    },
    "labels as a list": ring(labels=["a"]),
    "a label that is a number": ring(labels={"a": 1}),
    "a label with a line break": ring(labels={"a": "b\r\nc: d"}),
    "21 labels": ring(labels={f"l{n}": "x" for n in range(21)}),
    "a long label": ring(labels={"a": "x" * 201}),
    **{f"the priority {value}": ring(priority=value) for value in (255, -1, "first", True, 1.5, None)},
    **{f"the delay {value}": ring(delay=value) for value in (-1, 10**12, "1", True, None, [1])},
    **{
        f"run_at {value}": ring(run_at=value)
        for value in (
            "9999-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "2026-12-01T00:00:00", "2026-02-30T00:00:00Z",
            "2026-12-31T23:59:60Z", "2026-12-01T00:00:00 Mars/Base", "2026-12-01T00:00:00[Mars/Base]", "tomorrow", "",
            1_800_000_000, "2026-12-01T00:00:00Z\n", "2026-12-01T25:00:00Z", "2026-12-01T00:00:00+99:99",
        )
    },
    "delay and run_at": ring(delay=1, run_at="2026-12-01T00:00:00Z"),
    "expiry in the past": ring(expires_at="2020-01-01T00:00:00Z"),
    "expiry before the start": ring(delay=3600, expires_at="2026-11-24T00:00:00Z"),
    "expires_in and expires_at": ring(expires_in=1, expires_at="2026-12-01T00:00:00Z"),
    "deadline and deadline_at": ring(deadline=1, deadline_at="2026-12-01T00:00:00Z"),
    "deadline before the start": ring(delay=3600, deadline=60),
    "deadline in the past": ring(deadline_at="2020-01-01T00:00:00Z"),
    **{f"the deadline {value}": ring(deadline=value) for value in (-1, 10**12, "1", True, None)},
    **{f"expires_in {value}": ring(expires_in=value) for value in (-1, 10**12, "1", True, None)},
    **{f"the key {value!r}": ring(idempotency_key=value) for value in ("", "x" * 256, "a\tb", "a\x7f", 7, None)},
    **{
        f"the callback {value}": ring(callback_url=value)
        for value in (
            "", "example.org", "ftp://example.org", "file:///etc/passwd", "javascript:alert(1)", "http://", "https:///x",
            "http://user:word@example.org", "http://example.org/a b", "http://example.org/\r\nX: y", "http://exämple.org",
            "http://example.org:0/", "http://example.org:65536", "http://example.org:/",
            "https://example.org\n", "http://[", 7, None, "https://example.org/" + "x" * 2000,
        )
    },
    **{
        f"unique {value}": ring(unique=value)
        for value in (
            None, True, "key", [], {"key": ""}, {"key": "x" * 256}, {"key": "a\nb"}, {"key": 7}, {"until": "never"},
            {"window": -1}, {"window": "60"}, {"on_conflict": "explode"}, {"replace": True}, {"key": None},
        )
    },
    **{
        f"after {value}": ring(after=value)
        for value in (
            None, [], {}, {"runs": []}, {"runs": "x"}, {"runs": ["x"]}, {"runs": [7]}, {"runs": [None]},
            {"runs": ["00000000-0000-0000-0000-000000000000"] * 1_001},
            {"runs": ["{0198f0c1-0000-7000-8000-000000000000}"]},
            {"runs": ["0198f0c1-0000-7000-8000-000000000000"], "when": "some"},
            {"runs": ["0198f0c1-0000-7000-8000-000000000000"], "otherwise": "wait"},
            {"runs": ["0198f0c1-0000-7000-8000-000000000000"], "delay": -1},
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_that_does_not_fit_is_refused_and_says_where(gateway, name):
    before = gateway.recorded()

    answer = gateway.post(SUBMIT, REQUESTS[name])

    assert_problem(answer, 422)
    assert answer.json()["errors"][0].keys() == {"pointer", "detail"}
    assert gateway.recorded() == before


@pytest.mark.parametrize("name", REQUESTS)
def test_one_run_that_does_not_fit_refuses_all_and_says_where(gateway, name):
    before = gateway.recorded()

    answer = gateway.post(BATCH, {"tasks": [GOOD, REQUESTS[name], GOOD]})

    assert_problem(answer, 422)
    assert all(error["pointer"].startswith("/tasks/1") for error in answer.json()["errors"])
    assert gateway.recorded() == before


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_batch_is_refused(gateway, name):
    body, status = BODIES[name]
    before = gateway.recorded()

    answer = gateway.post(BATCH, body)

    # What is too large for a single submit is read here, and is no batch.
    assert_problem(answer, 422 if status == 413 and len(body) < BATCH_LIMIT else status)
    assert gateway.recorded() == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": ""}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({"Content-Type": "application/x-python-pickle"}, 415),
        ({"Content-Type": "application/json; charset=utf-16"}, 415),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Encoding": "identity, br"}, 415),
        ({"Idempotency-Key": ""}, 422),
        ({"Idempotency-Key": "x" * 256}, 422),
        ({"Idempotency-Key": "a\tb"}, 422),
    ],
)
def test_headers_that_do_not_fit_are_refused(gateway, headers, status):
    before = gateway.recorded()

    answer = gateway.post(SUBMIT, GOOD, **headers)

    assert_problem(answer, status)
    assert gateway.recorded() == before


def test_pickled_and_compressed_bodies_are_not_opened(gateway):
    before = gateway.recorded()

    pickled = gateway.post(SUBMIT, pickle.dumps(GOOD))
    bomb = gateway.post(SUBMIT, gzip.compress(bytes(10_000_000)), **{"Content-Encoding": "gzip"})

    assert_problem(pickled, 400)
    assert_problem(bomb, 415)
    assert gateway.recorded() == before


def test_a_body_just_within_the_limit_is_taken(gateway):
    for size in (LIMIT - 1, LIMIT):
        body = json.dumps(ring(delay=3600)).encode().ljust(size)

        assert gateway.post(SUBMIT, body).status_code == 202


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/v1/tasks/nowhere/kick", {"data": {}}, 404),
        ("/api/v1/tasks/%00/kick", {"data": {}}, 404),
        ("/api/v1/tasks/bells/kick", {"task": "unknown", "data": {}}, 422),
        ("/api/v1/tasks/bells/kick", {"task": "backup.back_up_database", "data": {}}, 422),
        ("/api/v1/tasks/bells/kick", {"task": "write_down", "data": {"event": {"times": 1}}}, 422),
        ("/api/v1/tasks/bells/kick", {"args": {"times": 1}}, 422),
        ("/api/v1/tasks/bells/kick", {"data": {"times": "1"}}, 422),
        ("/api/v1/tasks/bells/kick", {"data": None}, 422),
        ("/api/v1/tasks/bells/kick", b"", 400),
    ],
)
def test_a_kick_that_means_nothing_is_refused(gateway, path, body, status):
    before = gateway.recorded()

    answer = gateway.post(path, body)

    assert_problem(answer, status)
    assert gateway.recorded() == before


HEAD = "POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {key}\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
BODY = json.dumps(GOOD)
RAW = {
    "a key of other bytes": (f"Idempotency-Key: \xff\xfe\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}", 422),
    "a chunked body without end": (CHUNKED + '\r\n5\r\n{"tas\r\n', 408),
    "a body shorter than its length": ("Content-Length: 100\r\n\r\n{}", 408),
    "two lengths": ("Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}", 400),
    "a length and chunks": ("Content-Length: 2\r\nContent-Length: abc\r\n" + CHUNKED + "\r\n2\r\n{}\r\n0\r\n\r\n", 400),
    "a length that is none": ("Content-Length: -1\r\n\r\n{}", 400),
    "a chunk that lies": (CHUNKED + "\r\nzz\r\n{}\r\n0\r\n\r\n", 400),
    "a 100 KB header": ("X-Long: " + "x" * 100_000 + "\r\nContent-Length: 2\r\n\r\n{}", 431),
    "1,000 headers": ("X-Many: x\r\n" * 1_000 + "Content-Length: 2\r\n\r\n{}", 431),
    "two content types": ("Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 415),
}  # fmt: skip


@pytest.mark.parametrize("name", RAW)
def test_what_no_client_would_send_is_refused_in_time(gateway, name):
    rest, status = RAW[name]
    before = gateway.recorded()

    answer = gateway.raw((HEAD.format(key=gateway.key) + rest).encode("latin-1"))

    assert re.match(rb"HTTP/1.1 (\d+)", answer).group(1) == str(status).encode()
    assert gateway.recorded() == before


def test_problems_never_repeat_what_was_sent_at_length(gateway):
    long = "SECRET" * 100

    answers = [
        gateway.post(SUBMIT, args(times=long)),
        gateway.post(SUBMIT, args(**{long: 1})),
        gateway.post(SUBMIT, ring(task=long)),
        gateway.http.get(f"/api/v1/tasks/{long}"),
    ]

    for answer in answers:
        assert "SECRET" * 34 not in answer.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "HEAD"])
def test_methods_that_are_not_offered_are_refused(gateway, method):
    answer = gateway.http.request(method, SUBMIT, headers={**gateway.auth, "X-HTTP-Method-Override": "POST"})

    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]


def assert_problem(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem.keys() >= {"type", "title", "status", "detail", "instance", "request_id"}
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
