"""The recipe has the main job's numbers, and builds what they say."""

import argparse
import csv
import os
import sys
from dataclasses import asdict, fields, replace

import numpy as np
import pytest

import minicnn as mc
from helpers import small_model
from minicnn.cli.train import arguments, recipe_and_options
from minicnn.data.event import CLASSES
from minicnn.data.readers import EventWriter
from minicnn.data.transforms import MirrorWire, event_rng
from minicnn.jobs.predict import PredictOptions, names_of_classes, predict
from minicnn.jobs.recipe import FULL_SIZE, FULL_SIZE_PARAMETERS, Recipe
from minicnn.jobs.run_folder import RunFolder, read_record
from minicnn.jobs.train import TrainingJob, TrainOptions, train
from minicnn.parallel import threads_per_rank


class Events(list):
    """The least that is a data set."""

    def batch(self, indices):
        return [self[i].image for i in indices], np.array([self[i].label for i in indices])


def rate_at(optimizer, step):
    optimizer.steps = step
    return optimizer.rate()


def test_defaults_of_the_command_line_are_those_of_the_recipe():
    parser = argparse.ArgumentParser()
    arguments(parser)
    assert recipe_and_options(parser.parse_args([])) == (Recipe(), TrainOptions())
    text = "--share 2 --scale-from 64 --no-augment --codec lz4:3 --epochs 7 --sync-every 2"
    recipe, options = recipe_and_options(parser.parse_args(text.split()))
    assert recipe == Recipe(epochs=7, shared_epochs=2, events_of_rate=64, augment=False)
    assert options == TrainOptions(codec="lz4:3", sync_every=2)


def test_weights_that_are_not_there_are_refused_at_once(tmp_path):
    parser = argparse.ArgumentParser()
    arguments(parser)
    args = parser.parse_args(["--weights", str(tmp_path / "modell.safetensors")])
    with pytest.raises(ValueError, match=r"modell\.safetensors: there is no such file"):
        recipe_and_options(args)


def test_threads_are_no_more_than_numba_has(monkeypatch):
    cores = len(os.sched_getaffinity(0))
    for value, threads in (("1", 1), ("1000", cores), ("", cores), ("many", cores)):
        monkeypatch.setenv("NUMBA_NUM_THREADS", value)
        assert threads_per_rank(None) == threads


def test_every_field_can_be_set_from_the_command_line():
    parser = argparse.ArgumentParser()
    arguments(parser)
    known = {action.dest for action in parser._actions}
    known |= {"planes", "classes", "fixed_start", "mirror_x"}  # the events' own
    assert {field.name for kind in (Recipe, TrainOptions) for field in fields(kind)} <= known


