"""The process that serves one version of one model: HTTP/1.1 over a Unix socket (DESIGN §5 "Runner").

Run as `<environment>/bin/python -I runner.py <config.json>`. It lives in the *model's* environment, where
nothing of ours can be imported: hence one file, the standard library of any Python from 3.8 on, and `jsonschema_rs`
from a support directory that comes last on `sys.path`.

The main thread is the model's: `load()` and every `predict()` run there, since libraries bind what they make to its
thread (autograd modes, sqlite handles, signal handlers). The `io` thread runs asyncio: framing, routing, validation
of input. Between them is one queue; the main thread takes what waits there, up to `batch_size`, and never waits for
more. A connection has one request in work at a time, so that pipelined answers keep their order.

No connection is closed from here unless its client asked for that or its framing is lost.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime as dt
import faulthandler
import importlib
import importlib.machinery
import importlib.util
import inspect
import json
import os
import queue
import re
import signal
import site
import sys
import threading
import traceback
from http import HTTPStatus
from pathlib import Path
from typing import Any, Callable, NamedTuple

MAX_HEAD = 64 * 1024  # bytes; Envoy's own default limit is 60 KiB
MAX_LINE = 4096  # bytes of a chunk-size or trailer line
RETRY_AFTER = b"retry-after: 1\r\n"  # seconds: the smallest there is; a queue moves faster than that
MESSAGE_CAP = 300  # characters of a model's exception in an answer
STACK_SIZE = 8 * 1024 * 1024  # bytes for the io thread; macOS gives 512 KiB, and JSON may be nested deeply
TRACEBACK_CAP = 8000  # characters, the end of it: it travels through Temporal to the operator
OOM_SCORE = 500  # of 1000: under pressure the kernel takes a runner before the daemon or Envoy (DESIGN §5)

# The last part of a problem's `type`, its status and its title (RFC 9457); the names that Envoy uses too are the same.
PROBLEMS = {
    "malformed-request": (400, "Malformed request"),
    "not-json": (400, "Not JSON"),
    "unknown-deployment": (404, "No such deployment"),
    "method-not-allowed": (405, "Method not allowed"),
    "too-large": (413, "Request too large"),
    "invalid-input": (422, "Input breaks its schema"),
    "head-too-large": (431, "Request head too large"),
    "model-error": (500, "Model failed"),
    "not-loaded": (503, "Model not loaded"),
    "draining": (503, "Model draining"),
    "overloaded": (503, "Model overloaded"),
}
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
REQUEST_LINE = re.compile(r"([A-Za-z]+) ([!-~]+) HTTP/1\.([01])")
FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")  # RFC 9110 §5


def now() -> str:
    return dt.datetime.now(dt.timezone.utc).isoformat()


def log(event: str, **context: Any) -> None:
    """Write one JSON line to the log file, which is file descriptor 2."""
    sys.stderr.write(json.dumps({"timestamp": now(), "event": event, **context}) + "\n")


class Refused(Exception):
    """An answer that is no success, as a problem document. `fields`: header fields of this one, each with its CR LF."""

    def __init__(self, problem: str, detail: str, *, fields: bytes = b"", **members: Any) -> None:
        super().__init__(detail)
        self.status, title = PROBLEMS[problem]
        self.fields = fields
        self.document = {
            "type": "urn:longshore:problem:" + problem,
            "title": title,
            "status": self.status,
            "detail": detail,
            **members,
        }


class StartFailed(Exception):
    """The model cannot serve. `code` stands in Longshore's failure table."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


# --- HTTP/1.1 framing, without I/O (RFC 9112) -------------------------------------------------------------------


class Request(NamedTuple):
    method: str
    path: str
    body: bytes | None
    """None where it exceeded the limit and was thrown away."""
    close: bool
    """The client wants no further request on this connection."""


