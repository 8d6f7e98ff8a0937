"""What works through an agent's queue, one measurement at a time, and says at any moment whether that goes well."""

import sys
import threading
import time

from nas.latency.agent.queue import Job, Queue
from nas.latency.agent.services import Service
from nas.latency.measurement.isolated import StoppedError
from nas.terminal.errors import UserError

_IDLE_S = 0.2
_RETRY_S = 5.0
"""Seconds until work is tried again after trouble."""

_GRACE_S = 60.0
"""Seconds that a measurement may take longer than its limit before its worker counts as stuck."""


class Worker:
    """A thread that measures what waits in a queue.

    Trouble is whatever keeps it from measuring that is not the fault of a decoder: a full disk, a damaged queue, no
    phone, a measurement that does not end. The job stays in the queue, and is tried again every few seconds.
    """

    def __init__(self, service: Service, queue: Queue) -> None:
        self._service = service
        self._queue = queue
        self._stop = threading.Event()
        self._failure: str | None = None
        self._busy: tuple[Job, float] | None = None
        # A thread that is stuck in the system must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self, wait_s: float) -> None:
        """End the work: the measurement that runs is called off and stays in the queue. Waits so long at most."""
        self._stop.set()
        self._thread.join(wait_s)

    def trouble(self) -> str | None:
        """Why nothing is measured at the moment; None if all is well."""
        if self._failure is not None:
            return self._failure
        busy = self._busy
        if busy is not None and time.monotonic() - busy[1] > self._service.longest_s + _GRACE_S:
            return f"the measurement of job {busy[0].id} has not ended after {time.monotonic() - busy[1]:.0f} s"
        if not self._thread.is_alive() and not self._stop.is_set():
            return "its worker has ended"
        return None

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                worked = self._work_once()
            except StoppedError:
                return
            # Whatever it is, clients have to hear of it; a thread that ended in silence would leave them waiting.
            except Exception as error:
                self._fail(error)
                self._stop.wait(_RETRY_S)
            else:
                self._failure = None
                if not worked:
                    self._stop.wait(_IDLE_S)
            finally:
                self._busy = None

    def _work_once(self) -> bool:
        """Measure the next job; whether there was one."""
        job = self._queue.start_next()
        if job is None:
            return False
        upload = self._queue.upload_path(job.id)
        if not upload.is_file():
            self._queue.finish(job.id, None, "its upload is gone: send it again")
            return True
        self._busy = (job, time.monotonic())
        try:
            record = self._service.measure(upload, job.workload, self._stop)
        except (StoppedError, UserError, OSError):
            raise
        # Of the decoder: MeasurementFailedError, BadArchiveError, or what is raised for an upload that was damaged.
        except Exception as error:
            self._queue.finish(job.id, None, str(error) or type(error).__name__)
        else:
            self._queue.finish(job.id, record, None)
        upload.unlink(missing_ok=True)
        return True

    def _fail(self, error: Exception) -> None:
        reason = " ".join(str(error).split()) or type(error).__name__
        if reason != self._failure:
            print(f"error: {reason}", file=sys.stderr, flush=True)
        self._failure = reason
