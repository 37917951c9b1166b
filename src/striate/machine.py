"""The machine as a training sees it: device, precision, threads, memory, and named random streams.

Randomness never lives in a generator that has to be saved. Every random number is a hash of a seed, a
stream's name and two counters (epoch and sample, or step and zero), the same in numpy and in torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import random
import sys
import threading
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from striate.errors import ResourceError, UserError

# A module whose one attribute its type checkers do not see.
_fill: Any = torch.utils.deterministic
Precision = Literal["auto", "bf16", "fp16", "fp32"]
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}

# ---------------------------------------------------------------- named random streams

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def _mix(x: int) -> int:
    """Finaliser of splitmix64 on one 64-bit number. Source: Steele, Lea and Flood 2014, section 5 (variant by Stafford)."""
    x = ((x ^ (x >> 30)) * _MIX_1) & _MASK
    x = ((x ^ (x >> 27)) * _MIX_2) & _MASK
    return x ^ (x >> 31)


def _stream(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def stream_seed(seed: int, name: str, *counters: int) -> int:
    """A 63-bit seed that is a pure function of (seed, name, counters), for code that wants a seed of its own."""
    state = _stream(seed, name)
    for counter in counters:
        state = _mix((state + _GOLDEN * (counter + 1)) & _MASK)
    return state >> 1


def _mix_N(x_N: np.ndarray) -> np.ndarray:
    x_N = (x_N ^ (x_N >> np.uint64(30))) * np.uint64(_MIX_1)
    x_N = (x_N ^ (x_N >> np.uint64(27))) * np.uint64(_MIX_2)
    mixed_N: np.ndarray = x_N ^ (x_N >> np.uint64(31))
    return mixed_N


def bits(seed: int, name: str, first: int, second_N: np.ndarray, draws: int) -> np.ndarray:
    """Random 64-bit words, a pure function of (seed, name, first, second).

    first: one counter (an epoch or a step). second_N: [N] integers (sample numbers). Returns [N, draws] uint64.
    """
    head = _mix((_stream(seed, name) + _GOLDEN * (first + 1)) & _MASK)
    with np.errstate(over="ignore"):
        row_N = _mix_N(
            np.uint64(head) + np.uint64(_GOLDEN) * (np.asarray(second_N, dtype=np.int64).astype(np.uint64) + np.uint64(1))
        )
        column = np.uint64(_GOLDEN) * np.arange(1, draws + 1, dtype=np.uint64)
        return np.asarray(_mix_N(row_N[:, None] + column[None, :]))


def uniforms(seed: int, name: str, first: int, second_N: np.ndarray, draws: int) -> np.ndarray:
    """Random numbers in [0, 1), a pure function of (seed, name, first, second).

    first: one counter (an epoch or a step). second_N: [N] integers (sample numbers).
    Returns [N, draws] float64 with 53 random bits.
    """
    return (bits(seed, name, first, second_N, draws) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _wrapped(x: int) -> int:
    """A 64-bit word as torch's signed int64 holds it."""
    return x - (1 << 64) if x >> 63 else x


def _mix_torch(x: torch.Tensor) -> torch.Tensor:
    def shifted(value: torch.Tensor, by: int) -> torch.Tensor:
        return (value >> by) & ((1 << (64 - by)) - 1)

    x = (x ^ shifted(x, 30)) * _wrapped(_MIX_1)
    x = (x ^ shifted(x, 27)) * _wrapped(_MIX_2)
    return x ^ shifted(x, 31)


def bits_torch(seed: int, name: str, first: int, second_N: torch.Tensor, draws: int) -> torch.Tensor:
    """`bits` on the device of `second_N` ([N] int64): the same words, as signed numbers. Returns [N, draws] int64."""
    head = _mix((_stream(seed, name) + _GOLDEN * (first + 1)) & _MASK)
    row_N = _mix_torch((second_N.to(torch.int64) + 1) * _wrapped(_GOLDEN) + _wrapped(head))
    column = torch.arange(1, draws + 1, dtype=torch.int64, device=second_N.device) * _wrapped(_GOLDEN)
    return _mix_torch(row_N[:, None] + column[None, :])


