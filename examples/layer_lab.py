"""A new layer in an afternoon: write it, check its gradient, train with it.

    .venv/bin/python examples/layer_lab.py

PReLU, y = x where x > 0, else slope * x with a slope per channel that is learned, needs nothing
from the kernels but array arithmetic. A layer with a loop of its own gets an op in
kernels/reference first (the definition), then in kernels/cpu and kernels/cuda: CONTRIBUTING.md.
"""

import time

import numpy as np

import minicnn as mc


class PReLU(mc.Layer):
    """y = x where x > 0, else slope[channel] * x (He et al. 2015). slope (C,) begins at
    ``start``.
    """

    prefix = "prelu"

    def __init__(self, start=0.1, **options):
        super().__init__(**options)
        self.start = start  # kept under the argument's name: so the layer can be saved

    def parameters(self, shape):
        begin = lambda rng, shape: np.full(shape, self.start)  # noqa: E731
        return {"slope": mc.Parameter(shape[-1:], begin, decay=False)}

    def forward(self, ctx, x):
        negative = x < 0
        return x * np.where(negative, ctx.params["slope"], 1).astype(x.dtype), (x, negative)

    def backward(self, ctx, dy, saved):
        x, negative = saved
        # Gradients are added: they are sums over all events of a step.
        ctx.grads["slope"] += (dy * x * negative).reshape(-1, x.shape[-1]).sum(0)
        return dy * np.where(negative, ctx.params["slope"], 1).astype(dy.dtype)


def network(activation, size):
    """Return a small classifier; a block with ELU runs as one fused kernel, one with PReLU layer by
    layer.
    """
    layers = []
    for filters in (8, 16):
        layers += [mc.Conv2D(filters, 5, padding="same"), activation(), mc.MaxPooling2D(5)]
    return mc.Sequential(
        [*layers, mc.Flatten(), mc.Dense(2)],
        input_shape=(size, size, 1),
        input_scale=0.01 * size / 3600,
        optimizer=mc.SGD(0.01, momentum=0.9),
        class_names=("e+-", "mu+-"),
    )


def main():
    print("gradients of a convolution and PReLU against central differences:")
    print(mc.check_gradients([mc.Conv2D(3, 3, padding="same"), PReLU()], (6, 5, 2)), "\n")

    size = 100
    simulator = mc.data.Simulator(
        seed=0, shape=(size, size, 1), classes=("e+-", "mu+-"), sample="isotropic"
    )
    events = [simulator.read(i) for i in range(400)]
    images, labels = [e.image for e in events], np.array([e.label for e in events])
    train, test = (images[:320], labels[:320]), (images[320:], labels[320:])
    for activation in (mc.ELU, PReLU):
        model = network(activation, size)
        print(f"{model.plan()}\n")
        begin = time.perf_counter()
        progress = mc.callbacks.Progress()
        model.fit(train, validation_data=test, epochs=5, batch_size=8, callbacks=[progress])
        seconds = time.perf_counter() - begin
        accuracy = model.evaluate(test).accuracy
        print(f"{activation.__name__}: accuracy {accuracy:.2f}, {seconds:.1f} s\n")
    slopes = ", ".join(f"{slope:.3f}" for slope in model.weights["prelu_1/slope"])
    print(f"slopes learned: {slopes}")


if __name__ == "__main__":
    main()
