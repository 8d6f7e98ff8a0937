"""What runs in the process of one Core ML measurement on a Mac: load, warm up, time predictions, ask the plan."""

import platform
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.latency.measurement.rounds import time_until_steady

if TYPE_CHECKING:
    from coremltools.models import MLModel

WARM_UPS = 3
RUNS, FEWEST_RUNS = 30, 5
SET_SECONDS = 20.0
"""Seconds after which a set of runs ends before it has `RUNS` runs."""


def measure_package(task: dict[str, Any]) -> dict[str, Any]:
    """Statistics of the predictions, time to load, shares of work per compute device, and what measured."""
    import coremltools as ct

    units = ct.ComputeUnit[task["units"]]
    started = time.perf_counter()
    model = ct.models.MLModel(task["package"], compute_units=units)
    load_s = time.perf_counter() - started
    inputs = random_inputs(model)

    def predict_ms() -> float:
        model.predict(inputs)
        return float(model.last_predict_duration_in_nano_seconds) / 1e6

    for _ in range(WARM_UPS):
        predict_ms()
    statistics, attempts = time_until_steady(lambda: time_set(predict_ms))
    plan = ct.models.compute_plan.MLComputePlan.load_from_path(model.get_compiled_model_path(), compute_units=units)
    return {
        "statistics": statistics.to_dict(),
        "attempts": attempts,
        "load_s": load_s,
        "shares": work_shares(plan),
        "device": describe_mac(),
        "thermal": thermal_note(),
    }


def time_set(predict_ms: "Any") -> list[float]:
    """Milliseconds of the runs of one set."""
    started, samples = time.perf_counter(), list[float]()
    while len(samples) < RUNS and (len(samples) < FEWEST_RUNS or time.perf_counter() - started < SET_SECONDS):
        samples.append(predict_ms())
    return samples


def random_inputs(model: "MLModel") -> dict[str, Any]:
    """A random array for each input of a model."""
    generator = np.random.default_rng(0)
    return {
        feature.name: generator.standard_normal(tuple(feature.type.multiArrayType.shape)).astype(np.float32)
        for feature in model.get_spec().description.input
    }


def work_shares(plan: Any) -> dict[str, dict[str, float]]:
    """Shares of the operations and of the estimated cost, by compute device. A plan, not proof of what ran where."""
    operations: Counter[str] = Counter()
    cost: Counter[str] = Counter()
    for operation in plan.model_structure.program.functions["main"].block.operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        if usage is None:
            continue
        device = type(usage.preferred_compute_device).__name__.removeprefix("ML").removesuffix("ComputeDevice")
        estimate = plan.get_estimated_cost_for_mlprogram_operation(operation)
        operations[device] += 1
        cost[device] += 0.0 if estimate is None else estimate.weight  # type: ignore[assignment]
    return {"operations": _normalised(operations), "cost": _normalised(cost)}


def describe_mac() -> str:
    """ "Mac14,2, macOS 15.1"."""
    model = subprocess.run(["sysctl", "-n", "hw.model"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{model}, macOS {platform.mac_ver()[0]}"


def thermal_note() -> str:
    """What the system says about heat, in its own words."""
    return subprocess.run(["pmset", "-g", "therm"], capture_output=True, text=True, check=True).stdout.strip()


def _normalised(counts: "Counter[str]") -> dict[str, float]:
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()} if total else {}
