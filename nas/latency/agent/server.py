"""The measuring agent: one device of this machine over HTTP, one measurement at a time.

    GET  /device                                  what it is and whether it takes configs or Core ML packages
    POST /jobs?height=512&width=512&frames=17     body: a decoder's config (JSON) or a package (zip) -> the job
    GET  /jobs/<id>                               the job: queued, running, done (with its record) or failed (and why)

Every request needs the bearer token, if there is one. What a client sends is data: a config names registered blocks, a
package is unpacked into a folder of its own and given to Core ML.
"""

import asyncio
import hmac
import ipaddress
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from nas.latency.agent import TOKEN_VARIABLE, transfer_limit_s
from nas.latency.agent.archive import BadArchiveError
from nas.latency.agent.connections import BoundedConnection
from nas.latency.agent.folder import INCOMING, PREFIX, claim_folder, prepare_folder
from nas.latency.agent.queue import DamagedQueueError, Job, Queue, job_id
from nas.latency.agent.services import BadUploadError, Service, open_service
from nas.latency.agent.worker import Worker
from nas.latency.record import Workload
from nas.machine.files import disk_errors
from nas.machine.locks import lock_folder
from nas.machine.temporary import sweep_one
from nas.terminal.errors import UserError

_LONGEST_QUEUE = 64
_LARGEST_SIDE, _MOST_FRAMES = 4096, 1024
_END_S = 2.0
"""Seconds that a measurement is given to end when the agent does."""