def uniforms_torch(seed: int, name: str, first: int, second_N: torch.Tensor, draws: int) -> torch.Tensor:
    """`uniforms` on the device of `second_N` ([N] int64): the same numbers bit for bit. Returns [N, draws] float64."""
    words = bits_torch(seed, name, first, second_N, draws)
    return ((words >> 11) & ((1 << 53) - 1)).to(torch.float64) * 2.0**-53


def permutation(seed: int, name: str, first: int, count: int) -> np.ndarray:
    """A permutation of 0..count-1, a pure function of (seed, name, first). Returns [count] int64."""
    words_N = bits(seed, name, first, np.arange(count), 1)[:, 0]
    return np.argsort(words_N, kind="stable").astype(np.int64)


def reseed_torch(seed: int, *counters: int) -> None:
    """Sets torch's own generators (dropout) to a pure function of (seed, counters); called before each forward pass."""
    torch.manual_seed(stream_seed(seed, "torch", *counters))


# ---------------------------------------------------------------- threads and memory


def cores(shared: bool = True) -> int:
    """Processors that this process may really use: the smaller of its affinity and its cgroup quota, at least 1.

    shared: the processes that torchrun starts on one machine get equal shares.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            allowed = min(allowed, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2 on this system: the affinity alone decides
    return max(1, allowed // (_local_processes() if shared else 1))


def _local_processes() -> int:
    """Processes of this training on this machine, as torchrun says."""
    text = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(text)) if text.isdigit() else 1


def free_memory_bytes() -> int:
    """Memory that can be taken without swapping: the smaller of the system's and the cgroup's remainder."""
    free = 4 * 1024**3
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        pass  # not Linux, or no cgroup v2: what was found so far stands
    return max(free, 0)


def threads_wanted() -> int:
    """Threads for torch: $OMP_NUM_THREADS where it is set, else one per core.

    A 1 within torchrun counts as unset: torchrun puts it there for everyone who sets nothing.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if not (asked.isdigit() and int(asked) > 0) or (asked == "1" and _local_processes() > 1):
        return cores()
    return int(asked)


def use_threads(count: int) -> None:
    """Sets torch's threads for one operation; one per core is best, more than cores is ruinous."""
    torch.set_num_threads(max(1, count))


def step_back() -> None:
    """Lets the training's threads go before the calling one, where the system gives each thread a priority (Linux)."""
    if sys.platform.startswith("linux"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def queued_s() -> float:
    """Seconds that the calling thread stood in the queue for a processor so far; 0 where the system does not tell."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0  # not Linux, or a kernel without these counts


def keep_freed_memory() -> bool:
    """Makes the C allocator keep and reuse large blocks, in huge pages, instead of returning them at each free.

    Activations are large and short-lived: by default each is a fresh mapping whose pages fault one by one.
    Measured on 2 cores (Sapphire Rapids, torch 2.15, bf16, batch 128): kth-d 239 → 434 images/s,
    ResNet-18 at 64 px 296 → 378 images/s, one run of each after the other. Linux with glibc only; returns whether it took effect.
    Must run before torch allocates its first tensor for the huge pages to take effect.
    """
    if not sys.platform.startswith("linux"):
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False  # another C library (musl): its allocator has no such switch
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    done = [mallopt(mmap_max, 0), mallopt(trim_threshold, 2**31 - 1), mallopt(top_pad, 64 * 1024**2)]
    return all(done)


# ---------------------------------------------------------------- device and precision


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device named "auto", "cpu", "cuda", "cuda:1" or "mps".

    "auto" takes a usable GPU, else the CPU; a GPU that is present but unusable is an error, not the CPU.
    local_rank: of several processes on this machine each takes the GPU of its number.
    Raises UserError when the named device does not exist, ResourceError when it exists and cannot be used.
    """
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        elif torch.backends.mps.is_available():
            name = "mps"
        elif gpu_present():
            raise ResourceError(unusable_gpu() + " To train on the CPU all the same: --device cpu")
        else:
            name = "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: not a device name. Use auto, cpu, cuda, cuda:N or mps.") from error
    if device.type == "cuda":
        if _local_processes() > 1:
            if device.index is not None:
                raise UserError(f"--device {name}: each process takes a GPU of its own. Use --device cuda, or leave it out.")
            device = torch.device("cuda", local_rank)
        if not torch.cuda.is_available():
            if gpu_present():
                raise ResourceError(unusable_gpu())
            raise UserError(f"--device {name}: this machine has no NVIDIA GPU. Use --device cpu, or leave it out.")
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise UserError(f"--device {device}: this machine has {torch.cuda.device_count()} GPU(s), numbered from 0.")
        try:
            torch.zeros(1, device=device)
        except RuntimeError as error:
            raise ResourceError(f"--device {name}: {str(error).splitlines()[0]} {unusable_gpu()}") from error
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise UserError("--device mps: this machine has no Apple GPU that torch can use. Use --device cpu.")
    elif device.type != "cpu":
        raise UserError(f"--device {name}: striate runs on cpu, cuda and mps.")
    return device


