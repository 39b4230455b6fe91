"""The C++ of docs/larsoft.md, compiled against libtorch and run on an exported network."""

import re
import shutil
import subprocess

import numpy as np
import pytest

import minicnn as mc
from helpers import ROOT

MAIN = """
#include <torch/script.h>
#include <cstdio>
#include <vector>

int main() {
  const int64_t planes = 2, wires = 6, ticks = 8;
  std::vector<float> adc(planes * wires * ticks);
  for (size_t k = 0; k < adc.size(); ++k) adc[k] = float(k % 7);
  BLOCK
  for (int64_t k = 0; k < scores.size(1); ++k) std::printf("%.8f ", scores[0][k].item<float>());
}
"""


@pytest.mark.slow
def test_the_program_of_the_page(tmp_path):
    torch = pytest.importorskip("torch", reason="the extra torch is not installed")
    compiler = shutil.which("g++") or pytest.skip("no g++")
    cmake = pytest.importorskip("torch.utils").cmake_prefix_path
    base = cmake.removesuffix("/share/cmake")
    (block,) = re.findall(
        r"^```cpp\n(.*?)^```", (ROOT / "docs/larsoft.md").read_text(), re.M | re.S
    )
    (tmp_path / "main.cpp").write_text(MAIN.replace("BLOCK", block))
    flags = [f"-I{base}/include", f"-I{base}/include/torch/csrc/api/include", f"-L{base}/lib"]
    flags += ["-ltorch", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{base}/lib"]
    flags += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
    program = [compiler, "-std=c++20", "-O0", "main.cpp", "-o", "main", *flags]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]

    layers = [mc.Conv2D(3, 3), mc.ELU(), mc.Flatten(), mc.Dense(4)]
    model = mc.Sequential(layers, (6, 8, 2), input_scale=0.1, device="reference")
    mc.exchange.export_model(model, tmp_path / "model.pt")
    done = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    image = (np.arange(96) % 7).reshape(2, 6, 8).transpose(1, 2, 0).astype(np.float32)
    scores = np.array(done.stdout.split(), np.float32)
    np.testing.assert_allclose(scores, model.predict(image[None])[0], rtol=1e-5, atol=1e-6)
