"""What a learner tells of its GPUs: asked of the driver (NVML) at each scrape, and nothing where there is none.

The driver knows what a framework does not: memory that was taken by another framework, by the processes of a training
on several devices, or by somebody else on the same GPU. The package nvidia-ml-py asks it; without that package, without
a driver, or with a GPU that does not tell (a slice of one has no utilisation), the series are absent.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_logger = logging.getLogger(__name__)


class GpuCollector(Collector):
    """Memory and utilisation of the GPUs that this process sees, as its framework counts them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nvml: Any = None
        self._looked = False

    def collect(self) -> Iterable[Metric]:
        """Ask the driver."""
        memory = GaugeMetricFamily(
            "collective_gpu_memory_bytes", "Memory of the GPU in use, by whomever.", labels=["gpu"]
        )
        capacity = GaugeMetricFamily(
            "collective_gpu_memory_capacity_bytes", "Memory that the GPU, or the slice of one, has.", labels=["gpu"]
        )
        utilization = GaugeMetricFamily(
            "collective_gpu_utilization_ratio",
            "Share of the driver's last sample, a second at most, in which the GPU was at work.",
            labels=["gpu"],
        )
        with self._lock:
            if not self._looked:  # once: a driver that is not there will not come
                self._looked, self._nvml = True, _driver()
            if self._nvml is not None:
                self._ask(memory, capacity, utilization)
        return [family for family in (memory, capacity, utilization) if family.samples]

    def _ask(self, memory: GaugeMetricFamily, capacity: GaugeMetricFamily, utilization: GaugeMetricFamily) -> None:
        nvml = self._nvml
        for position, gpu in enumerate(_seen_by_frameworks(nvml)):
            try:
                told = nvml.nvmlDeviceGetMemoryInfo(gpu)
                memory.add_metric([str(position)], told.used)
                capacity.add_metric([str(position)], told.total)
                utilization.add_metric([str(position)], nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100)
            except nvml.NVMLError as error:
                _logger.debug("GPU %d does not tell everything: %s", position, error)


def _driver() -> Any:
    """Give the driver's interface; None without a driver, or without the package."""
    try:
        nvml = importlib.import_module("pynvml")
    except ModuleNotFoundError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        _logger.debug("no driver for GPUs: %s", error)
        return None
    return nvml


def _seen_by_frameworks(nvml: Any) -> Iterator[Any]:
    """Give the GPUs that CUDA_VISIBLE_DEVICES leaves, in its order; as CUDA does, up to the first that is not there."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        names = [str(index) for index in range(nvml.nvmlDeviceGetCount())] if chosen is None else chosen.split(",")
        for name in map(str.strip, names):
            if name.isdecimal():
                yield nvml.nvmlDeviceGetHandleByIndex(int(name))
            elif name.startswith(("GPU-", "MIG-")):
                yield nvml.nvmlDeviceGetHandleByUUID(name)
            else:
                return
    except nvml.NVMLError as error:
        _logger.debug("not all GPUs can be asked: %s", error)