def gpu_present() -> bool:
    """Whether the system shows an NVIDIA GPU, usable or not."""
    return Path("/proc/driver/nvidia/gpus").is_dir() or Path("/dev/nvidia0").exists()


def unusable_gpu() -> str:
    """Why a GPU that is present cannot be used, in words, with the remedy."""
    if torch.version.cuda is None:
        return "There is a GPU, but this torch was built without CUDA: install torch from PyPI without the +cpu suffix."
    return (
        f"There is a GPU, but torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use it: the driver is probably older "
        "than this CUDA. Update the NVIDIA driver, or install a torch built for an older CUDA."
    )


def choose_precision(wanted: Precision, device: torch.device) -> Literal["bf16", "fp16", "fp32"]:
    """What "auto" means here: bf16 where the hardware multiplies it fast, fp16 on older GPUs, else fp32."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    if device.type == "cpu" and {"amx_bf16", "avx512_bf16"} & cpu_flags():
        return "bf16"
    return "fp32"


def autocast(device: torch.device, precision: Literal["bf16", "fp16", "fp32"]) -> torch.autocast:
    """Within the block matrix products and convolutions are computed in this precision; with fp32 nothing changes."""
    return torch.autocast(device.type, dtype=_AUTOCAST.get(precision), enabled=precision in _AUTOCAST)


def copied(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on a device; itself where it is there. A copy from pinned memory to a GPU goes on beside the work.

    Not so on MPS, which would still read memory that its owner has let go of and that holds other values by then
    (pytorch issue 189690).
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


def cpu_flags() -> set[str]:
    """Instruction-set flags of the first processor as Linux names them; empty elsewhere."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return set(line.split(":", 1)[1].split())
    except OSError:
        pass  # not Linux
    return set()


@contextlib.contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Within the block torch uses deterministic algorithms (if wanted); the flags before it come back after it."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        _fill.fill_uninitialized_memory,
    )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.benchmark = not wanted
    # Filling every fresh tensor costs a pass over memory and changes no result of a program that reads only what it wrote.
    _fill.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
        _fill.fill_uninitialized_memory = before[2]


@contextlib.contextmanager
def as_found() -> Iterator[None]:
    """After the block the process is as before it where that can be: torch's threads, the global random generators.

    For a notebook, whose other cells must not notice a training.
    """
    threads = torch.get_num_threads()
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global generator is exactly what is meant
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(gpus):
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def describe(device: torch.device) -> dict[str, Any]:
    """What a result depends on besides the recipe: versions, processor, threads, device. Plain JSON values."""
    model = platform.processor()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    facts: dict[str, Any] = {
        "striate": metadata.version("striate"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": metadata.version("torchvision"),
        "numpy": np.__version__,
        "pillow": metadata.version("pillow"),
        "simplejpeg": metadata.version("simplejpeg"),
        "system": platform.platform(),
        "processor": model,
        "cores": cores(shared=False),
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None,
        "device": str(device),
    }
    with contextlib.suppress(metadata.PackageNotFoundError):  # not on every platform
        facts["opencv"] = metadata.version("opencv-python-headless")
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["cuda"] = torch.version.cuda
        facts["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return facts


def forget_global_randomness(seed: int) -> None:
    """Sets the global generators that foreign code may draw from (Python's, numpy's, torch's) to one known state."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global generator is exactly what is meant
    torch.manual_seed(seed)
