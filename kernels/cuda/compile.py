"""Compile all kernels for GPUs that are not there, with NVRTC from pip: ``python -m
minicnn.kernels.cuda.compile`` says what each takes.

pip install "minicnn[cuda-check]" brings NVRTC of CUDA 13 (sm_75 and newer) and of CUDA 12 (which
still knows sm_60 and sm_70), and pyelftools, which reads registers, local memory (spills and arrays
that found no register) and static shared memory from the cubin.
"""

import argparse
import ctypes
import struct
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from . import activations, block, block_backward, lit
from .lit_lists import most_per_group
from .source import FOLDER, source

#: The talk's network: (C_in, C_out, cells of a batch of 8 events, few cells), with 5
#: x 5 kernels and pools.
BLOCKS = (
    (1, 10, 8 * 720 * 720, 1142),
    (10, 64, 8 * 144 * 144, 178),
    (64, 128, 8 * 28 * 28, 37),
    (128, 256, 8 * 25, 6),
)
#: GPUs by architecture: (name, bytes of shared memory that a block may have, multiprocessors).
GPUS = {
    60: ("P100", 48 << 10, 56),
    70: ("V100", 96 << 10, 80),
    80: ("A100", 163 << 10, 108),
    90: ("H100, H200", 227 << 10, 132),
    100: ("B200", 227 << 10, 148),
}


def libraries() -> dict[int, str]:
    """Return the paths of the NVRTC libraries that pip installed, {CUDA's major version: path}."""
    spec = find_spec("nvidia")
    roots = [Path(p) for p in (spec and spec.submodule_search_locations) or ()]
    found = {
        13: [p for r in roots for p in r.glob("cu13/lib/libnvrtc.so.13")],
        12: [p for r in roots for p in r.glob("cuda_nvrtc/lib/libnvrtc.so.12")],
    }
    return {version: str(paths[0]) for version, paths in found.items() if paths}


def toolkit(architecture: int) -> int:
    """Return the version of CUDA that compiles for an architecture: 12 up to sm_72, which 13 has
    dropped, else 13.
    """
    return 12 if architecture < 75 else 13


@cache
def _nvrtc(path):
    return ctypes.CDLL(path)


