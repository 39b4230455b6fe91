"""Feed damaged files to every parser: nothing may hang, crash, or raise anything but its own error
that names the file; and where a format has digests, nothing may be read as another event.

    python tests/faults/fuzz.py [--inputs 200] [--formats NAME...] [--first 0] [--seed 0]
                                [--jobs 2] [--json FILE [--go-on]]

Every input is a sound file with some bytes changed, or with its structure changed by h5py or in its
JSON. It is made from the seed and its number alone, and read in a child process with limits:
SECONDS of processor time, MEMORY bytes. Where a library that parses a format hangs or crashes there
(libhdf5, uproot), the input is read once more, as ``inspect`` and ``convert`` do it: in a sandbox,
which must end with an error that names the file. What is found is kept in --keep, and the exit
status is then 1.

--go-on takes the inputs behind those that FILE counts, and adds to its figures: many inputs in
several runs.
"""

import argparse
import json
import os
import random
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib import util
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "benchmarks")]
from faults.mutations import mutated  # noqa: E402

SECONDS, MEMORY, WALL = 2, 4 << 30, 600
#: Outcomes, and which of them are faults; "other" is one only where the format has digests.
#: "isolated": a hang or a crash that the sandbox turned into an error.
OUTCOMES = ("same", "error", "other", "isolated", "foreign", "unnamed", "hang", "crash")
FAULTS = {"foreign", "unnamed", "hang", "crash"}


def test_module(path):
    """The module of a test file, whose writers of formats are used here."""
    spec = util.spec_from_file_location(Path(path).stem, TESTS / path)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------------ the formats
def event_file(path):
    from helpers.cli import make_events

    make_events(path, 4, metadata={"sources": ["a"]})


def by_test(module, writer, argument=None):
    """The function ``writer`` of a reader's tests as a writer; argument: the name there of what it
    is to write.
    """

    def write(path):
        tests = test_module(f"data/test_readers_{module}.py")
        getattr(tests, writer)(path, *([getattr(tests, argument)] if argument else []))

    return write


def waveforms(path):
    import numpy as np

    module = test_module("data/test_readers_waveforms.py")
    np.savez_compressed(path, adc=module.waveforms(20, 400, [(7, 100, 60)]))


def image(path):
    import numpy as np

    pixels = np.zeros((12, 9), np.float32)
    pixels[3:5, 2:8] = 7.5
    np.save(path, pixels) if path.suffix == ".npy" else np.savez_compressed(path, img=pixels)


def checkpoint(path):
    import minicnn as mc
    from helpers import random_batch, small_model

    model = small_model(optimizer=mc.Adam(mc.optim.Cosine(0.01, 40, 0.001)))
    model.train_on_batch(*random_batch(2))
    model.save(path)


#: {format: (writer, name of the file, whether digests or checksums cover its contents)}
FORMATS = {
    "event file": (event_file, "a.h5", True),
    "checkpoint": (checkpoint, "a.safetensors", True),
    "image.npz": (image, "a.npz", True),
    "waveforms.npz": (waveforms, "a.npz", True),
    "image.npy": (image, "a.npy", False),
    "larcv3": (by_test("larcv3", "write_larcv3", "EVENTS"), "a.h5", False),
    "larcv3, tensors": (by_test("larcv3_tensors", "write_tensors"), "a.h5", False),
    "open samples": (by_test("open_samples", "write_open_samples", "EVENTS"), "a.h5", False),
    "open samples, hits": (by_test("open_samples", "write_without_wires"), "a.h5", False),
    "pilarnet": (by_test("pilarnet", "write_vlen", "EVENTS"), "a.h5", False),
    "pilarnet, particles": (by_test("pilarnet", "write_with_particles"), "a.h5", False),
    "pilarnet, flat": (by_test("pilarnet", "write_flat", "PARTICLES"), "a.h5", False),
    "kevlar": (by_test("kevlar", "write"), "a.h5", False),
    "larnd-sim": (by_test("larnd_sim", "write"), "a.h5", False),
    "ndlar_flow": (by_test("flow", "write"), "a.h5", False),
    "wire-cell.npz": (by_test("wirecell", "write"), "a.npz", False),  # a zip may lose members
    "wire-cell.tar": (by_test("wirecell", "write"), "a.tar", False),
    "wire-cell.tar.bz2": (by_test("wirecell", "write"), "a.tar.bz2", True),
    "wire-cell.tar.gz": (by_test("wirecell", "write"), "a.tar.gz", True),
}
if util.find_spec("uproot"):
    FORMATS["larcv2, tensors"] = (by_test("larcv2_sparse", "write_tensors"), "a.root", False)


