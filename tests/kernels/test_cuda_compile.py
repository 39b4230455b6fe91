"""The kernels compile for five GPUs without one, nothing is spilled, and shared memory suffices:
NVRTC from pip (minicnn[cuda-check]).
"""

from functools import cache

import pytest

from minicnn.kernels.cuda import compile as check
from minicnn.kernels.cuda.source import FOLDER, kernels, source


def need(architecture):
    version = check.toolkit(architecture)
    if version not in check.libraries():
        pytest.skip(f'NVRTC of CUDA {version} is not installed: pip install "minicnn[cuda-check]"')
    return check.libraries()[version]


table = check.table


@cache
def rows_of(architecture):
    """Rows of the table: to compile all kernels for a GPU takes ten seconds."""
    return list(table([architecture]))


@pytest.mark.parametrize("architecture", check.GPUS, ids=lambda a: f"sm_{a}")
def test_cubins_without_spills(architecture):
    need(architecture)
    rows = rows_of(architecture)
    files = [f.name for f in FOLDER.glob("*.cu") if architecture >= 80 or f.name != "block_tf32.cu"]
    assert {row[2] for row in rows} == {name for file in files for name in kernels(source(file))}
    for _, file, kernel, what, registers, local, shared, dynamic in rows:
        assert local == 0, (
            f"{file}: {kernel} ({what}) uses {local} bytes of local memory per thread"
        )
        assert 0 < registers <= 255 and shared + dynamic <= check.GPUS[architecture][1] + 1024 * (
            architecture >= 90
        ), (kernel, what)


def test_a_spill_would_be_seen():
    """Registers that a launch bound of 1024 threads leaves are too few for the tile of block 3."""
    path = need(90)
    _, constants, _, _ = next(p for p in check.programs(90) if p[3].startswith("block 3, batch 8"))
    text = source("block.cu").replace("__launch_bounds__(THREADS, 1)", "__launch_bounds__(1024, 1)")
    registers, local, _ = check.resources(check.cubin(text, 90, sorted(constants.items()), path))[
        "conv2d_block"
    ]
    assert registers <= 64 and local > 0


def test_errors_of_the_compiler_are_shown():
    path = need(90)
    with pytest.raises(
        RuntimeError,
        match=r"(?s)cannot compile for sm_90 with .*identifier \"nonsense\" is undefined",
    ):
        check.cubin('extern "C" __global__ void f() { nonsense; }', 90, (), path)


def test_the_command_prints_the_table(capsys, monkeypatch):
    need(80)
    monkeypatch.setattr(check, "table", lambda few: [row for a in few for row in rows_of(a)])
    assert check.main(["--arch", "80"]) == 0
    text = capsys.readouterr().out
    assert (
        "sm_80 A100" in text and "nothing is spilled" in text and text.count("conv2d_block ") == 8
    )