class BearerGuard:
    """Nothing but 401 for a request without the token, whatever it asks for."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what carries the token."""
        if scope["type"] != "lifespan":
            given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
            if len(given) != 1 or not hmac.compare_digest(given[0], self._expected):
                refusal = JSONResponse({"error": "a bearer token is needed"}, 401, {"WWW-Authenticate": "Bearer"})
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Agent:
    """The routes. Every answer to who has the token says under `broken` why nothing is measured, null if all is well.

    Whoever reads that need not wait.
    """

    def __init__(self, service: Service, queue: Queue, worker: Worker, folder: Path, largest_upload: int) -> None:
        self._service = service
        self._queue = queue
        self._worker = worker
        self._incoming = folder / INCOMING
        self._largest_upload = largest_upload

    def make_app(self, token: str | None) -> ASGIApp:
        """The web application."""
        app = Starlette(
            routes=[
                Route("/device", self.get_device, methods=["GET"]),
                Route("/jobs", self.post_job, methods=["POST"]),
                Route("/jobs/{job}", self.get_job, methods=["GET"]),
            ],
            exception_handlers={
                HTTPException: self._no_route,
                ClientDisconnect: self._gone,
                DamagedQueueError: self._no_storage,
                OSError: self._no_storage,
            },
        )
        # A path with a slash too many is another path; Starlette's redirect fails where the query is not UTF-8.
        app.router.redirect_slashes = False
        return BearerGuard(app, token) if token else app

    async def get_device(self, request: Request) -> JSONResponse:
        """What is served."""
        return self._answer(200, self._service.to_dict() | {"largest_upload": self._largest_upload})

    async def get_job(self, request: Request) -> JSONResponse:
        """A job, or 404."""
        return await run_in_threadpool(self._find, request.path_params["job"])

    async def post_job(self, request: Request) -> JSONResponse:
        """Check an upload and put it into the queue; the same upload is the same job."""
        try:
            workload = _workload(request)
        except ValueError as error:
            return self._answer(400, {"error": str(error)})
        broken = self._worker.trouble()
        if broken is not None:
            return self._answer(503, {"error": f"nothing is measured here at the moment: {broken}"})
        with tempfile.NamedTemporaryFile(dir=self._incoming, prefix=PREFIX, delete=False) as file:
            upload = Path(file.name)
            try:
                size, limit_s = 0, transfer_limit_s(self._largest_upload)
                async with asyncio.timeout(limit_s):
                    async for chunk in request.stream():
                        size += len(chunk)
                        if size > self._largest_upload:
                            refusal = f"an upload may have {self._largest_upload} bytes at most"
                            return self._answer(413, {"error": refusal})
                        file.write(chunk)
                file.flush()
                return await run_in_threadpool(self._accept, upload, workload)
            except TimeoutError:
                return self._answer(408, {"error": f"the upload did not arrive within {limit_s:.0f} s"})
            finally:
                upload.unlink(missing_ok=True)

    def _accept(self, upload: Path, workload: Workload) -> JSONResponse:
        try:
            digest = self._service.check(upload, workload)
        except (BadUploadError, BadArchiveError) as error:
            return self._answer(400, {"error": str(error)})
        # The description too: a folder may have been another machine's, or the machine may have changed.
        job = job_id(f"{self._service.name}: {self._service.description}", digest, workload)
        known = self._queue.find(job)
        if known is None or known.state == "failed":
            if len(self._queue.waiting()) >= _LONGEST_QUEUE:
                return self._answer(503, {"error": f"{_LONGEST_QUEUE} jobs are waiting: try again later"})
            upload.replace(self._queue.upload_path(job))
            known = self._queue.submit(job, workload)
        return self._answer(202, self._describe(known))

    def _find(self, name: str) -> JSONResponse:
        job = self._queue.find(name)
        if job is None:
            return self._answer(404, {"error": "there is no such job"})
        return self._answer(200, self._describe(job))

    def _describe(self, job: Job) -> dict[str, Any]:
        """What a client is told about a job; `ahead` is the number of jobs that are measured before it."""
        waiting = self._queue.waiting()
        return job.to_dict() | {"ahead": waiting.index(job.id) if job.id in waiting else 0}

    def _answer(self, status: int, content: dict[str, Any]) -> JSONResponse:
        return JSONResponse(content | {"broken": self._worker.trouble()}, status)

    async def _no_route(self, request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return self._answer(error.status_code, {"error": error.detail})

    async def _gone(self, request: Request, error: Exception) -> JSONResponse:
        """The client has hung up before its upload was complete: nobody reads this."""
        return self._answer(400, {"error": "the upload is not complete"})

    async def _no_storage(self, request: Request, error: Exception) -> JSONResponse:
        return self._answer(507, {"error": f"the agent's folder takes or gives nothing: {error}"})


def serve_device(
    device: str, folder: Path, *, bind: str, port: int, token: str | None, largest_upload: int, time_limit_s: float
) -> None:
    """Serve until interrupted.

    Args:
        device: host, coreml or iphone.
        folder: queue and results; continued if it is there.
        bind: address to listen at.
        port: 0 for any free one.
        token: bearer token of every request; None only on a loopback address.
        largest_upload: in bytes.
        time_limit_s: seconds for one measurement.

    Raises:
        UserError: no token where others could reach it, the address is taken, the folder is in use, no such device.
    """
    if token is None and not _is_loopback(bind):
        raise UserError(
            f"--bind {bind} can be reached by others: set {TOKEN_VARIABLE}, give --token-file, or bind to 127.0.0.1"
        )
    service = open_service(device, time_limit_s)
    doing, remedy = "cannot use the agent's folder", "stop that agent or choose another --folder"
    with disk_errors(doing):
        claim_folder(folder)
    with disk_errors(doing), lock_folder(folder, remedy), _listen(bind, port) as listener, _ended_by_signal():
        try:
            queue = Queue(folder)
            prepare_folder(folder, set(queue.waiting()))
            sweep_one(Path(tempfile.gettempdir()))  # of measurements that were killed with their agent
        except DamagedQueueError as error:
            raise UserError(f"{error}: restore it, move it away, or choose another --folder") from error
        worker = Worker(service, queue)
        agent = Agent(service, queue, worker, folder, largest_upload)
        address = f"http://{f'[{bind}]' if ':' in bind else bind}:{listener.getsockname()[1]}"
        print(f"agent     {address} ({'token needed' if token else 'no token'}), folder {folder}", flush=True)
        print(f"device    {service.name}: {service.description}", flush=True)
        worker.start()
        try:
            _server(agent.make_app(token)).run(sockets=[listener])
        finally:
            worker.stop(_END_S)


def _server(app: ASGIApp) -> uvicorn.Server:
    """A server that ends within two seconds of the signal to do so, whatever its connections do."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            server_header=False,
            http=BoundedConnection,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
    )


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Have SIGTERM end the `with` as Ctrl-C does, with status 143, so that what runs in it is ended in order."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _workload(request: Request) -> Workload:
    """The decode that a request asks for; ValueError with the reason if a size is missing or too large."""
    values: dict[str, int] = {}
    for name in ("height", "width", "frames"):
        text = request.query_params.get(name, "")
        largest = _MOST_FRAMES if name == "frames" else _LARGEST_SIDE
        if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= largest):
            raise ValueError(f"{name} has to be a whole number from 1 to {largest}, got {text[:20]!r}")
        values[name] = int(text)
    return Workload(values["height"], values["width"], values["frames"])


def _is_loopback(bind: str) -> bool:
    try:
        return ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return bind == "localhost"


@contextmanager
def _listen(bind: str, port: int) -> Iterator[socket.socket]:
    try:
        listener = socket.create_server((bind, port), family=socket.AF_INET6 if ":" in bind else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen at {bind}:{port} ({error}): choose another --bind or --port") from error
    with listener:
        yield listener
