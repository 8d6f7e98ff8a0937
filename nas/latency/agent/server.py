"""The measuring agent: one device of this machine over HTTP, one measurement at a time.

    GET  /device                                  what it is and whether it takes configs or Core ML packages
    POST /jobs?height=512&width=512&frames=17     body: a decoder's config (JSON) or a package (zip) -> the job
    GET  /jobs/<id>                               the job: queued, running, done (with its record) or failed (and why)

Every request needs the bearer token, if there is one. What a client sends is data: a config names registered blocks, a
package is unpacked into a folder of its own and given to Core ML.
"""

import hmac
import ipaddress
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from nas.latency.agent import TOKEN_VARIABLE
from nas.latency.agent.archive import BadArchiveError
from nas.latency.agent.queue import Queue, job_id
from nas.latency.agent.services import BadUploadError, Service, open_service
from nas.latency.record import MeasurementFailedError, Workload
from nas.machine.files import disk_errors
from nas.machine.locks import lock_folder
from nas.terminal.errors import UserError

_LONGEST_QUEUE = 64
_LARGEST_SIDE, _MOST_FRAMES = 4096, 1024
_IDLE_S = 0.2


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
    """The routes, and the thread that works through the queue."""

    def __init__(self, service: Service, queue: Queue, folder: Path, largest_upload: int) -> None:
        self._service = service
        self._queue = queue
        self._incoming = folder / "incoming"
        self._incoming.mkdir(exist_ok=True)
        for leftover in self._incoming.iterdir():
            leftover.unlink()
        self._largest_upload = largest_upload

    def make_app(self, token: str | None) -> ASGIApp:
        """The web application."""
        app = Starlette(
            routes=[
                Route("/device", self.get_device, methods=["GET"]),
                Route("/jobs", self.post_job, methods=["POST"]),
                Route("/jobs/{job}", self.get_job, methods=["GET"]),
            ]
        )
        return BearerGuard(app, token) if token else app

    async def get_device(self, request: Request) -> JSONResponse:
        """What is served."""
        return JSONResponse(self._service.to_dict() | {"largest_upload": self._largest_upload})

    async def get_job(self, request: Request) -> JSONResponse:
        """A job, or 404."""
        job = await run_in_threadpool(self._queue.find, request.path_params["job"])
        return _refuse(404, "there is no such job") if job is None else JSONResponse(job.to_dict())

    async def post_job(self, request: Request) -> JSONResponse:
        """Check an upload and put it into the queue; the same upload is the same job."""
        try:
            workload = _workload(request)
        except ValueError as error:
            return _refuse(400, str(error))
        with tempfile.NamedTemporaryFile(dir=self._incoming, delete=False) as file:
            size = 0
            async for chunk in request.stream():
                size += len(chunk)
                if size > self._largest_upload:
                    Path(file.name).unlink()
                    return _refuse(413, f"an upload may have {self._largest_upload} bytes at most")
                file.write(chunk)
        return await run_in_threadpool(self._accept, Path(file.name), workload)

    def _accept(self, upload: Path, workload: Workload) -> JSONResponse:
        try:
            digest = self._service.check(upload, workload)
            job = job_id(self._service.name, digest, workload)
            known = self._queue.find(job)
            if known is None and self._queue.count("queued") >= _LONGEST_QUEUE:
                return _refuse(503, f"{_LONGEST_QUEUE} jobs are waiting: try again later")
            if known is None or known.state == "failed":
                upload.replace(self._queue.upload_path(job))
                known = self._queue.submit(job, workload)
        except (BadUploadError, BadArchiveError) as error:
            return _refuse(400, str(error))
        finally:
            upload.unlink(missing_ok=True)
        return JSONResponse(known.to_dict(), 202)

    def work(self, stop: threading.Event) -> None:
        """Measure one job after another until `stop` is set."""
        while not stop.is_set():
            job = self._queue.start_next()
            if job is None:
                stop.wait(_IDLE_S)
                continue
            try:
                record = self._service.measure(self._queue.upload_path(job.id), job.workload)
            except (MeasurementFailedError, BadArchiveError, UserError, OSError) as error:
                self._queue.finish(job.id, None, str(error))
            else:
                self._queue.finish(job.id, record, None)


def serve_device(
    device: str, folder: Path, *, bind: str, port: int, token: str | None, largest_upload: int, time_limit_s: float
) -> None:
    """Serve until interrupted.

    Args:
        device: host, coreml or iphone.
        folder: queue and results; continued if it is there.
        bind: address to listen at.
        port: 0 for any free one.
        token: what clients have to show; None only on a loopback address.
        largest_upload: in bytes.
        time_limit_s: of a measurement.

    Raises:
        UserError: no token where others could reach it, the address is taken, the folder is in use, no such device.
    """
    if token is None and not _is_loopback(bind):
        raise UserError(
            f"--bind {bind} can be reached by others: set {TOKEN_VARIABLE}, give --token-file, or bind to 127.0.0.1"
        )
    service = open_service(device, time_limit_s)
    with disk_errors("cannot write the agent's folder"):
        folder.mkdir(parents=True, exist_ok=True)
    remedy = "stop that agent or choose another --folder"
    with disk_errors("cannot write the agent's folder"), lock_folder(folder, remedy), _listen(bind, port) as listener:
        agent, stop = Agent(service, Queue(folder), folder, largest_upload), threading.Event()
        worker = threading.Thread(target=agent.work, args=(stop,), daemon=True)
        worker.start()
        address = f"http://{bind}:{listener.getsockname()[1]}"
        print(f"agent     {address} ({'token needed' if token else 'no token'}), folder {folder}", flush=True)
        print(f"device    {service.name}: {service.description}", flush=True)
        config = uvicorn.Config(agent.make_app(token), log_level="warning", server_header=False, limit_concurrency=64)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            stop.set()


def _workload(request: Request) -> Workload:
    """The decode that a request asks for; ValueError with the reason if it is none or beyond what is sensible."""
    values: dict[str, int] = {}
    for name in ("height", "width", "frames"):
        text = request.query_params.get(name, "")
        largest = _MOST_FRAMES if name == "frames" else _LARGEST_SIDE
        if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= largest):
            raise ValueError(f"{name} has to be a whole number from 1 to {largest}, got {text[:20]!r}")
        values[name] = int(text)
    return Workload(values["height"], values["width"], values["frames"])


def _refuse(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": reason}, status)


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
