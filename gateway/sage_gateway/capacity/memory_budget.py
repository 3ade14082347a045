"""Threads and memory of all replicas, compared with the machine or ``budget``.

Pure but for :func:`machine`. Memory is computed from what is known before a start:

``replica = weights + kv``, ``weights`` = size of the files at ``source``,
``kv = context_tokens * slots * kv_bytes``, ``kv_bytes = 2 * layers * kv_heads * head_size * 2``
(keys and values, 16 bits each; see :mod:`sage_gateway.capacity.model_size`).

The further memory of a runtime (buffers, graphs: 100 to 500 MiB) is not included, so that a model
is refused only where it cannot fit. Of the memory of all GPUs together a replica takes its
``gpu_memory_mb``; its weights and KV cache are then counted there and not here.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from sage_gateway.capacity import gpu
from sage_gateway.config.pool_spec import BudgetSpec

MIB = 1 << 20
CGROUP = Path("/sys/fs/cgroup")


class Footprint(NamedTuple):
    """What one model takes: ``replicas`` times threads, MiB of weights and MiB of KV cache.

    With ``gpu_mb`` the latter two are 0.
    """

    name: str
    replicas: int
    threads: int
    weights_mb: int
    kv_mb: int
    gpu_mb: int = 0

    def memory_mb(self) -> int:
        """Of all replicas."""
        return self.replicas * (self.weights_mb + self.kv_mb)


class Machine(NamedTuple):
    """The resources of this process: cores, and MiB of main memory and of all GPUs."""

    cores: int
    memory_mb: int
    gpu_mb: int = 0


def problems(
    footprints: Iterable[Footprint], budget: BudgetSpec, machine: Machine
) -> Iterator[str]:
    """Why the models do not fit, each reason with its arithmetic."""
    found = [one for one in footprints if one.replicas]
    threads = sum(one.replicas * one.threads for one in found)
    if budget.cpu_threads is not None and threads > budget.cpu_threads:
        sums = _sum(f"{n.name} {n.replicas} x {n.threads}" for n in found if n.threads)
        yield (
            f"CPU: {sums} = {threads} threads, and budget.cpu_threads is {budget.cpu_threads}; "
            "take fewer threads or replicas, or raise it"
        )
    memory_mb = sum(one.memory_mb() for one in found)
    limit_mb = budget.memory_mb or machine.memory_mb
    if memory_mb > limit_mb:
        sums = _sum(
            f"{n.name} {n.replicas} x ({n.weights_mb} weights + {n.kv_mb} KV cache)"
            for n in found
            if n.memory_mb()
        )
        limit = "budget.memory_mb is" if budget.memory_mb else "this machine has"
        yield (
            f"memory: {sums} = {memory_mb} MiB, and {limit} {limit_mb}; take fewer replicas or "
            "slots, a shorter context_tokens, or smaller weights"
        )
    gpu_mb = sum(one.replicas * one.gpu_mb for one in found)
    limit_mb = budget.gpu_memory_mb or machine.gpu_mb
    if gpu_mb > limit_mb:
        sums = _sum(f"{n.name} {n.replicas} x {n.gpu_mb}" for n in found if n.gpu_mb)
        limit = "budget.gpu_memory_mb is" if budget.gpu_memory_mb else "the GPUs here have"
        yield f"GPU memory: {sums} = {gpu_mb} MiB, and {limit} {limit_mb}; take fewer replicas"


def oversubscription(footprints: Iterable[Footprint], budget: BudgetSpec, machine: Machine) -> str:
    """A warning if there are more threads than cores and the budget does not limit them."""
    found = list(footprints)
    threads = sum(one.replicas * one.threads for one in found)
    if budget.cpu_threads is not None or threads <= machine.cores:
        return ""
    sums = _sum(f"{n.name} {n.replicas} x {n.threads}" for n in found if n.replicas * n.threads)
    return f"CPU: {sums} = {threads} threads on {machine.cores} cores; at full load they share"


def machine() -> Machine:
    """This machine, as far as this process may use it: affinity and the control group's limits."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_mb = psutil.virtual_memory().total // MIB
    limit = _read("memory.max")
    if limit and limit[0].isdigit():
        memory_mb = min(memory_mb, int(limit[0]) // MIB)
    quota = _read("cpu.max")
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores or 1, max(1, int(quota[0]) // int(quota[1])))
    return Machine(cores or 1, memory_mb, gpu.memory_mb())


def _read(name: str) -> list[str]:
    """The words of a file of this process' control group (version 2); empty without one."""
    try:
        own = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip().lstrip("/")
        return (CGROUP / own / name).read_text().split()
    except OSError:
        return []


def _sum(parts: Iterable[str]) -> str:
    return " + ".join(parts)
