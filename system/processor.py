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
def _cpuinfo() -> str:
    """What Linux says of the processor; "" elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _field(start: str) -> str:
    """The value of the first line that starts so; "" if there is none."""
    return next((row.partition(":")[2].strip() for row in _cpuinfo().splitlines() if row.startswith(start)), "")


def name() -> str:
    """Returns the name of the CPU model."""
    return _field("model name") or platform.processor() or platform.machine()


def is_amd() -> bool:
    """Returns True on an AMD processor."""
    return "AuthenticAMD" in _cpuinfo() if _cpuinfo() else "AMD" in platform.processor()


@functools.cache
def instruction_sets() -> frozenset[str]:
    """Instruction sets of the processor by Linux's names, such as "avx2"; empty where they are not known."""
    return frozenset(_field("flags").split())


def limits() -> list[str]:
    """The environment variables by which oneDNN is held to older instructions, as NAME=VALUE."""
    return [f"{variable}={value}" for variable in ONEDNN_LIMITS if (value := os.environ.get(variable))]


def bfloat16_obstacle() -> str:
    """Returns why this processor cannot multiply bfloat16, "" if it can, as far as one sees."""
    if BFLOAT16 not in instruction_sets():
        return f"this processor has no bfloat16 instructions ({BFLOAT16})"
    found = limits()
    return f"{found[0]} limits the instructions of oneDNN, unset it" if found else ""
