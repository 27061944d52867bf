"""Bodies of the Open Inference Protocol are read as Triton's own client writes them, and refused in words otherwise."""

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from export.bundle import TensorSpec
from server.errors import InvalidParameter, RequestError, Unparsable
from server.tensors import Inference, read, write

LATENT = 3
INPUTS = (
    TensorSpec(name="z", dtype="float32", shape=("N", LATENT)),
    TensorSpec(name="label", dtype="int64", shape=("N",)),
)
OUTPUTS = (
    TensorSpec(name="image", dtype="uint8", shape=("N", 2, 2, 1)),
    TensorSpec(name="check", dtype="float32", shape=("N",)),
)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
COUNTS = st.integers(1, 4)


def understood(body: bytes, length: int | None = None) -> Inference:
    return read(body, length, INPUTS, OUTPUTS)


def sent(**head: Any) -> bytes:
    return json.dumps(head).encode()


def tensor(name: str = "z", shape: Any = (1, LATENT), datatype: Any = "FP32", **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype} | (more or {"data": [1.5] * LATENT})


def by_client(array: np.ndarray, name: str, datatype: str, binary: bool) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


# what is meant is understood


@given(st.data(), COUNTS, st.booleans(), st.booleans(), st.booleans())
def test_what_tritons_client_writes_is_read_bit_for_bit(
    data: st.DataObject, count: int, binary: bool, column: bool, binary_label: bool
) -> None:
    z = data.draw(arrays.arrays(np.float32, (count, LATENT), elements=FINITE))
    label = data.draw(arrays.arrays(np.int64, (count, 1) if column else (count,)))
    tensors = [by_client(z, "z", "FP32", binary), by_client(label, "label", "INT64", binary_label)]
    wanted = [triton.InferRequestedOutput("image", binary_data=binary)]
    body, length = triton.InferenceServerClient.generate_request_body(tensors, request_id="me", outputs=wanted)
    found = understood(body, length)
    assert (found.id, found.outputs) == ("me", {"image": binary})
    assert found.inputs["z"].tobytes() == z.tobytes()  # the sign of a zero, too
    assert found.inputs["z"].shape == (count, LATENT)
    assert found.inputs["label"].tolist() == label.ravel().tolist()
    assert (found.inputs["z"].dtype, found.inputs["label"].dtype) == (np.float32, np.int64)


@given(arrays.arrays(np.float32, (2, LATENT), elements=FINITE))
def test_data_may_be_nested_or_flat(z: np.ndarray) -> None:
    for data in (z.tolist(), z.ravel().tolist(), [[[row] for row in z.tolist()]]):
        assert np.array_equal(understood(sent(inputs=[tensor(shape=[2, LATENT], data=data)])).inputs["z"], z)


def test_integers_are_numbers() -> None:
    assert understood(sent(inputs=[tensor(data=[1, -2, 0])])).inputs["z"].tolist() == [[1, -2, 0]]


@pytest.mark.parametrize(
    ("head", "outputs"),
    [
        ({}, {"image": False, "check": False}),
        ({"outputs": []}, {"image": False, "check": False}),
        ({"parameters": {"binary_data_output": True}}, {"image": True, "check": True}),
        ({"outputs": [{"name": "check"}]}, {"check": False}),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "image", "parameters": {"binary_data": False}}, {"name": "check"}],
            },
            {"image": False, "check": True},
        ),
    ],
)
def test_outputs_are_those_that_are_wanted_in_the_form_that_is_wanted(
    head: dict[str, Any], outputs: dict[str, bool]
) -> None:
    assert understood(sent(**head)).outputs == outputs


def test_what_the_protocol_may_add_one_day_is_no_fault() -> None:
    assert understood(sent(model_name="digits", inputs=[tensor() | {"layout": "row"}])).inputs["z"].shape == (1, LATENT)


def test_a_header_of_no_bytes_means_that_the_body_is_the_only_input() -> None:
    z = np.arange(2 * LATENT, dtype="<f4").reshape(2, LATENT)
    found = read(z.tobytes(), 0, INPUTS[:1], OUTPUTS)
    assert np.array_equal(found.inputs["z"], z)
    assert found.outputs == {"image": True, "check": True}
    for body in (b"", z.tobytes()[:-1], b"\x00\x00\x80\x7f" * LATENT):
        with pytest.raises(InvalidParameter, match="'z'"):
            read(body, 0, INPUTS[:1], OUTPUTS)
    with pytest.raises(Unparsable, match="inputs z, label"):
        understood(z.tobytes(), 0)


