"""The state of one attempt, as middlewares see it."""

from __future__ import annotations

import pytest
from taskiq import TaskiqResult

from carillon.worker.execution import RunMessage, assembled

MESSAGE = {
    "task_id": "1", "task_name": "shop.add", "labels": {"a": "b"}, "labels_types": None, "args": [],
    "kwargs": {"a": 1}, "execution": None,
}  # fmt: skip
RESULT = {"is_err": False, "log": None, "return_value": 3, "execution_time": 0.1, "labels": {}, "error": None}


@pytest.mark.parametrize(("model", "fields"), [(RunMessage, MESSAGE), (TaskiqResult, RESULT)])
def test_what_is_assembled_is_what_pydantic_constructs(model, fields):
    made, reference = assembled(model, **fields), model.model_construct(**fields)

    assert set(model.model_fields) == set(fields)
    assert made == reference
    assert made.model_dump() == reference.model_dump()
    assert made.model_copy(update={"labels": {}}) == reference.model_copy(update={"labels": {}})
    assert made.model_fields_set == reference.model_fields_set