# -------------------------------------------------------------------------------------- the child
def contents(name, path):
    """What is read, to be compared, and whether some of it was an error that names the file."""
    import minicnn as mc
    from minicnn.data import EventError, open_events
    from minicnn.train.checkpoint import CheckpointError

    if name == "checkpoint":
        try:
            model = mc.load_model(path, device="reference")
        except CheckpointError as problem:
            return [named(problem, path)]
        state = {k: v.tobytes() for k, v in model.optimizer.state.items()}
        settings = [model.config(), model.optimizer.config(), model.updates, model.optimizer.steps]
        return [repr((model.parameters.tobytes(), state, settings))]
    try:
        reader = open_events(path)
    except EventError as problem:
        return [named(problem, path)]
    found = [repr((len(reader), reader.image_shape, reader.class_names, reader.labels.tolist()))]
    with reader:
        for i in range(len(reader)):
            try:
                found.append(fingerprint(reader.read(i)))
            except EventError as problem:
                found.append(named(problem, path))
            if i == 100:  # of a file that claims to have more than it was written with
                break
    return found


def fingerprint(event):
    arrays = (event.image.coords, event.image.values, event.particles, event.pixel_labels)
    parts = [None if a is None else (a.shape, a.tobytes()) for a in arrays]
    return repr((event.label, tuple(event.id), event.image.shape, event.image.background, parts))


def named(problem, path):
    return "error" if str(path) in str(problem) else f"unnamed: {problem}"


def outcome(name, path, truth):
    """(one of OUTCOMES, what there is to say)"""
    try:
        found = contents(name, path)
    except Exception as problem:
        return "foreign", f"{type(problem).__name__}: {problem}"[:300]
    unnamed = [one for one in found if one.startswith("unnamed")]
    if unnamed:
        return "unnamed", unnamed[0][:300]
    if found == truth:
        return "same", ""
    if found == ["error"] or all(a in ("error", b) for a, b in zip(found, truth, strict=False)):
        return "error", ""
    return "other", ""


def contained(path):
    """Whether a sandbox turns a file that hangs or crashes its parser into an error that names
    it.
    """
    from minicnn.data import EventError
    from minicnn.data.readers.isolated import IsolatedReader, Limits, Sandbox

    with Sandbox(Limits(SECONDS, MEMORY)) as sandbox:
        try:
            reader = IsolatedReader(path, sandbox)
        except EventError as problem:
            return str(path) in str(problem)
        found = []
        for i in range(len(reader)):
            try:
                reader.read(i)
            except EventError as problem:
                found.append(str(path) in str(problem))
    return bool(found) and all(found)


def child(name, folder, seed, first, last):
    """Read inputs first to last - 1; a line for the start of each and one for its end."""
    file = FORMATS[name][1]
    sound, path = folder / f"sound-{file}", folder / file
    truth = contents(name, sound)
    assert truth and "error" not in truth, (name, truth)
    path.write_bytes(sound.read_bytes())
    assert contents(name, path) == truth, "two readings of one file differ"
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(first, last):
        how = mutated(sound, path, random.Random(f"{seed} {name} {number}"))
        print(json.dumps([number, how]), flush=True)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the process
        result = outcome(name, path, truth)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(result), flush=True)


