"""The processor: its name, its instruction sets, and what it can do."""

import functools
import os
import platform
from pathlib import Path

# With these oneDNN and OpenVINO can be held to older instructions.
ONEDNN_LIMITS = ("DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA")
# Instruction set that multiplies bfloat16; AMX processors have it too.
BFLOAT16 = "avx512_bf16"


@functools.cache
def name() -> str:
    """Returns the name of the CPU model."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@functools.cache
def is_amd() -> bool:
    """Returns True on an AMD processor."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "AMD" in platform.processor()


@functools.cache
def instruction_sets() -> frozenset[str]:
    """Instruction sets of the processor by Linux's names, such as "avx2"; empty where they are not known."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))


def limits() -> list[str]:
    """The environment variables by which oneDNN is held to older instructions, as NAME=VALUE."""
    return [f"{variable}={value}" for variable in ONEDNN_LIMITS if (value := os.environ.get(variable))]


def bfloat16_obstacle() -> str:
    """Returns why this processor cannot multiply bfloat16, "" if it can, as far as one sees."""
    if BFLOAT16 not in instruction_sets():
        return f"this processor has no bfloat16 instructions ({BFLOAT16})"
    found = limits()
    return f"{found[0]} limits the instructions of oneDNN, unset it" if found else ""
