"""The ops on feature maps at rest and lit: the reference against the dense ops in float64, and the
backends against the reference.

What the table of ops says of them (kernels/ops.py) is tried in test_ops.py; here are the numbers
that they have to give, and the gradients, which do not fit the table's rules.
"""

from importlib import import_module

import numba
import numpy as np
import pytest

from helpers.lit_ops import everything, gradients, without_lists
from helpers.parity import (
    KINDS,
    arguments,
    backends,
    close,
    host,
    in_dtype,
    on_device,
    run,
    same_bits,
    walk,
    wide,
)
from minicnn.kernels import cpu, reference
from minicnn.kernels.arguments import Wanted
from minicnn.kernels.jit import Threaded
from minicnn.kernels.lit import Lit, LitBlock, lit_geometry, seen_by_convolution
from minicnn.kernels.ops import SUM
from minicnn.kernels.shapes import Geometry
from minicnn.kernels.workspace import Workspace

SEEDS = range(24)


# ------------------------------------------------------------------------------ the dense numbers
def dense_images(a):
    """Return the images (n, H, W, C_in): rest everywhere, and the changes on it."""
    rows, columns = a["classes"]
    at_rest = a["rest"][rows[:, None], columns[None]]
    x = np.repeat(at_rest[None], a["events"], 0)
    flat = x.reshape(-1, *x.shape[2:])
    flat[a["positions"][:, 0], a["positions"][:, 1]] += a["changes"]
    return x


def convolution(a):
    """Return (the convolution without bias of x, its backward(dy, x)) of the case's dense images,
    with the weights as the block has them.
    """
    geometry, w = a["options"]["geometry"], a["block"].w
    zero = np.zeros(w.shape[3], w.dtype)
    if not a["options"]["transposed"]:
        return (
            lambda x: reference.conv2d(x, w, zero, geometry),
            lambda dz, x: reference.conv2d_backward(dz, x, w, geometry)[:2],
        )
    turned = np.ascontiguousarray(w.swapaxes(2, 3))

    def backward(dz, x):
        dx, dw, _ = reference.conv2d_transpose_backward(dz, x, turned, geometry)
        return dx, dw.swapaxes(2, 3)

    return lambda x: reference.conv2d_transpose(x, turned, zero, geometry), backward


def dense_block(a):
    """Return {what: array} of the dense ops: z (the convolution), y, and the gradients dx, dw, db
    for the upstream gradient "dy".
    """
    x, block, (forward, backward) = dense_images(a), a["block"], convolution(a)
    z = forward(x)
    v = z + block.b if block.alpha is None else reference.elu(z + block.b, block.alpha)
    y, argmax = reference.maxpool2d(v, block.geometry.pool)
    dy = np.random.default_rng(0).standard_normal(y.shape)
    dv = reference.maxpool2d_backward(dy, argmax, v.shape, block.geometry.pool)
    dz = dv if block.alpha is None else reference.elu_backward(dv, v, block.alpha)
    dx, dw = backward(dz, x)
    return {"x": x, "z": z, "y": y, "dy": dy, "dx": dx, "dw": dw, "db": dz.sum((0, 1, 2))}


def class_pair_sums(values, classes, pairs):
    """Return the sums (R, S, C) over pairs of classes of values (n, H, W, C)."""
    sums = np.zeros((*pairs, values.shape[3]))
    np.add.at(sums, (classes[0][:, None], classes[1][None]), values.sum(0))
    return sums


def at_cells(values, cells):
    """Return values (n, OH, OW, C) at cells whose rows count on through the events."""
    return values.reshape(-1, *values.shape[2:])[cells[:, 0], cells[:, 1]]