# ------------------------------------------------------------------------------------- the parent
class Child:
    """The child under way; ``line()`` is what it says next, None where it has ended or hangs."""

    def __init__(self, *arguments):
        command = [sys.executable, __file__, "--child", *map(str, arguments)]
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **one_thread, "PYTHONPATH": str(TESTS.parent)},
        )
        self.said = b""

    def line(self):
        pipe, end = self.process.stdout.fileno(), time.monotonic() + WALL
        while b"\n" not in self.said:
            left = end - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                self.process.kill()
                return None
            got = os.read(pipe, 1 << 16)
            if not got:
                return None
            self.said += got
        line, self.said = self.said.split(b"\n", 1)
        return json.loads(line)

    def end(self):
        """How it ended: "hang", "crash ...", or "" where it is done."""
        self.process.stdout.close()
        status = self.process.wait()
        if status == -signal.SIGINT:  # Ctrl-C is no fault of the file
            raise KeyboardInterrupt
        if status in (-signal.SIGPROF, -signal.SIGKILL):
            return "hang"
        name = signal.Signals(-status).name if status < 0 else f"status {status}"
        return f"crash: {name}" if status else ""


def fuzz(name, folder, first, options):
    """Return ({outcome: inputs}, [what is wrong]) of the inputs from number ``first`` on."""
    writer, file, digests = FORMATS[name]
    writer(folder / f"sound-{file}")
    counts, wrong = Counter(), []
    at, last = first, first + options.inputs

    def judge(number, how, result, said):
        if result in ("hang", "crash") and name != "checkpoint" and contained(folder / file):
            result = "isolated"
        counts[result] += 1
        if result in FAULTS or (result == "other" and digests):
            kept = options.keep / f"{name}-{number}-{file}".replace(" ", "-")
            kept.write_bytes((folder / file).read_bytes())
            wrong.append({"input": number, "how": how, "outcome": result, "said": said})
            print(f"{name}, input {number} ({how}): {result} {said}; kept as {kept}", flush=True)

    while at < last:
        running = Child(name, folder, options.seed, at, last)
        while started := running.line():
            at, how = started
            if not (result := running.line()):
                break
            judge(at, how, *result)
            at += 1
        ended = running.end()
        if at < last and not started:
            raise RuntimeError(f"{name}: the child did not start ({ended})")
        if at < last and ended:
            judge(at, how, ended.split(":")[0], ended)
            at += 1
    return counts, wrong


def write_figures(options, results):
    """Write what is known so far: a format of many inputs takes an hour."""
    from minicnn.files import describe_machine, write_json

    limits = {"seconds": SECONDS, "memory": MEMORY}
    figures = {"seed": options.seed, "limits": limits, "formats": results}
    write_json(options.json, {**figures, "machine": describe_machine()})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=200, help="of every format")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="formats at a time")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--go-on", action="store_true", help="behind the inputs of --json, added")
    options = parser.parse_args()
    before = {}
    if options.go_on:
        if not (options.json and options.json.is_file()):
            parser.error(f"--go-on needs the figures of a run before in --json, got {options.json}")
        before = json.loads(options.json.read_text())
        options.seed = before["seed"]
    options.keep.mkdir(parents=True, exist_ok=True)
    started, results = time.time(), {}
    print("format".ljust(20), *(o.rjust(8) for o in OUTCOMES))

    def added(name):
        """The figures of a format, with those of before."""
        known = before.get("formats", {}).get(name, {"counts": {}, "wrong": []})
        first = sum(known["counts"].values()) if options.go_on else options.first
        with tempfile.TemporaryDirectory() as folder:
            counts, wrong = fuzz(name, Path(folder), first, options)
        counts, wrong = Counter(known["counts"]) + counts, known["wrong"] + wrong
        return {"digests": FORMATS[name][2], "counts": dict(counts), "wrong": wrong}

    with ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(added, name): name for name in options.formats}
        for done in as_completed(running):
            name = running[done]
            results[name] = done.result()
            if options.json:
                write_figures(options, dict(sorted((before.get("formats", {}) | results).items())))
            counts = Counter(results[name]["counts"])
            print(name.ljust(20), *(str(counts[o]).rjust(8) for o in OUTCOMES), flush=True)
    faults = sum(len(one["wrong"]) for one in results.values())
    inputs, seconds = options.inputs * len(results), time.time() - started
    print(f"{inputs:,} inputs in {seconds:.0f} s, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        of, place, *numbers = sys.argv[2:]
        child(of, Path(place), *map(int, numbers))
    else:
        sys.exit(main())
