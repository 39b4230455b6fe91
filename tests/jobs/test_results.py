"""The trained model of docs/results/isotropic, on events that it has never seen."""

import numpy as np

import minicnn as mc
from helpers import ROOT


def test_the_trained_model_recognises_new_events():
    model = mc.load_model(
        ROOT / "docs" / "results" / "isotropic" / "model.safetensors", device="cpu"
    )
    simulator = mc.data.Simulator(seed=3, sample="isotropic")
    events = [simulator.read(i) for i in range(100)]
    right = model.predict([event.image for event in events]).argmax(1) == [
        event.label for event in events
    ]
    assert (
        np.mean(right) > 0.6
    )  # docs/results/isotropic has what 5,000 events gave; of 100 the deviation is 0.045
