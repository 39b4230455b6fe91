# make microboone   the main job on 2 ranks: simulate, load, train, validate; into runs/microboone
# make test         all tests, those on 2, 3 and 4 MPI ranks included
# make lint         ruff: rules and format; mypy: types
# make format       write all files in the format of the house
# make docs         the documentation site into site/, every warning an error
# make gpu-check    on a machine with a GPU: the parity tests on the device, and its figures into
#                   benchmarks/results/ (docs/gpu.md)
# make soak         30 minutes of faults on a training of 2 ranks (ARGS="--minutes 10")
# make fuzz         damaged files for every parser (ARGS="--inputs 100000")
# make bench        the benchmarks that need nothing but this machine
# Each sets up what it needs in $(VENV); only Python >= 3.11 and make are assumed.
VENV   ?= .venv
PYTHON ?= python3
RANKS  ?= 2
BIN     = $(VENV)/bin

.PHONY: microboone test lint format docs soak fuzz bench gpu-check install clean
install: $(VENV)/installed

$(VENV)/installed: setup.py pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"minicnn needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

microboone: install
	$(BIN)/mpiexec -n $(RANKS) $(BIN)/python examples/microboone.py $(ARGS)

# Two tests at a time: most of the time one of them compiles, which takes one core.
WORKERS ?= 2
test: install
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: install
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: install
	$(BIN)/python -m ruff check --fix --quiet .
	$(BIN)/python -m ruff format .

soak: install
	$(BIN)/python tests/faults/soak.py --json benchmarks/results/soak-2-ranks.json $(ARGS)

fuzz: install
	$(BIN)/python tests/faults/fuzz.py --json benchmarks/results/fuzz.json $(ARGS)

# NO_MKDOCS_2_WARNING: mkdocs-material has a note on MkDocs' future that is no warning of ours
docs: install
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: install
	$(BIN)/python benchmarks/kernels.py
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/simulate.py

# The driver's CUDA version decides which CuPy fits: make gpu-check CUDA=12
CUDA ?= 13
gpu-check: install
	$(BIN)/python -m pip install --quiet --editable ".[cuda$(CUDA)]"
	MINICNN_TEST_DEVICE=cuda $(BIN)/python -m pytest tests/kernels/test_ops.py \
		tests/kernels/test_kernels_cuda.py tests/engine/test_cuda_model.py $(ARGS)
	$(BIN)/python benchmarks/gpu.py --cpu --json benchmarks/results

clean:
	rm -rf $(VENV) build site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
