"""A step that is not finite names layer, event and rank, and leaves its batch."""

import numpy as np
import pytest

import minicnn as mc
from helpers import random_batch, small_model
from minicnn.train.step_checkpoint import StepCheckpoint


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("device", ("reference", "cpu"))
def test_the_event_and_the_layer_are_named_and_the_batch_is_written(tmp_path, device):
    x, y = random_batch(12)
    x[7] = 3e38
    model = small_model(device, optimizer=mc.SGD(0.0))
    model.parameters[...] *= 10
    with pytest.raises(mc.NotFiniteError, match="on 1 of 1 ranks at update") as problem:
        model.fit((x, y), batch_size=3, checkpoint=StepCheckpoint(tmp_path))
    text = str(problem.value)
    assert "; rank 0: the " in text and "conv2d" in text and "event 7 of the file" in text, text
    with np.load(tmp_path / "not-finite-rank-0.npz") as batch:
        events = [batch[f"image_{i}"] for i in range(3)]
        assert any((event == np.float32(3e38)).all() for event in events)
        assert sorted(int(batch[f"target_{i}"]) for i in range(3)) == sorted(
            int(y[np.argmax([np.array_equal(e, x[k]) for k in range(12)])]) for e in events
        )
    assert np.isfinite(model.parameters).all()


def test_weights_that_are_not_finite_are_named():
    x, y = random_batch(4)
    model = small_model("reference")
    model.parameters[-1] = np.nan
    with pytest.raises(mc.NotFiniteError, match="rank 0: the weights dense_2/b"):
        model.fit((x, y))
