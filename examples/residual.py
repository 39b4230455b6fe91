"""A network that is no chain: residual blocks of your own, drawn, trained, and looked into.

    .venv/bin/python examples/residual.py

Prints what runs on maps at rest and lit (docs/lit.md). Writes residual.png (the graph) and
saliency.png (the pixels that the decision hangs on) into runs/residual.
"""

from pathlib import Path

import numpy as np

import minicnn as mc


def residual_block(x, filters):
    """Return x + F(x): two convolutions, each behind a normalisation and ReLU (He et al. 2016)."""
    y = x
    for _ in range(2):
        y = mc.ReLU()(mc.LayerNormalization()(y))
        y = mc.Conv2D(filters, 3, padding="same")(y)
    if x.shape[2] != filters:
        x = mc.Conv2D(filters, 1)(x)
    return mc.Add()([x, y])


def network(size, classes):
    """Return the model: a first block, then two residual ones, on LitMaps up to the average."""
    inputs = mc.Input((size, size, 1))
    x = mc.MaxPooling2D(4)(mc.ELU()(mc.Conv2D(8, 5, padding="same")(inputs)))
    for filters in (8, 16):
        x = mc.MaxPooling2D(2)(residual_block(x, filters))
    outputs = mc.Dense(len(classes))(mc.GlobalAveragePooling2D()(x))
    return mc.Model(
        inputs,
        outputs,
        input_scale=0.01,
        optimizer=mc.Adam(mc.optim.Cosine(0.003, 400)),
        loss=mc.SoftmaxCrossEntropy(label_smoothing=0.05),
        class_names=classes,
    )


def main():
    folder, size, classes = Path("runs/residual"), 128, ("e+-", "mu+-")
    folder.mkdir(parents=True, exist_ok=True)
    simulator = mc.data.Simulator(
        seed=0, shape=(size, size, 1), classes=classes, sample="isotropic"
    )
    events = [simulator.read(i) for i in range(500)]
    images, labels = [e.image for e in events], np.array([e.label for e in events])
    train, test = (images[:400], labels[:400]), (images[400:], labels[400:])
    model = network(size, classes)
    model.summary()
    model.draw(folder / "residual.png")
    progress = mc.callbacks.Progress()
    model.fit(train, validation_data=test, epochs=8, batch_size=8, callbacks=[progress])
    print(model.plan())  # behind the training: with how much was lit
    model.save(folder / "model.safetensors")

    from minicnn.inspect.report.explain import draw_saliency

    draw_saliency(model, events[400], folder / "saliency.png")
    print(f"graph, model and saliency in {folder}")


if __name__ == "__main__":
    main()