def cubin(text: str, architecture: int, defines: Iterable[tuple[str, Any]], path: str) -> bytes:
    """Return the machine code of a source text for sm_``architecture``; raises RuntimeError with
    NVRTC's log where it does not compile.
    """
    nvrtc, program = _nvrtc(path), ctypes.c_void_p()
    options = [f"-arch=sm_{architecture}", "-std=c++17", *(f"-D{k}={v}" for k, v in defines)]
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None)
    status = nvrtc.nvrtcCompileProgram(
        program, len(options), (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
    )
    size = ctypes.c_size_t()
    try:
        if status:
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            raise RuntimeError(
                f"NVRTC cannot compile for sm_{architecture} with {' '.join(options)}:\n"
                f"{log.value.decode()}"
            )
        nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        code = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetCUBIN(program, code)
        return code.raw
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def resources(code: bytes) -> dict[str, tuple[int, int, int]]:
    """Return {kernel: (registers, bytes of local memory per thread, bytes of static shared memory)}
    from a cubin, which is an ELF file.
    """
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(BytesIO(code))
    sections: dict[str, Any] = {section.name: section for section in elf.iter_sections()}
    functions = {
        i: symbol.name
        for i, symbol in enumerate(sections[".symtab"].iter_symbols())
        if symbol["st_info"]["type"] == "STT_FUNC"
    }
    attributes, offset, info = {}, 0, sections[".nv.info"].data()
    while offset < len(info):  # records: format, attribute, length, then (symbol, value)
        form, attribute, length = struct.unpack_from("<BBH", info, offset)
        if form == 4 and length == 8:
            symbol, value = struct.unpack_from("<II", info, offset + 4)
            attributes[attribute, functions.get(symbol)] = value
        offset += 4 + (length if form == 4 else 0)
    registers, frame = 0x2F, 0x11
    kernels = [name for name in functions.values() if f".text.{name}" in sections]
    shared = {
        name: sections[f".nv.shared.{name}"]["sh_size"] if f".nv.shared.{name}" in sections else 0
        for name in kernels
    }
    return {
        name: (attributes[registers, name], attributes[frame, name], shared[name])
        for name in kernels
    }


class Target:
    """What the launchers ask of a GPU, for one that is not there."""

    def __init__(self, architecture):
        self.runtime = self
        _, self.shared_memory, self.multiprocessors = GPUS[architecture]


def variants(file: str) -> dict[str, dict[str, Any]]:
    """Return {what: constants} of the versions in which a .cu file is compiled."""
    if file == "activation.cu":
        return {name: activations.formulas(name) for name in activations.ACTIVATIONS}
    constants = {
        "pool2d.cu": ("POSITION", ("unsigned char", "int")),
        "add_parts.cu": ("PART", ("float", "double")),
        "normalization.cu": ("STATISTIC", ("float", "double")),
    }
    if file not in constants:
        return {"": {}}
    name, values = constants[file]
    return {value: {name: value} for value in values}


def programs(architecture: int) -> Iterator[tuple[str, dict[str, Any], dict[str, int], str]]:
    """Yield (file, constants, dynamic shared bytes {kernel: bytes}, what) of all that the talk's
    network compiles on a GPU, and of the other ops.
    """
    k, five = Target(architecture), (5, 5)
    for file in sorted(p.name for p in FOLDER.glob("*.cu")):
        if file == "block.cu":
            for i, (ci, co, large, small) in enumerate(BLOCKS):
                for cells, what in ((large, "batch 8"), (small, "few cells")):
                    constants = block.tile(k, five, five, ci, co, cells)
                    assert constants  # the talk's windows fit
                    shared = constants["CELLS"] * block.window_bytes(five, five, ci)
                    yield file, constants, {"conv2d_block": shared}, f"block {i + 1}, {what}"
        elif file == "block_tf32.cu":
            for i, (ci, co, *_) in enumerate(BLOCKS[1:]) if architecture >= 80 else ():
                constants = {**block.window_constants(five, five, ci), "WARPS": min(4, -(-co // 8))}
                yield file, constants, {"conv2d_block_tf32": 512 * 81}, f"block {i + 2}"
        elif file == "block_dw.cu":
            for i, (ci, co, *_) in enumerate(BLOCKS):
                launch_plan = block_backward.dw_constants(k.shared_memory, five, five, ci, co)
                assert launch_plan
                constants, *_, shared = launch_plan
                yield file, constants, {"block_dw": shared}, f"block {i + 1}"
        elif file == "block_dx.cu":
            for i, (ci, co, *_) in enumerate(BLOCKS[1:]):
                constants, shared = block_backward.slice_constants(five, five, ci, co)
                yield (
                    file,
                    constants,
                    {"window_gradients": shared, "sort_channels": co},
                    f"block {i + 2}",
                )
        elif file in ("lit_block.cu", "lit_backward.cu"):
            for i, (ci, co, *_) in enumerate(BLOCKS):
                _, shared = lit.slice_of(k, most_per_group(five), five, co)
                *_, sums = lit.dw_shape(25, ci, co)
                constants = lit.block_constants(ci) if "block" in file else lit.dx_constants(ci)
                yield file, constants, {"lit_block": shared, "lit_dw": sums}, f"block {i + 1}"
        else:
            for what, constants in variants(file).items():
                yield file, constants, {}, what


def table(architectures: Iterable[int]) -> Iterator[tuple[int, str, str, str, int, int, int, int]]:
    """Yield one row per kernel: (architecture, file, kernel, what, threads' registers, local bytes,
    static and dynamic shared bytes).
    """
    paths = libraries()
    for architecture in architectures:
        version = toolkit(architecture)
        if version not in paths:
            raise RuntimeError(
                f"sm_{architecture} needs NVRTC of CUDA {version}: pip install "
                '"minicnn[cuda-check]"'
            )
        for file, constants, dynamic, what in programs(architecture):
            code = cubin(source(file), architecture, sorted(constants.items()), paths[version])
            for kernel, (registers, local, shared) in resources(code).items():
                yield (
                    architecture,
                    file,
                    kernel,
                    what,
                    registers,
                    local,
                    shared,
                    dynamic.get(kernel, 0),
                )


def main(argv: list[str] | None = None) -> int:
    """Print the table; exit status 1 where a kernel uses local memory."""
    p = argparse.ArgumentParser(
        description=__doc__.split(":")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.add_argument(
        "--arch",
        type=int,
        nargs="+",
        choices=list(GPUS),
        default=list(GPUS),
        help="architectures: 90 for sm_90",
    )
    spilled = 0
    print(
        f"{'GPU':<16}{'kernel':<32}{'for':<24}{'registers':>10}{'local B':>9}{'shared B':>10}"
        f"{'+ dynamic':>11}"
    )
    for architecture, _, kernel, what, registers, local, shared, dynamic in table(
        p.parse_args(argv).arch
    ):
        spilled += local > 0
        print(
            f"sm_{architecture} {GPUS[architecture][0]:<10}  {kernel:<32}{what:<24}"
            f"{registers:>10}{local:>9}{shared:>10}{dynamic:>11}"
        )
    print(
        f"{spilled} kernels use local memory"
        if spilled
        else "no kernel uses local memory: nothing is spilled"
    )
    return 1 if spilled else 0


if __name__ == "__main__":
    sys.exit(main())