def positions_of(z, geometry, cells):
    """Return z (n, positions, positions, C) of the cells, (m, PH * PW, C)."""
    (ph, pw), (oh, ow) = geometry.pool, geometry.grid
    n, *_, c = z.shape
    z = z[:, : oh * ph, : ow * pw].reshape(n, oh, ph, ow, pw, c).transpose(0, 1, 3, 2, 4, 5)
    return at_cells(z.reshape(n, oh, ow, -1), cells).reshape(-1, ph * pw, c)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reference_is_the_dense_network(seed):
    a = wide(arguments("lit_block", seed))
    block, geometry, positions = a["block"], a["geometry"], a["positions"]
    dense = dense_block(a)
    lists = reference.lit_lists(positions, a["events"], geometry)
    resting = reference.lit_rest(a["rest"], block)
    lit = reference.lit_block(a["changes"], lists, resting, block)

    rows, columns = geometry.cell_classes
    pairs = resting.y.shape[:2]
    y = np.repeat(resting.y[rows[:, None], columns[None]][None], a["events"], 0)
    y.reshape(-1, *y.shape[2:])[lists.cells[:, 0], lists.cells[:, 1]] = lit.y
    close(y, dense["y"], 1e-13, terms=1)
    z = positions_of(dense["z"], geometry, lists.cells)
    close(np.take_along_axis(z, lit.argmax[:, None].astype(int), 1)[:, 0], z.max(1), 1e-13, 1)

    dy = dense["dy"]
    rest_dy = dy.copy()
    rest_dy.reshape(-1, *dy.shape[2:])[lists.cells[:, 0], lists.cells[:, 1]] = 0
    dx, sums, dw, db = reference.lit_block_backward(at_cells(dy, lists.cells), lit, block)
    rest_dx, *more = reference.lit_rest_backward(
        class_pair_sums(rest_dy, geometry.cell_classes, pairs), sums, resting, block
    )
    close(dx, at_cells(dense["dx"], positions), 1e-12, terms=1)
    close(
        rest_dx,
        class_pair_sums(dense["dx"], a["classes"], geometry.input_pairs),
        1e-12,
        1,
    )
    close(dw + more[0], dense["dw"], 1e-12, terms=1)
    close(db + more[1], dense["db"], 1e-12, terms=1)


def test_the_cases_have_all_kinds():
    """Empty events, events lit everywhere, many channels, strides, dilations, pools, classes."""
    cases = [arguments("lit_block", seed) for seed in SEEDS]
    lit = [len(a["positions"]) / (a["events"] * np.prod(a["size"])) for a in cases]
    assert 0.0 in lit and max(lit) > 0.6
    for a in cases:
        events = set(a["positions"][:, 0] // a["size"][0])
        a["some empty"] = 0 < len(events) < a["events"]
    assert any(a["some empty"] for a in cases)
    shapes = np.array([a["block"].w.shape for a in cases])
    assert set(shapes[:, 2]) >= {1, 10, 33, 64} and set(shapes[:, 3]) >= {1, 10, 33, 64}
    assert any(a["geometry"].pool == (1, 1) for a in cases)
    assert any(a["geometry"].input_pairs == (1, 1) for a in cases)
    assert any(a["geometry"].input_pairs > (3, 3) for a in cases)
    for option in ("stride", "dilation"):
        assert any(getattr(a["options"]["geometry"], option) > (1, 1) for a in cases)
    assert any(a["options"]["transposed"] for a in cases)


# ------------------------------------------------------------------------------------- backends
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS[:10])
def test_gradients_of_the_backends(seed, kind):
    a = arguments("lit_block", seed)
    block = a["block"]
    lists = reference.lit_lists(a["positions"], a["events"], a["geometry"])
    lit = reference.lit_block(a["changes"], lists, a["resting"], block)
    want = gradients(reference, {**wide(a), "lit": wide(lit)})

    def call(kernels, a):
        own = kernels.lit_lists(a["positions"], a["events"], a["geometry"])
        here = Lit(a["changes"], own, *map(kernels.asarray, (lit.y, lit.argmax)))
        return gradients(kernels, {**a, "lit": here})

    got = run(backends(kind), call, a)
    cells = np.sqrt(max(1, len(lists.cells)))
    for name, value in want.items():
        weights = name.endswith(("dw", "db", "sums", "rest"))
        close(got[name], value, SUM, terms=cells if weights else 0.1)
        float64 = "sums" in name or name == "rest dx"
        assert got[name].dtype == (np.float64 if float64 else np.float32), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS[:8])
def test_maxima_are_where_the_dense_convolution_has_them(seed, kind):
    a = arguments("lit_block", seed)

    def call(kernels, a):
        lit = everything(kernels, a)["lit"]
        return {"cells": lit.lists.cells, "y": lit.y, "argmax": lit.argmax}

    got = run(backends(kind), call, a)
    z = positions_of(dense_block(wide(a))["z"], a["geometry"], got["cells"])
    at_maximum = np.take_along_axis(z, got["argmax"][:, None].astype(int), 1)[:, 0]
    assert got["argmax"].dtype == np.uint8
    assert np.all(z.max(1) - at_maximum <= 1e-5 * (1 + np.abs(z).max(initial=0)))