class Reader:
    """Takes bytes as they come and gives whole requests.

    A body over `max_body` is thrown away as it arrives, not stored, so that the connection stays usable.
    """

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._buffer = bytearray()
        self._head: tuple[str, str, bool] | None = None
        self._chunk: str | None = None
        """In a chunked body, what comes next: `size`, `data` or `trailer`; None in any other."""
        self._left = 0
        """Bytes still to come of the body, or of the present chunk with its CR LF."""
        self._body = bytearray()
        self._oversized = False

    @property
    def pending(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Request | None:
        """Return the next request, None while it is incomplete. Raises Refused when the framing is lost."""
        if self._head is None:
            self._head = self._read_head()
        if self._head is None or not (self._take() if self._chunk is None else self._read_chunks()):
            return None
        method, path, close = self._head
        request = Request(method, path, None if self._oversized else bytes(self._body), close)
        self._head, self._chunk, self._oversized = None, None, False
        self._body.clear()
        return request

    def _read_head(self) -> tuple[str, str, bool] | None:
        while self._buffer.startswith(b"\r\n"):  # RFC 9112 §2.2: empty lines before a request are ignored
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n")
        if max(end, len(self._buffer) if end < 0 else 0) > MAX_HEAD:
            raise Refused("head-too-large", f"the head of the request is over {MAX_HEAD} bytes")
        first = self._buffer.find(b"\n")
        if first >= 0 and self._buffer[first - 1 : first] != b"\r":
            raise Refused("malformed-request", "lines must end with CR LF")
        if end < 0:
            return None
        start, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        match = REQUEST_LINE.fullmatch(start)
        if match is None:
            raise Refused("malformed-request", "the request line is malformed")
        fields = self._read_fields(lines)
        self._begin_body(fields.get("content-length"), fields.get("transfer-encoding"))
        connection = fields.get("connection", "").lower()
        close = "close" in connection or (match[3] == "0" and "keep-alive" not in connection)
        return match[1], match[2].partition("?")[0], close

    @staticmethod
    def _read_fields(lines: list[str]) -> dict[str, str]:
        fields: dict[str, str] = {}
        for line in lines:
            match = FIELD.fullmatch(line)
            if match is None:
                raise Refused("malformed-request", "a header field is malformed")
            name, value = match[1].lower(), match[2]
            fields[name] = value if fields.get(name, value) == value else fields[name] + "," + value
        return fields

    def _begin_body(self, length: str | None, coding: str | None) -> None:
        # Both at once, or two lengths (now joined by a comma), is how requests are smuggled (RFC 9112 §6.3).
        if coding is not None and (length is not None or coding.lower() != "chunked"):
            raise Refused("malformed-request", "the body must be either chunked or of one content-length")
        if length is not None and not re.fullmatch("[0-9]{1,15}", length):
            raise Refused("malformed-request", "content-length is no number")
        self._chunk = None if coding is None else "size"
        self._left = int(length or 0)

    def _take(self) -> bool:
        """Move what has come of the `_left` bytes from the buffer to the body; True once all have."""
        part = min(self._left, len(self._buffer))
        self._oversized = self._oversized or len(self._body) + self._left > self._max_body
        if not self._oversized:
            self._body += self._buffer[:part]
        del self._buffer[:part]
        self._left -= part
        return self._left == 0

    def _read_chunks(self) -> bool:
        """Read on in a chunked body; True once its last trailer line has come."""
        while True:
            if self._chunk == "data" and not self._take():
                return False
            end = self._buffer.find(b"\r\n")
            if end > MAX_LINE or (end < 0 and len(self._buffer) > MAX_LINE):
                raise Refused("malformed-request", f"a line between chunks is over {MAX_LINE} bytes")
            if end < 0:
                return False
            line = self._buffer[:end]
            del self._buffer[: end + 2]
            if self._chunk == "trailer":
                if not line:
                    return True
            elif self._chunk == "data":
                if line:
                    raise Refused("malformed-request", "a chunk is longer than its size")
                self._chunk = "size"
            else:
                size = line.partition(b";")[0].strip(b" \t")
                if not re.fullmatch(b"[0-9A-Fa-f]{1,12}", size):
                    raise Refused("malformed-request", "the size of a chunk is no number")
                self._left = int(size, 16)
                self._chunk = "data" if self._left else "trailer"


# --- the io thread: connections and routing ---------------------------------------------------------------------


class Connection(asyncio.Protocol):
    """One client. `control` becomes true with its first request for `/-/…`: it is the daemon's, not Envoy's."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._reader = Reader(service.max_body)
        self._transport: asyncio.Transport | None = None
        self._busy = False
        """A request is in work, and its answer comes before anything else."""
        self._unread = False
        """The client does not take its answers: no further request is taken up."""
        self._advancing = False
        self._last = False
        self._bodiless = False
        self.control = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._service.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        self._transport = None
        self._service.connections.discard(self)

    @property
    def unsent(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport else 0

    def pause_writing(self) -> None:
        self._unread = True

    def resume_writing(self) -> None:
        self._unread = False
        self._advance()

    def eof_received(self) -> bool:
        self._last = True
        return self._busy

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        self._advance()

    def answer(self, status: int, body: bytes, fields: bytes = b"content-type: application/json\r\n") -> None:
        """Send the answer to the request in work, and go on with the next one."""
        self._busy = False
        if self._transport is None:
            return
        head = self._service.head(status, len(body), fields, close=self._last)
        self._transport.write(head if self._bodiless else head + body)
        if self._last:
            self._transport.close()
        else:
            self._advance()

    def refuse(self, refused: Refused) -> None:
        body = json.dumps(refused.document).encode()
        self.answer(refused.status, body, b"content-type: application/problem+json\r\n" + refused.fields)

    def _advance(self) -> None:
        """Take up requests until one has to wait for its answer. (A loop, since many may be answered at once.)"""
        if self._advancing:
            return
        self._advancing = True
        while not self._busy and not self._last and not self._unread and self._transport is not None:
            try:
                request = self._reader.next()
            except Refused as lost:
                self._last = True
                self.refuse(lost)
                break
            if request is None:
                break
            self._busy, self._last, self._bodiless = True, request.close, request.method == "HEAD"
            try:
                self._service.handle(self, request)
            except Refused as refused:
                self.refuse(refused)
        self._advancing = False
        if self._transport is not None and (self._busy or self._unread) and self._reader.pending > MAX_HEAD:
            self._transport.pause_reading()
        elif self._transport is not None:
            self._transport.resume_reading()


class Job(NamedTuple):
    connection: Connection
    document: Any


class Service:
    """What the io thread holds. The main thread touches `jobs` and the methods that say so."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.max_body: int = config["max_body"]
        self.connections: set[Connection] = set()
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._config = config
        self._schema: Schema | None = None
        """What a request must conform to; None until the model has been loaded."""
        self._waiting = 0
        self._stopping = False
        self._started = now()
        self._version: bytes = b"x-model-version: %s\r\n" % config["version"].encode("latin-1")
        self._own_path = "/infer/" + config["deployment_id"]

    def start(self) -> None:
        """Listen, and serve in a thread of its own. Called once, by the main thread."""
        server = self._loop.create_unix_server(lambda: Connection(self), self._config["socket"], backlog=1024)
        self._loop.run_until_complete(server)
        threading.stack_size(STACK_SIZE)
        threading.Thread(target=self._loop.run_forever, name="io", daemon=True).start()

    def open(self, schema: Schema) -> None:
        """Take inferences from now on. Called by the main thread."""
        self._schema = schema

    def deliver(self, answers: list[tuple[Connection, bytes | Refused]]) -> None:
        """Send a batch of answers. Called by the main thread."""
        self._loop.call_soon_threadsafe(self._deliver, answers)

    def begin_stop(self) -> None:
        """Take no further inference; the end mark follows the last one. Called by the main thread's signal handler."""
        self._loop.call_soon_threadsafe(self._stop)

    def flush(self, timeout: float) -> None:
        """Wait until what has been delivered is written. Called by the main thread, at the very end."""

        async def written() -> None:
            while any(connection.unsent for connection in self.connections):  # noqa: ASYNC110 (no event says so)
                await asyncio.sleep(0.01)

        try:
            asyncio.run_coroutine_threadsafe(written(), self._loop).result(timeout)
        except concurrent.futures.TimeoutError:
            log("answers_not_taken", connections=len(self.connections))

    def _deliver(self, answers: list[tuple[Connection, bytes | Refused]]) -> None:
        self._waiting -= len(answers)
        for connection, answer in answers:
            if isinstance(answer, Refused):
                connection.refuse(answer)
            else:
                connection.answer(200, answer)

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self.jobs.put(None)

    def head(self, status: int, length: int, fields: bytes, *, close: bool) -> bytes:
        return b"HTTP/1.1 %d %s\r\ncontent-length: %d\r\n%s%s%s\r\n" % (
            status,
            HTTPStatus(status).phrase.encode(),
            length,
            fields,
            self._version,
            b"connection: close\r\n" if close else b"",
        )

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer a request or put it into the queue. Raises Refused.

        Envoy decides which paths beside `/infer/<deployment>` are this model's: those of its endpoint.
        """
        if request.path == "/-/identity":
            connection.control = True
            self._allow("GET", request)
            connection.answer(200, json.dumps(self._identity()).encode())
        elif request.path.startswith(("/-/", "/infer/")) and request.path != self._own_path:
            raise Refused("unknown-deployment", "there is nothing at this path; inference is at " + self._own_path)
        else:
            self._allow("POST", request)
            self._submit(connection, request)

    @staticmethod
    def _allow(method: str, request: Request) -> None:
        if request.method != method:
            allow = b"allow: %s\r\n" % method.encode()
            raise Refused("method-not-allowed", f"only {method} is possible here", fields=allow)

    def _identity(self) -> dict[str, Any]:
        known = ("instance_id", "deployment_id", "generation", "version", "digest")
        return {
            **{name: self._config[name] for name in known},
            "pid": os.getpid(),
            "started": self._started,
            "python": sys.version.split()[0],
            "ready": self._schema is not None,
            "connections": sum(not connection.control for connection in self.connections),
            "in_flight": self._waiting,
        }

    def _submit(self, connection: Connection, request: Request) -> None:
        if request.body is None:
            raise Refused("too-large", f"the body is over {self.max_body} bytes")
        if self._stopping:
            raise Refused("draining", "this model is being unloaded", fields=RETRY_AFTER)
        if self._schema is None:
            raise Refused("not-loaded", "this model is still loading", fields=RETRY_AFTER)
        if self._waiting >= self._config["max_queue"]:
            raise Refused("overloaded", f"{self._waiting} requests are waiting already", fields=RETRY_AFTER)
        document = parse(request.body)
        breach = self._schema.breach(document)
        if breach:
            raise Refused("invalid-input", breach["message"], path=breach["path"])
        self._waiting += 1
        self.jobs.put(Job(connection, document))


def parse(body: bytes) -> Any:
    """Return the JSON document (RFC 8259, UTF-8). Raises Refused."""

    def refuse_constant(name: str) -> None:
        raise ValueError(name + " is not JSON")

    try:
        document = json.loads(body.decode("utf-8"), parse_constant=refuse_constant)
        if SURROGATE.search(body):  # half a pair is JSON's grammar, but no text: whatever encodes it later would fail
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise Refused("not-json", f"the body is not JSON: {error}") from error
    return document


# --- the main thread: the model ---------------------------------------------------------------------------------


def prepare_path(checkout: str, support: str) -> None:
    """Order `sys.path`: standard library, checkout, site-packages, support (DESIGN §5)."""
    packages = set(site.getsitepackages())
    at = next((index for index, entry in enumerate(sys.path) if entry in packages), len(sys.path))
    sys.path.insert(at, checkout)
    sys.path.append(support)


def seed(name: str, checkout: str) -> None:
    """Put the checkout's top-level package `name` into `sys.modules`, as the path finder would for that path alone.

    Without an `__init__.py` it would be a namespace package, and any regular package of that name anywhere on the
    path, a `src` in site-packages, would win over it. Raises whatever the package raises, ImportError if there is none.
    """
    spec = importlib.machinery.PathFinder.find_spec(name, [checkout])
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r} in the model's repository", name=name)
    if spec.loader is None or not spec.has_location:
        # A plain list: a namespace package's own path object would look at sys.path again.
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(Path(checkout, name))]
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if spec.loader is not None and spec.has_location:
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise


def takes_two(function: Any) -> bool:
    """Whether `function` can be called with two positional arguments, as far as it can be told."""
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # a builtin that does not tell its signature
        return True
    return True


class Schema:
    """A compiled JSON Schema (2020-12 unless it says otherwise, formats checked, nothing fetched, patterns linear)."""

    def __init__(self, name: str, schema: dict[str, Any]) -> None:
        import jsonschema_rs  # noqa: PLC0415 (its directory is on the path only now)

        def refuse_remote(uri: str) -> None:
            raise ValueError("remote references are not followed: " + uri)

        try:
            # As the registry's gate has compiled it. No request can make a pattern of this engine slow.
            self._validator = jsonschema_rs.validator_for(
                schema,
                validate_formats=True,
                pattern_options=jsonschema_rs.RegexOptions(),
                retriever=refuse_remote,
            )
        except ValueError as error:
            raise StartFailed("CARD_INVALID", f"interface.{name} is not a usable schema: {error}") from error

    def breach(self, document: Any) -> dict[str, str] | None:
        """Return the first breach as `{message, path}` (a JSON Pointer), None if there is none."""
        try:
            if self._validator.is_valid(document):
                return None
            first = next(self._validator.iter_errors(document))
        except ValueError as error:  # nested deeper than the validator follows, or of no type that JSON has
            return {"message": f"cannot be validated: {error}", "path": ""}
        steps = [str(step).replace("~", "~0").replace("/", "~1") for step in first.instance_path]
        return {"message": first.message[:MESSAGE_CAP], "path": "".join("/" + step for step in steps)}


class Model:
    """The model and its two functions, as the card names them."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Import everything and call load(). Raises StartFailed."""
        prepare_path(config["checkout"], config["support"])
        self._seeded: set[str] = set()
        self._checkout = config["checkout"]
        self.input = Schema("input_schema", config["input_schema"])
        self._output = Schema("output_schema", config["output_schema"])
        self._batch_size: int = config["batch_size"]
        entrypoint = self._import("ENTRYPOINT_INVALID", config["entrypoint"])
        self._before = self._function("preprocessing", config["preprocessing"])
        self._after = self._function("postprocessing", config["postprocessing"])
        self._before_config = config["preprocessing"]["config"]
        self._after_config = config["postprocessing"]["config"]
        self._model = self._load(entrypoint, config)

    def _import(self, code: str, name: str) -> Any:
        top = name.partition(".")[0]
        try:
            if top not in self._seeded:
                seed(top, self._checkout)
                self._seeded.add(top)
            return importlib.import_module(name)
        except Exception as error:
            raise StartFailed(code, f"import of {name} failed: {describe(error)}") from error

    def _function(self, stage: str, processing: dict[str, Any]) -> Callable[[Any, Any], Any]:
        module = self._import("PROCESSING_INVALID", processing["module"])
        name = "{module}.{function}".format(**processing)
        function: Callable[[Any, Any], Any] | None = getattr(module, processing["function"], None)
        if not callable(function):
            raise StartFailed("PROCESSING_INVALID", f"{stage}: {name} is not a function")
        if not takes_two(function):
            raise StartFailed("PROCESSING_INVALID", f"{stage}: {name} must take (value, config)")
        return function

    @staticmethod
    def _load(entrypoint: Any, config: dict[str, Any]) -> Any:
        name, load = config["entrypoint"], getattr(entrypoint, "load", None)
        if not callable(load) or not takes_two(load):
            raise StartFailed("ENTRYPOINT_INVALID", f"{name} has no function load(artifacts, config)")
        artifacts = Path(config["artifacts"])
        options = {}
        try:
            if config["config_file"]:
                options = json.loads((artifacts / config["config_file"]).read_text("utf-8"))
            model = load(artifacts, options)
        except Exception as error:
            raise StartFailed("MODEL_LOAD_FAILED", f"{name}.load failed: {describe(error)}") from error
        if not callable(getattr(model, "predict", None)):
            raise StartFailed("ENTRYPOINT_INVALID", f"what {name}.load returned has no predict(batch)")
        return model

    def serve(self, service: Service) -> None:
        """Answer until the end mark: take what waits, up to `batch_size`, with no timer."""
        more = True
        while more:
            batch = [service.jobs.get()]
            while len(batch) < self._batch_size and batch[-1] is not None and not service.jobs.empty():
                batch.append(service.jobs.get())
            more = batch[-1] is not None
            jobs = [job for job in batch if job is not None]
            answers = self.answers([job.document for job in jobs])
            service.deliver([(job.connection, answer) for job, answer in zip(jobs, answers)])

    def answers(self, documents: list[Any]) -> list[bytes | Refused]:
        """Return one answer per document: what is wrong with one of them does not fail the others."""
        answers: list[Any] = [self._stage("preprocessing", self._before, doc, self._before_config) for doc in documents]
        good = [index for index, value in enumerate(answers) if not isinstance(value, Refused)]
        for index, value in zip(good, self._predict([answers[index] for index in good])):
            answers[index] = value if isinstance(value, Refused) else self._finish(value)
        return answers

    def _predict(self, values: list[Any]) -> list[Any]:
        if not values:
            return []
        results = self._stage("predict", self._predict_all, values)
        if isinstance(results, Refused):
            # One at a time shows whose fault it was, and serves the others.
            return [results] if len(values) == 1 else [self._predict([value])[0] for value in values]
        return results  # type: ignore[no-any-return]

    def _predict_all(self, values: list[Any]) -> list[Any]:
        results = list(self._model.predict(values))
        if len(results) != len(values):
            raise ValueError(f"predict returned {len(results)} results for a batch of {len(values)}")
        return results

    def _finish(self, value: Any) -> bytes | Refused:
        value = self._stage("postprocessing", self._after, value, self._after_config)
        return value if isinstance(value, Refused) else self._stage("output", self._encode, value)

    def _encode(self, value: Any) -> bytes:
        # NaN and Infinity are no JSON; a set or an array of numpy is none either.
        body = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
        breach = self._output.breach(value)
        if breach:
            raise ValueError("the answer breaks the output schema at {path!r}: {message}".format(**breach))
        return body

    @staticmethod
    def _stage(stage: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `function` returns, or a Refused that names the stage: it is the model's code."""
        try:
            return function(*arguments)
        except Exception as error:  # noqa: BLE001 (a model may raise anything)
            log("inference_failed", stage=stage, traceback=last_lines(error))
            return Refused("model-error", f"{stage} failed: {describe(error)}", stage=stage)


def describe(error: BaseException) -> str:
    """Return type and message, even of an exception whose own `__str__` raises."""
    return traceback.format_exception_only(type(error), error)[-1].strip()[:MESSAGE_CAP]


def last_lines(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))[-TRACEBACK_CAP:]


def own_lock(lock: int) -> None:
    """Write the pid into the lock file, and let no forked child hold the lock: held means that *this* process lives."""
    os.ftruncate(lock, 0)
    os.write(lock, b"%d\n" % os.getpid())
    os.set_inheritable(lock, False)
    held = [lock]

    def let_go() -> None:
        if held:  # a child's own child has nothing to close: the number may be another file's by then
            os.close(held.pop())

    os.register_at_fork(after_in_child=let_go)


def volunteer_for_oom() -> None:
    try:
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    except OSError:  # no Linux, or not allowed: the kernel then chooses by size alone
        log("oom_score_unchanged")


def start(config: dict[str, Any], service: Service) -> Model:
    """Load the model; where that fails, leave last words and exit (an adopted process has no exit status to read)."""
    try:
        model = Model(config)
    except BaseException as error:  # noqa: BLE001 (a model may raise anything, SystemExit included)
        if not isinstance(error, StartFailed):
            error = StartFailed("MODEL_LOAD_FAILED", describe(error)).with_traceback(error.__traceback__)
        words = {"code": error.code, "message": str(error), "traceback": last_lines(error.__cause__ or error)}
        Path(config["last_words"]).write_text(json.dumps(words), "utf-8")
        log("start_failed", **words)
        os._exit(1)
    service.open(model.input)
    # Not before: while it loads nothing is in flight, and SIGTERM just ends it; and load() may have set its own.
    signal.signal(signal.SIGTERM, lambda *_: service.begin_stop())
    log("ready", instance_id=config["instance_id"], version=config["version"])
    return model


def main() -> None:
    config = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    own_lock(config["lock_fd"])
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()
    volunteer_for_oom()
    service = Service(config)
    service.start()
    model = start(config, service)
    try:
        model.serve(service)
    except BaseException as error:  # noqa: BLE001 (its libraries' threads would keep the process otherwise)
        log("predict_thread_died", traceback=last_lines(error))
        os._exit(1)
    service.flush(timeout=5.0)
    # Threads and exit hooks of the model's libraries have no say in when the memory is free again.
    os._exit(0)


if __name__ == "__main__":
    main()