def test_pixels_of_smaller_images_are_sums():
    full, small = Recipe(), Recipe(size=FULL_SIZE // 6)
    assert (full.input_scale, full.input_knee) == (0.1, 100)
    assert small.input_scale == pytest.approx(0.1 / 6) and small.input_knee == 600
    assert Recipe(scale=0.5, knee=7).input_scale == 0.5 and Recipe(knee=7).input_knee == 7


def test_events_of_a_fixed_start_are_not_moved():
    """Gain alone changes: pixels stay where they are, also mirrored and shifted they do not."""
    source = mc.data.Simulator(seed=2, shape=(72, 72, 1), length=3)
    store = mc.data.EventStore().load(source)
    for fixed in (True, False):
        images, _ = Recipe(size=72, fixed_start=fixed).for_training(store).batch([0, 1, 2])
        plain, _ = store.batch([0, 1, 2])
        places = [np.array_equal(a.coords, b.coords) for a, b in zip(images, plain)]
        assert all(places) if fixed else not any(places)
        assert not any(np.array_equal(a.values, b.values) for a, b in zip(images, plain))


@pytest.mark.parametrize("size", (3600, 720))
def test_events_of_a_fixed_start_are_mirrored_about_it(size):
    """As particles that go (x, z) and (-x, z) are: their pictures lie on top of each other."""
    simulator = mc.data.Simulator(seed=2, shape=(size, size, 1), noise=0)
    both = [
        simulator.simulate(0, pdg=13, momentum=600, position=(100, 0, 50), direction=(x, 0, 1))
        for x in (0.2, -0.2)
    ]
    column = Recipe(size=size)._column(100.0)
    first = [e.image.coords[e.image.coords[:, 0] < e.image.coords[:, 0].min() + 3] for e in both]
    starts = [coords[:, 1].mean() for coords in first]
    assert 2 * column - 1 - starts[0] == pytest.approx(starts[1], abs=1.5)
    middle = [np.average(e.image.coords[:, 1], None, e.image.values[:, 0]) for e in both]
    assert 2 * column - 1 - middle[0] == pytest.approx(middle[1], abs=size / 500)
    assert abs(middle[0] - middle[1]) > size / 100
    recipe, found = Recipe(size=size, fixed_start=True, mirror_x=100.0), []
    events = recipe.for_training(Events(both))
    for events.epoch in range(8):
        found.append(events.batch([0])[0][0])
    own, columns = both[0].image.coords, int(2 * column) - 1
    mirrored = [not np.array_equal(image.coords, own) for image in found]
    assert any(mirrored) and not all(mirrored)
    for image in (i for i, changed in zip(found, mirrored) if changed):
        assert set(map(tuple, image.coords)) == {(r, columns - c) for r, c in own.tolist()}


def test_the_schedule():
    recipe = Recipe(size=144, epochs=10, warmup=4)
    optimizer = recipe.build_optimizer(steps_per_epoch=100)
    assert isinstance(optimizer, mc.Adam)
    assert rate_at(optimizer, 0) == pytest.approx(0.0005 / 4)
    assert rate_at(optimizer, 4) == pytest.approx(0.0005, rel=1e-3)
    assert rate_at(optimizer, 1000) == pytest.approx(0.0005 / 50)
    flat = replace(recipe, schedule="constant", optimizer="sgd").build_optimizer(100)
    assert rate_at(flat, 5) == rate_at(flat, 999) == pytest.approx(0.01) and flat.momentum == 0.9
    large = replace(recipe, schedule="constant", events_of_rate=4).build_optimizer(100, ranks=8)
    assert rate_at(large, 500) == pytest.approx(0.0005 * 8)


def test_steps_and_what_cannot_be():
    recipe = Recipe(batch_size=4, accumulate=2)
    assert recipe.steps_per_epoch(33, ranks=2) == 3 and recipe.events_per_step(2) == 16
    for name, value in (("optimizer", "rprop"), ("schedule", "none"), ("epochs", 0)):
        with pytest.raises(ValueError, match=name):
            Recipe(**{name: value})
    with pytest.raises(ValueError, match="norm > 0"):
        Recipe(clip=0).build_optimizer(10)
    assert Recipe(average=1.5).build_optimizer(10).horizon == 15
    assert asdict(recipe)["accumulate"] == 2


def test_the_model():
    model = Recipe().build_model(device="reference")
    assert model.parameters.size == FULL_SIZE_PARAMETERS
    assert names_of_classes(model) == tuple(CLASSES)
    named = Recipe(size=50, classes=3).build_model(device="reference", class_names=("a", "b", "c"))
    assert names_of_classes(named) == ("a", "b", "c")
    assert names_of_classes(small_model()) == ("class 0", "class 1", "class 2")


def test_planes_as_views_of_one_trunk(tmp_path):
    """Trained, read again and predicted; the trunk has the parameters of one plane."""
    source = mc.data.Simulator(seed=2, shape=(72, 72, 3), length=8)
    mc.data.generate(tmp_path / "events.h5", 8, source)
    recipe = Recipe(size=72, views=True, epochs=1, batch_size=2)
    options = TrainOptions(events=tmp_path / "events.h5", validation=2, out=tmp_path / "run")
    train(None, recipe, options)
    model = mc.load_model(RunFolder(tmp_path / "run").model)
    assert [node.shape for node in model.graph.inputs] == [(72, 72, 1)] * 3
    one = Recipe(size=72).build_model()
    assert all(model.weights[k].shape == one.weights[k].shape for k in one.weights if "conv" in k)
    assert model.weights["fc1/w"].size == 3 * one.weights["fc1/w"].size
    predict(None, [tmp_path / "events.h5"], PredictOptions(out=tmp_path / "run"))
    assert len(RunFolder(tmp_path / "run").predictions.read_text().splitlines()) == 9
    weights = replace(options, weights=RunFolder(tmp_path / "run").model)
    with pytest.raises(ValueError, match=r"takes images of .* and .* --size 72, 3 planes"):
        train(None, replace(recipe, views=False), weights)


@pytest.mark.parametrize("planes", [1, 3])
def test_scores_of_mirror_images_are_averaged(tmp_path, planes):
    """So an event and its mirror image have the same scores, which without they have not."""
    source = mc.data.Simulator(seed=3, shape=(72, 72, planes), length=3)
    mirror, scores = MirrorWire(1.0), {}
    Recipe(size=72, planes=planes, views=planes > 1).build_model().save(tmp_path / "model")
    for of_mirror in (False, True):
        with EventWriter(tmp_path / f"{of_mirror}.h5", (72, 72, planes)) as writer:
            for event in (source.read(i) for i in range(3)):
                image = mirror(event.image, event_rng(0, 0, 0)) if of_mirror else event.image
                writer.append(replace(event, image=image))
        for averaged in (False, True):
            options = PredictOptions(tmp_path, tmp_path / "model", mirrored=averaged)
            predict(None, [tmp_path / f"{of_mirror}.h5"], options)
            with RunFolder(tmp_path).predictions.open() as file:
                rows = [[float(row[name]) for name in CLASSES] for row in csv.DictReader(file)]
            scores[of_mirror, averaged] = np.array(rows)
    np.testing.assert_allclose(scores[False, True], scores[True, True], rtol=1e-4)
    assert np.abs(scores[False, False] / scores[True, False] - 1).max() > 1e-3


def test_the_codec_has_the_level_of_the_store(tmp_path):
    for codec, level in (("zstd", mc.data.EventStore().level), ("zstd:7", 7)):
        job = TrainingJob(None, Recipe(size=50), TrainOptions(codec=codec, out=tmp_path))
        assert job._new_store().level == level
    with pytest.raises(ValueError, match="give NAME or NAME:LEVEL"):
        TrainingJob(None, Recipe(size=50), TrainOptions(codec="zstd:x", out=tmp_path))


def test_tensorboard(tmp_path, monkeypatch):
    """Event files of a run are its own; one that goes on keeps those that are there."""
    source = mc.data.Simulator(seed=2, shape=(72, 72, 1), length=24)
    mc.data.generate(tmp_path / "events.h5", 24, source)
    recipe = Recipe(size=72, epochs=1, batch_size=1)
    options = TrainOptions(
        events=tmp_path / "events.h5", validation=2, out=tmp_path / "run", tensorboard=True
    )
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match=r'pip install "minicnn\[tensorboard\]"'):
        train(None, recipe, options)
    assert not options.out.exists(), "before any work"
    monkeypatch.undo()
    pytest.importorskip("tensorboardX", reason="needs the extra tensorboard")
    board = RunFolder(options.out).board
    board.mkdir(parents=True)
    for kept, going_on in ((False, options), (True, replace(options, resume=True))):
        (earlier := board / "events.out.tfevents.1.host").write_bytes(b"of a run before")
        train(None, replace(recipe, epochs=1 + kept), going_on)
        assert earlier.exists() == kept
    written = b"".join(file.read_bytes() for file in board.iterdir())
    for name in (b"val_accuracy", b"step/loss", b"seconds/update"):
        assert name in written, name
    train(None, recipe, replace(options, tensorboard=False))
    assert list(board.iterdir()) == []


def test_only_rank_0_writes_for_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX", reason="needs the extra tensorboard")
    logger = mc.callbacks.TensorBoard(tmp_path / "board", every=1)
    logger.on_train_begin(small_model(), {"rank": 1, "comm": None})
    logger.on_batch_end(0, {"loss": 1.0})
    logger.close()
    assert not (tmp_path / "board").exists()


def test_the_run_folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin()
    assert not folder.is_run
    (folder.path / ".history.csv.77.partial").write_text("ep")
    folder.finish({"epochs": [], "arguments": {}})
    assert folder.is_run and read_record(folder.marker) == {"epochs": [], "arguments": {}}
    stale = (folder.validation, folder.page, folder.figure("roc"), folder.confusion("csv"))
    stale += (folder.ledger, folder.timeline)
    for path in (*stale, folder.history, folder.model):
        path.write_text("of the run before")
    folder.begin()
    assert set(folder.path.iterdir()) == {folder.history, folder.model}, "--resume needs these"
    folder.finish({"epochs": []})
    with pytest.raises(ValueError, match="not the record of a run"):
        read_record(folder.marker)
