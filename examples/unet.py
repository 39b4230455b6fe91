"""A class for every lit pixel, track or shower: a U-Net with a loss per pixel.

    .venv/bin/python examples/unet.py

The simulator knows what deposited the charge of each pixel. Writes pixels.png, truth beside
prediction, into runs/unet. Everything runs on maps at rest and lit (docs/lit.md), the loss too:
what it costs follows the event, not the image.
"""

from pathlib import Path

import numpy as np

import minicnn as mc

SIZE = 96


def network(size, filters=(8, 16)):
    """Return the U-Net (Ronneberger et al. 2015): down to a quarter of the size, and up again with
    what was seen on the way.
    """

    def two_convolutions(x, count):
        for _ in range(2):
            x = mc.ReLU()(mc.Conv2D(count, 3, padding="same")(x))
        return x

    inputs = mc.Input((size, size, 1))
    x, seen = inputs, []
    for count in filters:
        seen.append(two_convolutions(x, count))
        x = mc.MaxPooling2D(2)(seen[-1])
    x = two_convolutions(x, 2 * filters[-1])
    for count, skip in zip(filters[::-1], seen[::-1]):
        x = mc.Conv2DTranspose(count, 2, strides=2, padding="same")(x)
        x = two_convolutions(mc.Concatenate()([x, skip]), count)
    outputs = mc.Conv2D(len(mc.data.PIXEL_CLASSES), 1)(x)
    return mc.Model(
        inputs,
        outputs,
        loss=mc.PixelCrossEntropy(),
        input_scale=1e-3,
        optimizer=mc.Adam(mc.optim.Cosine(0.003, 6 * 40)),
        class_names=mc.data.PIXEL_CLASSES,
    )


def draw(path, images, truth, scores):
    """Draw the true and the predicted class of the lit pixels of some events, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(images), 6), dpi=110, layout="constrained")
    panels = figure.subplots(2, len(images), squeeze=False)
    for column, (image, labels, p) in enumerate(zip(images, truth, scores)):
        rows = (("truth", labels), ("predicted", p.argmax(1)))
        for panel, (title, classes) in zip(panels[:, column], rows):
            for k, name in enumerate(mc.data.PIXEL_CLASSES):
                at = image.coords[classes == k]
                panel.scatter(at[:, 0], at[:, 1], s=6, marker="s", label=name)
            panel.set(xlim=(0, SIZE), ylim=(0, SIZE), title=title, aspect="equal")
    panels[0, 0].legend()
    figure.savefig(path)


def main():
    folder = Path("runs/unet")
    folder.mkdir(parents=True, exist_ok=True)
    simulator = mc.data.Simulator(
        seed=0,
        shape=(SIZE, SIZE, 1),
        classes=("e+-", "mu+-", "pi+-"),
        pixel_truth=True,
        sample="isotropic",
    )
    train = mc.data.EventStore(target="pixel_labels").load(simulator, range(320))
    test = mc.data.EventStore(target="pixel_labels").load(simulator, range(320, 400))
    model = network(SIZE)
    progress = mc.callbacks.Progress()
    model.fit(train, validation_data=test, epochs=6, batch_size=8, callbacks=[progress])
    print(model.plan())  # behind the training: with how much was lit
    result = model.evaluate(test, batch_size=8)
    for name, efficiency, purity in zip(model.class_names, result.efficiency, result.purity):
        print(
            f"{name}: {efficiency:.3f} of the pixels found, {purity:.3f} of those called so right"
        )
    images, labels = test.batch(np.arange(4))
    draw(folder / "pixels.png", images, labels, model.predict(images))
    print(f"truth beside prediction in {folder}/pixels.png")


if __name__ == "__main__":
    main()
