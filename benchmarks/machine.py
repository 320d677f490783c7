"""The machine: what computes, in words, and how much memory was taken."""

import platform
import resource
from importlib.metadata import version
from pathlib import Path

import jax

from benchmarks.process import cores

CPU_INFO = Path("/proc/cpuinfo")


def words() -> str:
    """The accelerator, if JAX has one, the processor, and the versions of what computes."""
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = f"an {names[0]}{_vectors(lines)}" if names else platform.processor() or "an unnamed processor"
    versions = [f"{package} {version(package)}" for package in ("jax", "numpy")]
    return ", ".join(
        [*_accelerator(), f"{len(cores())} cores of {name}", f"Python {platform.python_version()}", *versions]
    )


def _vectors(lines: list[str]) -> str:
    """How wide its arithmetic is, where that is known: it decides more than the name, which a cloud may shorten."""
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    known = {"avx512f": " with AVX-512", "avx2": " with AVX2"}
    return next((words for flag, words in known.items() if flag in flags), "")


def _accelerator() -> list[str]:
    devices = [device for device in jax.devices() if device.platform != "cpu"]
    return [f"{len(devices)} {devices[0].device_kind}"] if devices else []


def peak_bytes() -> tuple[str, int]:
    """("accelerator", what JAX took of it at most), where it says so; else ("process", what this process took)."""
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return "accelerator", stats["peak_bytes_in_use"]
    return "process", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
