"""What a client of a runner sees on the wire."""

from __future__ import annotations

import asyncio
import json

import pytest


async def test_answers_an_inference_with_the_version_that_answered(bench):
    """A conforming document gets 200, JSON and x-model-version."""
    instance = await bench.serve(version="4.5.6")
    async with bench.client(instance) as client:
        response = await client.post("/infer/multiplier", json={"x": 21})
    assert response.status_code == 200
    assert response.json() == {"y": 21, "batch": 1}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-model-version"] == "4.5.6"


async def test_endpoint_paths_reach_the_model_and_other_deployments_do_not(bench):
    """Envoy decides about an endpoint's path; a request for another deployment was routed wrongly."""
    instance = await bench.serve()
    async with bench.client(instance) as client:
        endpoint = await client.post("/v1/multiply?debug=1", json={"x": 2})
        other = await client.post("/infer/somebody-else", json={"x": 2})
        control = await client.get("/-/secrets")
    assert endpoint.status_code == 200
    assert (other.status_code, other.json()["type"]) == (404, "urn:longshore:problem:unknown-deployment")
    assert control.status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b'{"x": 1', 400, "not-json"),
        (b'{"x": NaN}', 400, "not-json"),
        (b'{"x": "\xff"}', 400, "not-json"),
        (b'{"x": "\\ud800"}', 400, "not-json"),
        (b"[" * 100_000, 400, "not-json"),
        (b"", 400, "not-json"),
        (b"{}", 422, "invalid-input"),
        (b"[]", 422, "invalid-input"),
        (b'{"x": 1.5}', 422, "invalid-input"),
    ],
)
async def test_what_is_no_conforming_document_is_a_problem(bench, body, status, kind):
    """Each bad body gets its own problem document, and the connection goes on."""
    instance = await bench.serve()
    async with bench.client(instance) as client:
        bad = await client.post("/infer/multiplier", content=body)
        good = await client.post("/infer/multiplier", json={"x": 1})
    assert bad.status_code == bad.json()["status"] == status
    assert bad.json()["type"] == f"urn:longshore:problem:{kind}"
    assert bad.headers["content-type"] == "application/problem+json"
    assert bad.headers["x-model-version"] == "1.2.3"
    assert good.status_code == 200


async def test_a_breach_of_the_schema_says_where(bench):
    """422 carries the place in the document as a JSON Pointer, escaped."""
    nested = {"type": "object", "properties": {"a/b": {"type": "array", "items": {"type": "string"}}}}
    instance = await bench.serve(card={"interface": {"input_schema": nested}})
    async with bench.client(instance) as client:
        response = await client.post("/infer/multiplier", json={"a/b": ["fine", 7]})
    assert response.status_code == 422
    assert response.json()["path"] == "/a~1b/1"
    assert "not of type" in response.json()["detail"]


async def test_only_post_asks_the_model(bench):
    """Other methods get 405 with Allow; HEAD gets no body, so that the connection stays in step."""
    instance = await bench.serve()
    wire = await bench.connect(instance)
    wire.send(b"GET /infer/multiplier HTTP/1.1\r\n\r\n")
    status, fields, _ = await wire.answer()
    assert (status, fields["allow"]) == (405, "POST")
    wire.send(b"HEAD /infer/multiplier HTTP/1.1\r\n\r\n")
    head = await wire.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    wire.post({"x": 1})
    assert (await wire.answer())[0] == 200
    wire.close()


async def test_chunked_bodies_are_put_together(bench):
    """Chunks, extensions and trailers in pieces of one byte make one document."""
    instance = await bench.serve()
    wire = await bench.connect(instance)
    message = (
        b"POST /infer/multiplier HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
        b'4\r\n{"x"\r\n5;note=1\r\n: 123\r\n1\r\n}\r\n0\r\nx-trailer: 1\r\n\r\n'
    )
    for byte in message:
        wire.send(bytes([byte]))
        await wire.writer.drain()
        await asyncio.sleep(0)
    status, _, document = await wire.answer()
    assert (status, document["y"]) == (200, 123)
    wire.close()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_413_and_costs_no_connection(bench, chunked):
    """What is too large is thrown away as it comes, and the next request is answered on the same connection."""
    instance = await bench.serve()
    wire = await bench.connect(instance)
    size, piece = 17 * 1024 * 1024, b" " * 65536
    wire.send(b"POST /infer/multiplier HTTP/1.1\r\n")
    wire.send(b"transfer-encoding: chunked\r\n\r\n" if chunked else b"content-length: %d\r\n\r\n" % size)
    for _ in range(size // len(piece)):
        wire.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        await wire.writer.drain()
    wire.send(b"0\r\n\r\n" if chunked else b"")
    status, _, problem = await wire.answer()
    assert (status, problem["type"]) == (413, "urn:longshore:problem:too-large")
    wire.post({"x": 5})
    assert (await wire.answer())[0] == 200
    wire.close()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\n\n",
        b"POST / HTTP/1.1\r\ncontent-length: two\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n",
        b"POST / HTTP/1.1\r\nbad header: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\n folded\r\n\r\n",
    ],
)
async def test_lost_framing_is_400_and_ends_the_connection(bench, request_bytes):
    """Where the next request would begin cannot be told any more."""
    instance = await bench.serve()
    wire = await bench.connect(instance)
    wire.send(request_bytes)
    status, fields, problem = await wire.answer()
    assert (status, problem["type"]) == (400, "urn:longshore:problem:malformed-request")
    assert fields["connection"] == "close"
    assert await wire.closed()


