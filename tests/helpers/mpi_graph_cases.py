"""What tests/parallel runs of graphs on several ranks, like mpi_cases.py: a residual network with
batch statistics, a U-Net with a loss per pixel, three planes of one trunk.
"""

import numpy as np

import minicnn as mc
from helpers.mpi_cases import run
from minicnn.parallel import MODES, make_sync


def same_everywhere(comm, array):
    everywhere = comm.allgather(np.array(array))
    assert all(np.array_equal(everywhere[0], other) for other in everywhere)


def case_state(comm):
    """Running statistics begin as those of rank 0 and become the mean over ranks at the end of an
    epoch, in every mode; weights are equal on all ranks.
    """
    for mode in MODES:
        model = mc.models.resnet(
            16, 1, 3, (4,), mc.BatchNormalization, device="cpu", optimizer=mc.SGD(0.01)
        )
        state = model.buffers.state
        state += comm.rank  # spoiled, to see the broadcast work
        rng = np.random.default_rng(comm.rank)
        x, y = rng.standard_normal((4, 16, 16, 1)).astype("f4") + comm.rank, np.arange(4) % 3
        model.fit([(x, y)] * 2, comm=comm, sync=mode)
        same_everywhere(comm, state)
        same_everywhere(comm, model.parameters)
        means = [value for name, value in model.states.items() if name.endswith("/mean")]
        assert means and all(np.isfinite(mean).all() and mean.any() for mean in means)


def case_graph_equals_one_rank(comm):
    """N ranks make the updates of one rank with all events: a U-Net with a loss per pixel, and
    three planes of one shared trunk with two outputs.
    """
    rng = np.random.default_rng(1)
    n = 2 * comm.size
    maps = rng.standard_normal((n, 8, 8, 1)).astype("f4")
    kinds = (maps[..., 0] > 0).astype(int)
    make_unet = lambda: mc.models.unet(8, 1, 2, (3,), device="cpu")  # noqa: E731
    planes = tuple(rng.standard_normal((n, 10, 10, 1)).astype("f4") for _ in range(3))
    targets = np.arange(n) % 2, rng.uniform(0, 1, n)
    part = slice(2 * comm.rank, 2 * comm.rank + 2)
    for make, x, y, cut in (
        (make_unet, maps, kinds, lambda a: a[part]),
        (three_planes, planes, targets, lambda a: tuple(each[part] for each in a)),
    ):
        together, alone = make(), make()
        optimizers = [mc.SGD(0.002, 0.9) for _ in range(2)]
        sync = make_sync("gradients", comm)
        for _ in range(3):
            tail = mc.train_step(together, [(cut(x), cut(y))], optimizers[0], sync)
            want = mc.train_step(alone, [(x, y)], optimizers[1])
            assert tail.keys() == want.keys()
            for key in want:
                assert abs(tail[key] - want[key]) <= 1e-4 * max(abs(want[key]), 1), (
                    key,
                    tail,
                    want,
                )
        difference = np.abs(together.parameters - alone.parameters).max()
        assert difference <= 1e-5, difference
        same_everywhere(comm, together.parameters)


def case_unequal_loaders(comm):
    """Ranks whose iterables have different numbers of batches make the same number of steps: those
    with fewer begin anew.
    """
    rng = np.random.default_rng(comm.rank)
    batches = [
        (rng.standard_normal((2, 8, 8, 1)).astype("f4"), np.array([0, 1]))
        for _ in range(1 + comm.rank)
    ]
    model = mc.Sequential([mc.Flatten(), mc.Dense(2)], (8, 8, 1), device="cpu")
    history = model.fit(batches, comm=comm, epochs=2)
    assert model.updates == 2 * comm.size and len(history.rows) == 2
    same_everywhere(comm, model.parameters)


def three_planes():
    inputs, trunk = [mc.Input((10, 10, 1)) for _ in range(3)], mc.Conv2D(3, 3, padding="same")
    features = [mc.Flatten()(mc.MaxPooling2D(5)(mc.ELU()(trunk(plane)))) for plane in inputs]
    x = mc.Concatenate()(features)
    outputs = [mc.Dense(2, name="kind")(x), mc.Dense(1, name="momentum")(x)]
    losses = [mc.SoftmaxCrossEntropy(), mc.MeanSquaredError()]
    return mc.Model(inputs, outputs, loss=losses, device="cpu")


if __name__ == "__main__":
    run(globals())