@pytest.mark.parametrize("kind", KINDS)
def test_who_feeds_whom_and_pieces_of_the_lists(kind):
    for seed in range(200):
        a = arguments("lit_lists", seed)
        want = reference.lit_lists(a["positions"], a["events"], a["geometry"])
        for kernels in backends(kind):
            lists = kernels.lit_lists(
                *(on_device(kernels, a)[n] for n in ("positions", "events", "geometry"))
            )
            lists = host(kernels, {"lists": lists})["lists"]
            assert lists.cells.dtype == np.int32 and lists.cells.shape == want.cells.shape
            assert np.array_equal(lists.feeds, want.feeds) and lists.feeds.dtype == np.int32
            if len(want.cells):
                first, end = lists.chunks[:, 0], lists.chunks[:, 1]
                assert first[0] == 0 and end[-1] == len(want.cells)
                assert np.array_equal(first[1:], end[:-1])
            cell = np.where(want.feeds >= 0, want.feeds // np.prod(a["geometry"].pool), -1)
            for begin, stop, low, high in lists.chunks:
                feeders = np.nonzero(((cell >= begin) & (cell < stop)).any(0))[0]
                assert not len(feeders) or (low <= feeders[0] and feeders[-1] < high)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_added_to_given_arrays_and_dx_is_optional(kind):
    a = arguments("lit_block", 3)

    def twice(kernels, a):
        parts = everything(kernels, a)
        shapes = a["block"].w.shape, a["block"].b.shape
        into = [tuple(kernels.zeros(s) + 1 for s in shapes) for _ in range(2)]
        wanted = [Wanted(False, targets) for targets in into]
        values = {**a, "lit": parts["lit"], "resting": parts["resting"]}
        added = gradients(kernels, values, None, wanted)
        assert added["dx"] is None and added["rest dx"] is None
        given = dict(zip(("dw", "db", "rest dw", "rest db"), (*into[0], *into[1])))
        assert all(added[n] is target for n, target in given.items())
        return {"once": without_lists(parts), "added": added}

    got = run(backends(kind), twice, a)
    for name in ("dw", "db", "rest dw", "rest db"):
        close(got["added"][name], got["once"][name] + np.float32(1), 1e-6)
    same_bits({"sums": got["once"]["sums"]}, {"sums": got["added"]["sums"]})


# -------------------------------------------------------------------------------------- promises
@pytest.mark.parametrize("kind", KINDS)
def test_a_workspace_changes_no_bit(kind):
    """Also where its buffers hold what a call with other arguments left."""
    for kernels in backends(kind):
        workspace = Workspace()
        for seed in (0, 0, 1, 5, 1):
            a = on_device(kernels, arguments("lit_block", seed))
            plain = host(kernels, everything(kernels, a))
            workspace.expire()
            for _ in range(2):
                same_bits(plain, host(kernels, everything(kernels, a, workspace)))


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread only")
def test_bits_do_not_depend_on_the_number_of_threads():
    for seed in SEEDS[:6]:
        a, results = arguments("lit_block", seed), []
        for threads in (1, 2):
            cpu.set_threads(threads)
            results.append(walk(everything(cpu, a), np.copy))
        cpu.set_threads(numba.config.NUMBA_NUM_THREADS)
        same_bits(*(without_lists(r) for r in results))


def test_loops_without_threads_give_the_same_bits(monkeypatch):
    a, results = arguments("lit_block", 2), []
    for version in ("serial", "parallel"):
        monkeypatch.setattr(
            Threaded, "__call__", lambda self, _, *rest, v=version: getattr(self, v)(*rest)
        )
        results.append(walk(everything(cpu, a), np.copy))
    same_bits(*(without_lists(r) for r in results))


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_types_are_errors_that_name_the_op(kind):
    kernels, a = backends(kind)[0], arguments("lit_block", 1)
    known = on_device(kernels, a)
    lists = kernels.lit_lists(known["positions"], a["events"], a["geometry"])
    broad = walk(a["changes"], in_dtype(np.float32, np.float64))
    with pytest.raises(TypeError, match=r"lit_block .*changes is (a )?float64"):
        kernels.lit_block(kernels.asarray(broad), lists, known["resting"], known["block"])
    with pytest.raises(ValueError, match=r"lit_block_backward"):
        lit = kernels.lit_block(known["changes"], lists, known["resting"], known["block"])
        kernels.lit_block_backward(kernels.zeros((*lit.y.shape, 2)), lit, known["block"])


def test_the_table_of_ops_has_all_of_the_room():
    room = import_module("minicnn.kernels.reference.lit")
    public = {n for n, f in vars(room).items() if callable(f) and n.startswith("lit_")}
    assert public == {
        "lit_lists",
        "lit_rest",
        "lit_rest_backward",
        "lit_block",
        "lit_block_backward",
    }
    assert all(hasattr(reference, name) for name in public)


def few_channels(seed):
    """Draw a block of few channels on events that are lit densely in places."""
    rng = np.random.default_rng(seed)
    kernel, pool = ((int(i) for i in rng.integers(1, most, 2)) for most in (6, 6))
    kernel, pool = tuple(kernel), tuple(pool)
    size = tuple(int(p * rng.integers(1, 9) + rng.integers(p)) for p in pool)
    events, padding = int(rng.integers(1, 4)), "same"
    if rng.random() < 0.4 and all(k <= s - p + 1 for k, s, p in zip(kernel, size, pool)):
        padding = "valid"
    dense = (1, *size, 1), (*kernel, 1, 1)
    outputs, pads = (f(*dense) for f in (Geometry(1, padding).output, Geometry(1, padding).pads))
    seen = tuple(
        seen_by_convolution(size[a], kernel[a], 1, 1, pads[a][0], outputs[1 + a]) for a in (0, 1)
    )
    classes = tuple(
        np.unique(rng.integers(0, rng.integers(1, 4), n), return_inverse=True)[1].astype(np.int32)
        for n in size
    )
    geometry = lit_geometry(classes, seen, pool)
    ci, co = int(rng.integers(1, 5)), int(rng.choice([1, 3, 5, 10]))
    lit = rng.random((events, *size)) < rng.choice([0.3, 0.8, 1.0])
    lit[rng.integers(events)] &= rng.random() < 0.8
    positions = np.argwhere(lit.reshape(-1, size[1])).astype(np.int32)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    rest = normal(*geometry.input_pairs, ci)
    block = LitBlock(normal(*kernel, ci, co), normal(co), geometry, (None, 1.0, 0.0)[seed % 3])
    changes = normal(len(positions), ci)
    changes[rng.random(len(positions)) < 0.1] = 0
    return positions, events, changes, block, reference.lit_rest(rest, block)


def test_blocks_of_few_channels_by_windows():
    taken = 0
    for seed in range(100):
        positions, events, changes, block, resting = few_channels(seed)
        geometry, workspace = block.geometry, Workspace()
        lists = cpu.lit_lists(positions, events, geometry, block.w.shape[2:], workspace)
        assert geometry.before is not None
        if lists.feeds is not None:
            continue
        taken += 1
        known = reference.lit_lists(positions, events, geometry)
        want = reference.lit_block(*wide((changes, known, resting, block)))
        lit = cpu.lit_block(changes, lists, resting, block, workspace)
        close(lit.y, want.y, SUM, terms=4)
        lit = lit._replace(argmax=want.argmax, y=want.y.astype(np.float32))
        dy = np.random.default_rng(seed).standard_normal(lit.y.shape).astype(np.float32)
        want_dx, *sums = reference.lit_block_backward(wide(dy), want, wide(block))
        many = np.sqrt(len(dy))
        for need_dx in (False, True):
            dx, *own = cpu.lit_block_backward(dy, lit, block, Wanted(need_dx), Workspace())
            for a, b in zip(own, sums):
                close(a, b, SUM, terms=many)
            assert (dx is None) == (not need_dx)
        close(dx, want_dx, SUM, terms=4)
    assert taken > 60


def test_weights_that_are_no_numbers_lead_no_gradient_out_of_its_cell():
    """No sum is larger than another where all are NaN: argmax is a position of the cell all the
    same, since backward follows it without a look.
    """
    for seed in range(100):
        positions, events, changes, block, _ = few_channels(seed)
        block = block._replace(w=np.full_like(block.w, np.nan))
        lists = cpu.lit_lists(positions, events, block.geometry, block.w.shape[2:], Workspace())
        rest = np.ones((*block.geometry.input_pairs, block.w.shape[2]), np.float32)
        lit = cpu.lit_block(changes, lists, cpu.lit_rest(rest, block), block, Workspace())
        assert lit.argmax.max(initial=0) < np.prod(block.geometry.pool)
        cpu.lit_block_backward(np.ones_like(lit.y), lit, block, Wanted(True), Workspace())


def test_what_slides_by_single_pixels_has_windows():
    found = {True: 0, False: 0}
    for seed in range(100):
        a = arguments("lit_lists", seed)
        geometry, kernel = a["geometry"], a["options"]["kernel"]
        stride, _, dilation = a["options"]["geometry"]
        if not a["options"]["transposed"] and (stride, dilation) == ((1, 1), (1, 1)):
            assert geometry.before is not None
            found[True] += 1
        elif max(stride) > 1 and min(kernel) > 1 and min(geometry.grid) > 3:
            assert geometry.before is None
            found[False] += 1
    assert min(found.values()) > 5
