"""The envelope of events: every mode that is read, every refusal with its sentence, and a foreign implementation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import orjson
import pytest
from cloudevents.core.bindings import amqp, http
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from shop import OrderPlaced

from carillon.cloudevents import (
    AMQP_PREFIXES,
    BATCH,
    HTTP_PREFIXES,
    MOST_BYTES,
    STRUCTURED,
    Envelope,
    UnreadableEventError,
    from_ledger,
    parse,
)

LEAST = {"specversion": "1.0", "id": "1", "source": "/customers", "type": "shop.order_placed.v1"}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

#: What PostgreSQL and a terminal can show: no controls, no lone surrogates.
words = st.text(st.characters(exclude_categories=("C", "Zl", "Zp", "Zs")), min_size=1, max_size=80)
integers = st.integers(-(2**53), 2**53)
data = st.dictionaries(
    words,
    st.recursive(
        st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | words,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
envelopes = st.builds(
    Envelope,
    id=words,
    source=words,
    type=st.from_regex(r"[a-z][a-z0-9_-]{0,9}(\.[a-z0-9_-]{1,9}){1,3}\.v[0-9]{1,3}", fullmatch=True),
    subject=st.none() | words,
    time=moments,
    traceparent=st.none() | st.just(TRACEPARENT),
    data=data,
)


def read(body: bytes, content_type: str = STRUCTURED, headers: dict[str, object] | None = None, prefixes=HTTP_PREFIXES):
    return parse(body, content_type, headers or {}, prefixes)


def event(**attributes: object) -> bytes:
    return orjson.dumps({**LEAST, **attributes})


@settings(max_examples=150, deadline=None)
@given(envelopes)
def test_what_is_written_in_the_structured_mode_is_read_back(envelope):
    (again,) = read(envelope.structured())

    assert again == envelope
    assert again.key == envelope.key


@settings(max_examples=100, deadline=None)
@given(envelopes)
def test_what_is_written_as_percent_encoded_http_headers_is_read_back(envelope):
    attributes = envelope.model_dump(mode="json", exclude={"data", "datacontenttype"}, exclude_none=True)
    headers = {f"CE-{name}": quote(value, safe="") for name, value in attributes.items()}

    (again,) = read(orjson.dumps(envelope.data), "application/json; charset=utf-8", headers)

    assert again.model_copy(update={"datacontenttype": "application/json"}) == envelope


@settings(max_examples=50, deadline=None)
@given(envelopes)
def test_what_goes_through_the_ledger_comes_back(envelope):
    assert from_ledger(envelope.new_event(actor="test")).model_dump() == envelope.model_dump()


@settings(max_examples=50, deadline=None)
@given(envelopes)
def test_the_foreign_implementation_reads_what_we_write(envelope):
    theirs = http.from_structured_event(http.HTTPMessage({"content-type": STRUCTURED}, envelope.structured()))

    assert (theirs.get_id(), theirs.get_source(), theirs.get_type()) == (envelope.id, envelope.source, envelope.type)
    assert (theirs.get_subject(), theirs.get_time()) == (envelope.subject, envelope.time)
    assert theirs.get_data() == envelope.data


@pytest.mark.parametrize("binding", [http, amqp])
@pytest.mark.parametrize("mode", ["to_binary_event", "to_structured_event"])
def test_we_read_what_the_foreign_implementation_writes(binding, mode):
    theirs = CloudEvent(
        {
            **LEAST,
            "subject": "größe 100%",
            "time": datetime(2026, 1, 1, tzinfo=UTC),
            "datacontenttype": "application/json",
            "extension": "kept by nobody",
        },
        {"order": "o1"},
    )
    message = getattr(binding, mode)(theirs)
    is_http = binding is http
    headers = message.headers if is_http else message.application_properties
    content_type = message.headers["content-type"] if is_http else message.properties["content-type"]

    (envelope,) = parse(
        message.body if is_http else message.application_data,
        content_type,
        headers,
        HTTP_PREFIXES if is_http else AMQP_PREFIXES,
    )

    assert (envelope.id, envelope.source, envelope.subject) == ("1", "/customers", "größe 100%")
    assert (envelope.time, envelope.data) == (theirs.get_time(), {"order": "o1"})


@pytest.mark.parametrize("prefix", AMQP_PREFIXES)
def test_amqp_application_properties_are_attributes_and_are_not_percent_decoded(prefix):
    headers = {f"{prefix}{name}": value for name, value in LEAST.items()} | {
        f"{prefix}id": b"100%25",
        f"{prefix}traceparent": TRACEPARENT,
        "x-death": [{"count": 1}],
    }

    (envelope,) = read(b'{"order": "o1"}', "application/json", headers, AMQP_PREFIXES)

    assert (envelope.id, envelope.traceparent) == ("100%25", TRACEPARENT)


def test_binary_mode_without_a_body_is_an_event_without_data():
    (envelope,) = read(b"", "", {f"ce-{name}": value for name, value in LEAST.items()})

    assert envelope.data == {}


def test_a_batch_is_read_in_its_order():
    batch = b"[" + event(id="1") + b"," + event(id="2") + b"]"

    assert [envelope.id for envelope in read(batch, f"{BATCH}; charset=utf-8")] == ["1", "2"]


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (b"", STRUCTURED, "the body is not JSON"),
        (b"{", STRUCTURED, "the body is not JSON"),
        (b"\x80\x04\x95", STRUCTURED, "the body is not JSON"),
        (b"[]", BATCH, "a batch is a JSON array of 1 to 500 events"),
        (b"{}", BATCH, "a batch is a JSON array of 1 to 500 events"),
        (b"[" + b",".join([event()] * 501) + b"]", BATCH, "a batch is a JSON array of 1 to 500 events"),
        (event(), "application/json", f"send {STRUCTURED}, {BATCH}, or the event's attributes as headers"),
        (event(data={"x": "a" * MOST_BYTES}), STRUCTURED, "keep the data in storage and send its key"),
        (b"3", STRUCTURED, "event: Input should be"),
        (b"null", STRUCTURED, "event: Input should be"),
        (b'{"id": "1"}', STRUCTURED, "specversion is missing; CloudEvents need specversion 1.0"),
        (event(specversion="0.3"), STRUCTURED, "specversion: Input should be '1.0'"),
        (event(id=""), STRUCTURED, "id: String should have at least 1 character"),
        (event(id="a" * 257), STRUCTURED, "id: String should have at most 256 characters"),
        (event(id=7), STRUCTURED, "id: Input should be a valid string"),
        (event(id="a\x1b[31m"), STRUCTURED, "id: Value error, has characters that cannot be printed"),
        (event(source=None), STRUCTURED, "source: Input should be a valid string"),
        (event(subject=""), STRUCTURED, "subject: String should have at least 1 character"),
        (event(type="shop.#"), STRUCTURED, "type: String should match pattern"),
        (event(type="*"), STRUCTURED, "type: String should match pattern"),
        (event(type="a..b.v1"), STRUCTURED, "type: String should match pattern"),
        (event(type="shop.order placed.v1"), STRUCTURED, "type: String should match pattern"),
        (event(type="shop.order_placed.v1\n"), STRUCTURED, "type: String should match pattern"),
        (event(type="shop." + "a" * 300 + ".v1"), STRUCTURED, "type: String should have at most 128 characters"),
        (event(time="2026-01-01T00:00:00"), STRUCTURED, "time: Input should have timezone info"),
        (event(time="yesterday"), STRUCTURED, "time: Input should be a valid datetime"),
        (event(time="2099-01-01T00:00:00Z"), STRUCTURED, "time: Value error, lies in the future"),
        (
            event(datacontenttype="application/xml"),
            STRUCTURED,
            "datacontenttype: Value error, must be application/json",
        ),
        (event(traceparent="00-1-2-3"), STRUCTURED, "traceparent: String should match pattern"),
        (event(data=[1]), STRUCTURED, "data: Input should be a valid dictionary"),
        (event(data="text"), STRUCTURED, "data: Input should be a valid dictionary"),
        (event(data_base64="eA=="), STRUCTURED, "data_base64 is not taken; send JSON in `data`"),
        (event(data={"a": "\x00"}), STRUCTURED, "data: holds the character NUL, which PostgreSQL cannot keep"),
        (event(data={"\x00": 1}), STRUCTURED, "data: holds the character NUL, which PostgreSQL cannot keep"),
    ],
)
def test_what_is_no_event_is_refused_with_a_sentence(body, content_type, says):
    with pytest.raises(UnreadableEventError) as refused:
        read(body, content_type)

    assert says in str(refused.value)


def test_a_refusal_names_at_most_five_faults_and_repeats_no_value():
    with pytest.raises(UnreadableEventError) as refused:
        read(b'{"specversion": "2", "id": "", "type": "secret", "time": "secret", "data": 1, "traceparent": "secret"}')

    assert str(refused.value).count(";") == 4
    assert "secret" not in str(refused.value)


def test_binary_mode_refuses_a_body_that_is_not_json():
    headers = {f"ce-{name}": value for name, value in LEAST.items()}

    with pytest.raises(UnreadableEventError, match="the body is not JSON"):
        read(b"<xml/>", "application/json", headers)
    with pytest.raises(UnreadableEventError, match="datacontenttype"):
        read(b"{}", "text/plain", headers)


def test_a_clock_that_is_minutes_ahead_is_forgiven():
    ahead = datetime.now(UTC) + timedelta(minutes=4)

    (envelope,) = read(event(time=ahead.isoformat()))

    assert envelope.time == ahead


def test_source_and_id_together_name_an_event():
    one, other = (Envelope.of(OrderPlaced(order="o"), source=s, id=i) for s, i in [("/a", "b1"), ("/ab", "1")])
    same = Envelope.of(OrderPlaced(order="another"), source="/a", id="b1")

    assert one.key != other.key
    assert one.key == same.key


def test_a_contract_brings_its_type_and_its_subject():
    envelope = Envelope.of(OrderPlaced(order="o7"), source="/customers")

    assert (envelope.type, envelope.subject, envelope.data) == ("shop.order_placed.v1", "o7", {"order": "o7"})
