"""The memory of this machine's GPUs, from NVIDIA's NVML; 0 if its package is not installed.

The package is ``nvidia-ml-py``, the extra ``gpu``.
"""

import importlib
from typing import Any


def memory_mb() -> int:
    """The memory of all GPUs in MiB, 0 without a GPU or if the driver does not answer."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return 0
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return 0
    try:
        handles = (nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount()))
        total: int = sum(nvml.nvmlDeviceGetMemoryInfo(one).total for one in handles)
        return total >> 20
    except nvml.NVMLError:
        return 0
    finally:
        nvml.nvmlShutdown()
