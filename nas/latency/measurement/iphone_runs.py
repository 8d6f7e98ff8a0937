"""What runs in the process of one measurement on an iPhone that is connected to this Mac.

It uses coremltools 9's experimental remote device, which builds, installs and drives a small app. Three of its faults
are worked around: it gives up after ten seconds, a model that is no longer needed stays loaded, and its own choice of
random inputs fails for some types.
"""

import asyncio
from typing import Any

from nas.latency.measurement.core_ml_runs import RUNS, WARM_UPS, random_inputs, work_shares
from nas.latency.measurement.rounds import time_until_steady
from nas.machine.files import default_cache_dir
from nas.terminal.errors import UserError

_POLL_S, _POLLS = 0.5, 1800
"""How often and how many times the app is asked for an answer: 15 minutes, for compilation on the phone."""


def measure_package(task: dict[str, Any]) -> dict[str, Any]:
    """The same as `core_ml_runs.measure_package`, timed on the phone around each prediction."""
    import coremltools as ct
    from coremltools.models.ml_program.experimental import remote_device
    from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker

    remote_device._DeviceCtlRemoteService.__init__.__defaults__ = (_POLL_S, _POLLS)
    package = ct.models.MLModel(task["package"], compute_units=ct.ComputeUnit[task["units"]], skip_model_load=True)
    inputs = random_inputs(package)
    with asyncio.Runner() as runner:
        phone = runner.run(_prepare(remote_device, task["team"]))
        benchmark = MLModelBenchmarker(package, device=phone)
        load = runner.run(benchmark.benchmark_load())
        try:
            runner.run(benchmark.benchmark_predict(inputs, iterations=WARM_UPS))
            statistics, attempts = time_until_steady(
                lambda: runner.run(benchmark.benchmark_predict(inputs, iterations=RUNS)).samples
            )
            plan = runner.run(benchmark._loaded_model.retrieve_compute_plan())
        finally:
            runner.run(benchmark._loaded_model.unload())
    return {
        "statistics": statistics.to_dict(),
        "attempts": attempts,
        "load_s": load.statistics.median / 1e3,
        "shares": work_shares(plan),
        "device": f"{phone.name}, iOS {phone.os_version} ({phone.os_build_number})",
        "thermal": "not reported by the phone; see drift",
    }


async def _prepare(remote_device: Any, team: str) -> Any:
    """The connected phone with the measuring app running on it."""
    phones = remote_device.Device.get_connected_devices(device_type=remote_device.DeviceType.IPHONE)
    if not phones:
        raise UserError("no iPhone is connected: connect and unlock it, trust this Mac, turn developer mode on")
    cache = default_cache_dir() / "modelrunner"
    cache.mkdir(parents=True, exist_ok=True)
    credentials = remote_device.AppSigningCredentials(development_team=team)
    return await phones[0].prepare_for_model_debugging(credentials=credentials, working_directory=cache)
