"""peers.py --layers: one convolution of each block of the talk's network, forward and backward, at
the lit maps of simulated events.

The lit positions of block 1 are the event's pixels; those of the next block are the cells that an
event reaches in the dense network, which are more than spconv's own network would keep. Values are
random there and 0 elsewhere; so is the gradient that comes from behind, so all columns have the
same numbers to find: the outputs and the gradient of the inputs at the lit positions, and the
gradient of the weights. They are compared before anything is timed.

What each computes beyond that is its own affair. torch's dense convolution computes all positions;
it gets its arrays ready, in the layout, channels last or first, that is faster here. spconv's
SubMConv2d computes the lit positions alone, from its lists of pairs on. minicnn's computes all
positions that see a lit one. The first block has no gradient of its inputs, as in the network
(spconv computes it all the same).

A column is a function of a Layer; it returns (step, answer): ``step()`` is what is timed,
``answer()`` gives (outputs, dw, db, dx or None) of the last step at the lit positions, with
minicnn's axes.
"""

import importlib.util
import statistics
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import psutil
from peers_engines import initial_weights, kernels, peak_memory
from peers_events import event_sets
from peers_spconv import convolution, load_spconv, places
from peers_workers import Worker, take_turns

import minicnn as mc
from minicnn.engine.lit import Grid, LitGradient, LitMap, rule_for
from minicnn.kernels import get_backend
from minicnn.nn.layers import Context

#: Largest difference between columns, relative in norm.
TOLERANCE = 1e-4
KERNEL, POOL = 5, 5


@dataclass(frozen=True)
class Layer:
    """A convolution ("same", with bias) and its input. at: int32 (m, 3), event, row and column of
    the lit positions; values (m, C_in) and dy (m, C_out) are the input and the gradient of the
    output there. w: (5, 5, C_in, C_out). input_gradient: whether dx is wanted.
    """

    name: str
    side: int
    events: int
    positions: np.ndarray
    values: np.ndarray
    dy: np.ndarray
    w: np.ndarray
    bias: np.ndarray
    input_gradient: bool

    def dense_bytes(self):
        """Return about how much memory the dense convolution needs: inputs, outputs, the gradients
        of both, and once more for what is put into another layout.
        """
        return 2 * 4 * self.events * self.side**2 * 2 * sum(self.w.shape[2:])


# ------------------------------------------------------------------------------------------ columns
def torch_layer(layer, threads):
    """torch's dense conv2d, in the faster one of the two layouts."""
    import torch

    torch.set_num_threads(threads)
    taken = {}
    for layout in (torch.channels_last, torch.contiguous_format):
        step, _ = torch_in_layout(layer, layout)
        step()
        start = time.perf_counter()
        step()
        taken[layout] = time.perf_counter() - start
        del step
    return torch_in_layout(layer, min(taken, key=taken.__getitem__))


