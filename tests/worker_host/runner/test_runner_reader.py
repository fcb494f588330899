"""HTTP framing without a socket: how the bytes are cut never matters."""

from __future__ import annotations

import ast
import contextlib
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore.worker_host.runners import runner
from longshore.worker_host.runners.runner import Reader, Refused

_bodies = st.binary(max_size=60)


def _sized(body):
    return b"POST /a?b=c HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def _chunked(body, size):
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x;ext\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%s0\r\nTrailer: x\r\n\r\n" % chunks


_messages = st.lists(
    st.one_of(
        _bodies.map(lambda body: (body, _sized(body))),
        st.tuples(_bodies, st.integers(1, 20)).map(lambda pair: (pair[0], _chunked(*pair))),
    ),
    max_size=5,
)


def _read(reader, pieces):
    requests = []
    for piece in pieces:
        reader.feed(piece)
        while (request := reader.next()) is not None:
            requests.append(request)
    return requests


@given(_messages, st.lists(st.integers(0, 2000), max_size=30))
def test_requests_are_the_same_however_the_bytes_arrive(messages, cuts):
    """Any split of any pipeline gives the same requests."""
    stream = b"".join(wire for _, wire in messages)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    requests = _read(Reader(max_body=1000), pieces)
    assert [request.body for request in requests] == [body for body, _ in messages]
    assert {(request.method, request.path, request.close) for request in requests} <= {("POST", "/a", False)}


@given(_bodies, st.integers(1, 20), st.integers(0, 60))
def test_the_limit_is_exact_in_both_framings(body, size, limit):
    """A body of exactly the limit is given, one byte more is thrown away, and the next request is read."""
    for wire in (_sized(body), _chunked(body, size)):
        first, second = _read(Reader(limit), [wire, _sized(b"")])
        assert first.body == (body if len(body) <= limit else None)
        assert second.body == b""


@given(st.binary(max_size=300))
def test_garbage_is_refused_and_never_crashes(data):
    """Arbitrary bytes give requests, silence, or a refusal; no other exception leaves."""
    with contextlib.suppress(Refused):
        _read(Reader(100), [data])


def test_fields_that_repeat_are_joined_and_lengths_must_agree():
    """Two equal lengths are one; two different ones are how requests are smuggled."""
    same = b"POST / HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok"
    assert _read(Reader(10), [same])[0].body == b"ok"
    with pytest.raises(Refused):
        _read(Reader(10), [same.replace(b": 2\r\n\r\n", b": 3\r\n\r\n")])


def test_the_file_is_valid_on_the_oldest_python():
    """It runs on the model's interpreter, which may be 3.8."""
    ast.parse(Path(runner.__file__).read_text(), feature_version=(3, 8))
