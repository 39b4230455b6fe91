"""A new layer in an afternoon: write it, check its gradient, train with it.

    python examples/layer_lab.py

LeakyReLU, y = x where x > 0, else slope * x, needs nothing from the kernels but array arithmetic. A
layer with a loop of its own gets an op in kernels/reference.py first (the definition), then in
kernels/cpu.
"""

import numpy as np

import minicnn as mc


class LeakyReLU(mc.Layer):
    """y = x where x > 0, else slope * x (Maas et al. 2013)."""

    prefix = "leaky_relu"

    def __init__(self, slope=0.1, name=None):
        super().__init__(name)
        self.slope = slope

    def config(self):
        return {"slope": self.slope, "name": self.name}

    def forward(self, k, x, p, work=None, rng=None):
        factor = np.where(x > 0, 1, self.slope).astype(x.dtype)
        return x * factor, factor

    def backward(self, k, dy, saved, p, g, need_dx=True, work=None):
        return dy * saved


def main():
    print("gradient of LeakyReLU against central differences:")
    print(mc.check_gradients([mc.Conv2D(3, 3, padding="same"), LeakyReLU()], (6, 5, 2)), "\n")

    size = 100
    model = mc.Sequential(
        [
            mc.Conv2D(8, 5, padding="same"),
            mc.ELU(),
            mc.MaxPooling2D(5),  # runs as one fused block
            mc.Conv2D(16, 5, padding="same"),
            LeakyReLU(),
            mc.MaxPooling2D(5),  # runs layer by layer
            mc.Flatten(),
            mc.Dense(2),
        ],
        input_shape=(size, size, 1),
        input_scale=0.01 * size / 3600,
        optimizer=mc.SGD(0.01, momentum=0.9),
    )
    model.summary()
    print(f"\n{model.plan()}\n")
    simulator = mc.data.Simulator(seed=0, shape=(size, size, 1), classes=("e+-", "mu+-"))
    events = [simulator.read(i) for i in range(400)]
    images, labels = [e.image for e in events], np.array([e.label for e in events])
    model.fit(
        (images[:320], labels[:320]),
        validation_data=(images[320:], labels[320:]),
        epochs=5,
        batch_size=8,
        callbacks=[mc.callbacks.Progress()],
    )
    result = model.evaluate((images[320:], labels[320:]))
    print("efficiency", dict(zip(simulator.class_names, np.round(result.efficiency, 2).tolist())))


if __name__ == "__main__":
    main()