def torch_in_layout(layer, layout):
    """torch's dense conv2d with images and weights in ``layout``."""
    import torch

    event, row, column = torch.from_numpy(layer.positions).long().T

    def dense(values):
        whole = torch.zeros((layer.events, values.shape[1], layer.side, layer.side)).contiguous(
            memory_format=layout
        )
        whole[event, :, row, column] = torch.from_numpy(values)
        return whole

    w = torch.tensor(layer.w).permute(3, 2, 0, 1).contiguous(memory_format=layout).requires_grad_()
    bias = torch.tensor(layer.bias).requires_grad_()
    x = dense(layer.values).requires_grad_(layer.input_gradient)
    dy, last = dense(layer.dy), {}

    def step():
        w.grad = bias.grad = x.grad = None
        last["y"] = None  # frees the outputs of the step before
        y = torch.nn.functional.conv2d(x, w, bias, padding=KERNEL // 2)
        y.backward(dy)
        last["y"] = y.detach()

    def answer():
        y = last["y"][event, :, row, column]
        dx = x.grad[event, :, row, column].numpy() if layer.input_gradient else None
        return y.numpy(), w.grad.permute(2, 3, 1, 0).numpy(), bias.grad.numpy(), dx

    return step, answer


def spconv_layer(layer, threads):
    """spconv's SubMConv2d."""
    torch, spconv = load_spconv(threads)
    made = convolution((torch, spconv), layer.w, layer.bias)
    positions, dy = torch.from_numpy(layer.positions), torch.from_numpy(layer.dy)
    values, last = torch.from_numpy(layer.values).requires_grad_(layer.input_gradient), {}

    def step():
        made.weight.grad = made.bias.grad = values.grad = None
        x = spconv.SparseConvTensor(values, positions, [layer.side] * 2, layer.events)
        last["y"] = made(x).features
        last["y"].backward(dy)

    def answer():
        dw, dx = made.weight.grad.permute(1, 2, 3, 0).numpy(), values.grad
        return (
            last["y"].detach().numpy(),
            dw,
            made.bias.grad.numpy(),
            None if dx is None else dx.numpy(),
        )

    return step, answer


def lit_layer(layer, threads):
    """minicnn's convolution on a LitMap: its lists, its rest and its changes, as after an
    update.
    """
    backend = get_backend("cpu")
    backend.set_threads(threads)
    weights = {"w": layer.w, "b": layer.bias}
    gradients = {name: np.zeros_like(w) for name, w in weights.items()}
    context = Context(backend, weights, gradients)
    context.need_input_gradient = layer.input_gradient
    convolution = mc.Conv2D(layer.w.shape[3], KERNEL, padding="same")
    rule, last = rule_for(convolution, context), {}
    rule.always = True  # however much is lit
    positions = (
        layer.positions[:, 1:] + np.array([layer.side, 0], np.int32) * layer.positions[:, :1]
    )
    rest = np.zeros((1, 1, layer.w.shape[2]), np.float32)
    grid = Grid.uniform(backend, layer.side, layer.side)
    x = LitMap(grid, layer.events, positions, layer.values, rest)
    y, _ = rule.forward(x)
    _, own, second = backend.merge_positions(y.positions, positions)
    # lit inputs light outputs
    assert len(own) == len(y.positions) and (own == np.arange(len(own))).all()
    slopes = np.zeros_like(y.values)
    slopes[second] = layer.dy
    dy = LitGradient(slopes, np.zeros(y.rest.shape))

    def step():
        context.workspace.expire()
        for gradient in gradients.values():
            gradient[...] = 0
        y, saved = rule.forward(x)
        (dx,) = rule.backward(dy, saved)
        last.update(y=y.values, dx=dx)

    def answer():
        dx = last["dx"].values if layer.input_gradient else None
        return last["y"][second], gradients["w"], gradients["b"], dx

    return step, answer


#: name: (function, modules that it needs)
COLUMNS = {
    "torch": (torch_layer, ("torch",)),
    "spconv": (spconv_layer, ("torch", "spconv")),
    "minicnn": (lit_layer, ()),
}


class LayerJob:
    """The commands of a worker with a column."""

    def __init__(self, column, threads):
        self.make, self.threads = COLUMNS[column][0], threads

    def layer(self, layer):
        """Take a layer, and return the answer of a step that is not timed."""
        self.step = self.answer = None  # frees the layer before
        self.step, self.answer = self.make(layer, self.threads)
        self.step()
        self.events = layer.events
        return tuple(None if array is None else np.array(array) for array in self.answer())

    def turn(self, seconds):
        """Return (seconds per event of one turn, peak memory in MB)."""
        total = count = 0
        while count == 0 or total < seconds:
            start = time.perf_counter()
            self.step()
            total, count = total + time.perf_counter() - start, count + 1
        return total / (count * self.events), peak_memory()


# ------------------------------------------------------------------------------------------ the run
def next_lit(positions, side):
    """Return the lit cells int32 (m, 2) behind a block: those whose window has an output that sees
    one of the lit ``positions`` (m, 2) of a map with ``side`` rows and columns.
    """
    reach = np.arange(KERNEL) - KERNEL // 2
    rows, columns = (positions[:, axis, None] + reach for axis in (0, 1))
    rows, columns = np.broadcast_arrays(rows[:, :, None], columns[:, None, :])
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    cells = np.stack([rows[inside], columns[inside]], 1) // POOL
    return np.unique(cells[(cells < side // POOL).all(1)], axis=0).astype(np.int32)


def layers_of(images, size, seed=0):
    """Return the Layer of each block for a batch of images."""
    rng, weights, made = np.random.default_rng(seed), initial_weights(size), []
    coords, side = [image.coords for image in images], size
    for name, w in kernels(weights):
        if w.ndim < 4:
            break
        positions = places(coords)
        values, dy = (rng.standard_normal((len(positions), n), np.float32) for n in w.shape[2:])
        bias = weights[f"{name}/b"]
        made.append(Layer(name, side, len(images), positions, values, dy, w, bias, bool(made)))
        coords, side = [next_lit(c, side) for c in coords], side // POOL
    return made


def compare_layers(args):
    """Check and time all columns on all layers, print the table, return its rows."""
    images = next(iter(event_sets(args).values()))[0]
    columns = []
    for name, (_, modules) in COLUMNS.items():
        missing = [m for m in modules if importlib.util.find_spec(m) is None]
        if missing:
            print(f"{name}: left out, {missing[0]} is not installed")
        else:
            columns.append(name)
    print(
        f"\nforward + backward of one convolution, ms per event; outputs and gradients at lit "
        f"positions agree to {TOLERANCE:.0e} of their norm"
    )
    print(
        f"{'layer':<16}{'batch':>6}{'map':>14}{'channels':>12}{'lit per event':>15}{'lit %':>9}"
        + "".join(f"{name:>12}" for name in COLUMNS)
    )
    rows = []
    for size in sorted(args.batch_size):
        workers = [Worker(name, partial(LayerJob, name, args.threads)) for name in columns]
        for layer in layers_of(images[:size], args.size, args.seed):
            row = measure_layer(layer, workers, args)
            rows.append(row)
            print(
                f"{layer.name:<16}{size:>6}{f'{layer.side} x {layer.side}':>14}"
                f"{' -> '.join(map(str, layer.w.shape[2:])):>12}{row['lit']:>15.0f}"
                f"{100 * row['lit'] / layer.side**2:>9.3g}"
                + "".join(
                    f"{1e3 * row['median'][name]:>12.3f}" if name in row["median"] else f"{'-':>12}"
                    for name in COLUMNS
                )
            )
        problems = {worker.engine: worker.problem for worker in workers if worker.problem}
        for worker in workers:
            worker.stop()
    for name, problem in problems.items():
        print(f"{name}: left out, {problem}")
    return rows


def measure_layer(layer, workers, args):
    """Return the row of a layer; SystemExit where columns do not agree."""
    able, answers = [], {}
    for worker in workers:
        free = 0.7 * psutil.virtual_memory().available
        if worker.engine == "torch" and layer.dense_bytes() > free:
            print(
                f"torch, {layer.name}, batch {layer.events}: left out, it would need about "
                f"{layer.dense_bytes() / 2**30:.0f} GB"
            )
            continue
        answers[worker.engine] = worker.ask("layer", layer)
        if not worker.problem:
            able.append(worker)
    compare({w.engine: answers[w.engine] for w in able}, layer.name)
    samples = take_turns(able, args, ("turn", 0))
    return {
        "layer": layer.name,
        "batch": layer.events,
        "side": layer.side,
        "channels": layer.w.shape[2:],
        "lit": len(layer.positions) / layer.events,
        "median": {
            name: statistics.median(seconds for seconds, _ in some)
            for name, some in samples.items()
            if some
        },
        "samples": {name: [seconds for seconds, _ in some] for name, some in samples.items()},
    }


def compare(answers, layer):
    """SystemExit unless all answers {column: (outputs, dw, db, dx or None)} are the same to
    TOLERANCE; a gradient that a column does not give is not compared.
    """
    first = next(iter(answers), None)
    for name, answer in answers.items():
        for what, got, want in zip(("outputs", "dw", "db", "dx"), answer, answers[first]):
            if got is None or want is None:
                continue
            difference = np.linalg.norm(got - want) / np.linalg.norm(want)
            if not difference <= TOLERANCE:
                raise SystemExit(
                    f"{layer}: the {what} of {name} and {first} differ by {difference:.1e}"
                )