# what is not is refused, in words


@given(st.binary(max_size=200), st.none() | st.integers(0, 300))
def test_no_bytes_are_more_than_a_refusal(body: bytes, length: int | None) -> None:
    with suppress(Unparsable, InvalidParameter):
        understood(body, length)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=3), some, max_size=3),
    max_leaves=5,
)
PLACES = (
    ("id",), ("parameters",), ("parameters", "binary_data_output"), ("inputs",), ("inputs", 0), ("inputs", 0, "name"),
    ("inputs", 0, "shape"), ("inputs", 0, "shape", 0), ("inputs", 0, "datatype"), ("inputs", 0, "data"),
    ("inputs", 0, "data", 0), ("inputs", 0, "parameters"), ("inputs", 1, "parameters", "binary_data_size"),
    ("outputs",), ("outputs", 0), ("outputs", 0, "name"), ("outputs", 0, "parameters"),
    ("outputs", 0, "parameters", "binary_data"),
)  # fmt: skip


@given(st.sampled_from(PLACES), ANYTHING, st.binary(max_size=20))
def test_no_value_in_any_place_is_more_than_a_refusal(place: tuple[Any, ...], value: Any, behind: bytes) -> None:
    head: Any = {
        "id": "me",
        "parameters": {"binary_data_output": True},
        "inputs": [
            tensor(shape=[1, LATENT], data=[1, 2, 3]),
            tensor("label", [1], "INT64", parameters={"binary_data_size": 8}),
        ],
        "outputs": [{"name": "image", "parameters": {"binary_data": True}}],
    }
    inside = head
    for step in place[:-1]:
        inside = inside.setdefault(step, {}) if isinstance(inside, dict) else inside[step]
    inside[place[-1]] = value
    text = json.dumps(head).encode()
    with suppress(Unparsable, InvalidParameter):
        understood(text + behind, len(text))


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (tensor("noise"), "'noise' is no input of this model. Allowed: z, label"),
        (tensor(datatype="FP64"), "'z' has datatype FP64. Allowed: FP32"),
        (tensor("label", [1], "INT32", data=[1]), "'label' has datatype INT32. Allowed: INT64"),
        (tensor(shape=[]), "'z' has shape []. Allowed: [N, 3] of N from 1"),
        (tensor(shape=[3]), "'z' has shape [3]"),
        (tensor(shape=[0, LATENT], data=[]), "'z' has shape [0, 3]"),
        (tensor(shape=[1, LATENT, 1]), "'z' has shape [1, 3, 1]"),
        (tensor("label", [1, 2], "INT64", data=[1, 2]), "'label' has shape [1, 2]. Allowed: [N] or [N, 1]"),
        (tensor(shape=[-1, LATENT]), "inputs.0.shape.0 of 'z'"),
        (tensor(shape=[1.0, LATENT]), "inputs.0.shape.0 of 'z'"),
        (tensor(shape="1"), "inputs.0.shape of 'z'"),
        (tensor(shape=[2, LATENT]), "'z' has 3 values, its shape takes 6"),
        (tensor(shape=[2**62, LATENT]), "'z' has 3 values"),
        (tensor(data=[1, 2, "3"]), "'z' holds what are no numbers"),
        (tensor(data=[1, 2, True]), "'z' holds what are no numbers"),
        (tensor(data=[1, 2, None]), "'z' holds what are no numbers"),
        (tensor(data=[[1, 2], 3]), "'z' holds what are no numbers"),
        (tensor(data=[1, 2, {}]), "'z' holds what are no numbers"),
        (tensor(data=[0, float("nan"), 0]), "'z' holds a value that is not finite, at 1 of 3"),
        (tensor(data=[0, 0, float("-inf")]), "'z' holds a value that is not finite, at 2 of 3"),
        (tensor(data=[1e39, 0, 0]), "'z' holds a value that is not finite, at 0 of 3"),
        (tensor(data=[10**400, 0, 0]), "'z' holds a value beyond float32"),
        (tensor("label", [1], "INT64", data=[1.0]), "'label' holds what are no integers"),
        (tensor("label", [1], "INT64", data=[2**63]), "'label' holds a value beyond int64"),
        (tensor(parameters={}), "'z' has no data"),
        (tensor(data=[1, 2, 3], parameters={"binary_data_size": 12}), "'z' has both data and binary_data_size"),
        (tensor(parameters={"binary_data_size": 8}), "'z' has binary_data_size 8, and its shape takes 12 bytes"),
        (tensor(parameters={"binary_data_size": True}), "'z' has binary_data_size true"),
        (tensor(parameters={"shared_memory_region": "x"}), "'z': parameter 'shared_memory_region' is not served"),
        (tensor(data=[1, 2, 3], parameters={"layout": 1}), "'z': parameter 'layout' is unknown"),
    ],
)
def test_a_tensor_that_is_wrong_is_named(given: dict[str, Any], what: str) -> None:
    with pytest.raises(RequestError) as refused:
        understood(sent(inputs=[given]))
    assert what in str(refused.value)
    assert refused.value.status in (400, 422)