async def test_a_head_without_end_is_refused(bench):
    """A head over 64 KiB gets 431 instead of memory."""
    instance = await bench.serve()
    wire = await bench.connect(instance)
    wire.send(b"GET / HTTP/1.1\r\nx: ", b"a" * 70_000)
    assert (await wire.answer())[0] == 431
    assert await wire.closed()


async def test_pipelined_requests_are_answered_in_their_order(bench):
    """Thousands sent at once come back in order, those that fail at once among those that take a while."""
    instance = await bench.serve()
    wire = await bench.connect(instance)
    total = 3000
    for number in range(total):
        wire.post({"x": number} if number % 3 else {"x": None})
    for number in range(total):
        status, _, document = await wire.answer()
        assert (status, document.get("y")) == ((200, number) if number % 3 else (422, None))
    wire.close()


async def test_a_client_that_asks_for_the_end_gets_it_after_its_answer(bench):
    """`connection: close`, HTTP/1.0 and a half-closed connection are the client's own wishes."""
    instance = await bench.serve()
    for start, fields in [(b"HTTP/1.1", b"connection: close\r\n"), (b"HTTP/1.0", b"")]:
        wire = await bench.connect(instance)
        wire.send(b"POST / %s\r\ncontent-length: 8\r\n%s\r\n" % (start, fields), b'{"x": 1}')
        assert (await wire.answer())[0] == 200
        assert await wire.closed()
    wire = await bench.connect(instance)
    wire.post({"x": "wait"})
    wire.writer.write_eof()
    await asyncio.sleep(0.05)
    bench.open_gate(instance)
    assert (await wire.answer())[0] == 200
    assert await wire.closed()


async def test_a_full_queue_says_when_to_come_back(bench):
    """Beyond its bound the runner answers 503 with Retry-After at once, and what it holds it answers."""
    instance = await bench.serve(card={"interface": {"batch_size": 1}})
    config = json.loads(bench.paths.config(instance.instance_id).read_text())
    wires = [await bench.connect(instance) for _ in range(config["max_queue"] + 20)]
    for wire in wires:
        wire.post({"x": "wait"})
    # Which ones are refused is a matter of who came first; that nobody waits in vain is not.
    answers = [asyncio.create_task(wire.answer()) for wire in wires]
    await bench.until(lambda: sum(answer.done() for answer in answers) >= 20)
    refused = [answer.result() for answer in answers if answer.done()]
    assert {status for status, _, _ in refused} == {503}
    assert {fields["retry-after"] for _, fields, _ in refused} == {"1"}
    assert {problem["type"] for _, _, problem in refused} == {"urn:longshore:problem:overloaded"}
    bench.open_gate(instance)
    statuses = [status for status, _, _ in await asyncio.gather(*answers)]
    assert (statuses.count(200), statuses.count(503)) == (config["max_queue"], 20)
    for wire in wires:
        wire.close()


async def test_identity_tells_who_is_there_and_counts_only_envoys_connections(bench):
    """The supervisor's own connection is not among those that a drain waits for."""
    instance = await bench.serve()
    envoy = [await bench.connect(instance) for _ in range(3)]
    envoy[0].post({"x": 1})
    await envoy[0].answer()
    async with bench.client(instance) as client:
        await bench.until(lambda: _connections(client, 3))
        who = (await client.get("/-/identity")).json()
        assert (who["instance_id"], who["digest"]) == (instance.instance_id, instance.digest)
        assert who["version"] == "1.2.3"
        assert who["ready"] is True
        assert who["in_flight"] == 0
        for wire in envoy:
            wire.close()
        await bench.until(lambda: _connections(client, 0))


async def _connections(client, expected):
    return (await client.get("/-/identity")).json()["connections"] == expected


async def test_a_client_that_never_reads_costs_no_memory(bench):
    """Who pipelines for ever and takes no answer is not read any more; others are served."""
    instance = await bench.serve()
    greedy = await bench.connect(instance)
    memory = bench.supervisor.memory_bytes(instance.instance_id)
    request = b"GET /infer/multiplier HTTP/1.1\r\n\r\n" * 20_000

    async def pour():
        for _ in range(200):
            greedy.send(request)
            await greedy.writer.drain()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pour(), 2)
    assert bench.supervisor.memory_bytes(instance.instance_id) < memory + 20_000_000
    assert (await bench.supervisor.infer(instance.instance_id, {"x": 1})).status == 200
    greedy.writer.transport.abort()


async def test_a_large_answer_is_sent_whole_before_the_end(bench):
    """Told to end while a client reads slowly, the runner waits until the answer is out."""
    files = {"src/after.py": "def wrap(value, config):\n    return {'y': 'a' * 5_000_000}"}
    instance = await bench.serve(files)
    wire = await bench.connect(instance)
    wire.post({"x": 1})
    await wire.reader.readexactly(100)
    stopping = asyncio.create_task(bench.supervisor.stop(instance.instance_id))
    rest = await wire.reader.read()
    await stopping
    assert len(rest) > 5_000_000 - 100


async def test_an_exception_that_cannot_be_printed_is_an_answer_all_the_same(bench):
    """Even `str(error)` is the model's code."""
    model = """
        class Worse(Exception):
            def __str__(self):
                raise RuntimeError("not even this")

        class Model:
            def predict(self, batch):
                raise Worse

        def load(artifacts, config):
            return Model()
    """
    instance = await bench.serve({"src/model.py": model})
    answer = await bench.supervisor.infer(instance.instance_id, {"x": 1})
    assert answer.status == 500
    assert b"Worse" in answer.body