def test_a_tensor_is_given_once() -> None:
    with pytest.raises(InvalidParameter, match="'z' is given twice"):
        understood(sent(inputs=[tensor(), tensor()]))


@pytest.mark.parametrize(
    ("outputs", "what"),
    [
        ([{"name": "logits"}], "'logits' is no output that is served. Allowed: image, check"),
        ([{"name": "image"}, {"name": "image"}], "'image' is asked for twice"),
        ([{"name": "image", "parameters": {"binary_data": 1}}], "binary_data=1 is not allowed"),
        ([{"name": "image", "parameters": {"classification": 3}}], "'image': parameter 'classification' is not served"),
    ],
)
def test_an_output_that_is_wrong_is_named(outputs: list[Any], what: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        understood(sent(outputs=outputs))
    assert what in str(refused.value)


@pytest.mark.parametrize("bytes_behind", [0, 11, 13])
def test_bytes_that_are_too_few_or_too_many_are_counted(bytes_behind: int) -> None:
    head = sent(inputs=[tensor(parameters={"binary_data_size": 12})])
    what = "1 bytes follow the last" if bytes_behind > 12 else f"'z' is cut short: {bytes_behind} of its 12 bytes"
    with pytest.raises(RequestError, match=what):
        understood(head + b"\0" * bytes_behind, len(head))


def test_a_header_longer_than_the_body_is_told_with_both_lengths() -> None:
    with pytest.raises(Unparsable, match=r"Inference-Header-Content-Length is 3, and the body has 2 bytes"):
        understood(b"{}", 3)


def test_a_value_that_is_refused_is_shown_in_part() -> None:
    for head in (
        {"inputs": [tensor("z" * 9000)]},
        {"inputs": [tensor(datatype="F" * 9000)]},
        {"outputs": [{"name": "i" * 9000}]},
    ):
        with pytest.raises(RequestError) as refused:
            understood(sent(**head))
        assert len(str(refused.value)) < 500


# what is answered


@given(
    arrays.arrays(np.uint8, st.tuples(COUNTS, COUNTS, COUNTS, st.sampled_from((1, 3)))),
    arrays.arrays(np.float32, COUNTS, elements=FINITE),
    st.booleans(),
    st.booleans(),
)
def test_what_is_written_is_read_by_tritons_client_bit_for_bit(
    image: np.ndarray, check: np.ndarray, binary_image: bool, binary_check: bool
) -> None:
    body, length = write({"id": "ü"}, [("image", image, binary_image), ("check", check, binary_check)])
    assert (length is None) == (not binary_image and not binary_check)
    found = triton.InferResult.from_response_body(body, header_length=length)
    assert found.get_response()["id"] == "ü"
    for name, array in (("image", image), ("check", check)):
        there = found.as_numpy(name)
        assert there is not None
        assert (there.dtype, there.shape, there.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_every_level_is_written_as_json_numbers() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    body, length = write({}, [("image", levels, False)])
    assert length is None
    assert json.loads(body)["outputs"] == [
        {"name": "image", "datatype": "UINT8", "shape": [1, 16, 16, 1], "data": list(range(256))}
    ]
