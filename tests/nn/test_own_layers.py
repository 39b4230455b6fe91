"""Layers of users: parameters of any name, workspaces, and mistakes that are found."""

import numpy as np
import pytest

import minicnn as mc
from helpers import random_batch
from minicnn.kernels.arguments import Wanted
from minicnn.kernels.shapes import Geometry


class Scale(mc.Layer):
    """y = gamma x, with a parameter that is called neither w nor b, and a count of passes."""

    def parameters(self, shape):
        return {"gamma": mc.Parameter(shape[-1:], "ones", decay=False)}

    def state(self, shape):
        return {"passes": mc.Parameter((1,), "zeros")}

    def forward(self, ctx, x):
        if ctx.training:
            ctx.state["passes"][...] += 1
        return x * ctx.params["gamma"], x

    def backward(self, ctx, dy, saved):
        ctx.grads["gamma"][...] += (dy * saved).reshape(-1, dy.shape[-1]).sum(0)
        return dy * ctx.params["gamma"]


def scaled(device="reference", **options):
    layers = [mc.Conv2D(4, 3), mc.ELU(), Scale(name="scale"), mc.Flatten(), mc.Dense(3)]
    return mc.Sequential(layers, (22, 19, 1), device=device, **options)


def test_a_layer_with_parameters_of_any_name_trains_saves_and_loads(tmp_path):
    assert mc.check_gradients(Scale(), (4, 3, 2)).ok
    model = scaled(optimizer=mc.Adam(0.01))
    model.fit(random_batch(8), epochs=2, batch_size=4)
    gamma = model.weights["scale/gamma"]
    assert not np.array_equal(gamma, np.ones(4)) and model.states["scale/passes"][0] == 4
    model.save(tmp_path / "m.safetensors")
    other = mc.load_model(tmp_path / "m.safetensors", "reference")
    assert np.array_equal(other.weights["scale/gamma"], gamma)
    assert other.states["scale/passes"][0] == 4


class Setting(mc.Layer):
    """A layer that does not keep what its constructor was given."""

    def __init__(self, factor=1.0, **options):
        super().__init__(**options)
        self._f = factor

    def forward(self, ctx, x):
        return x * self._f, None

    def backward(self, ctx, dy, saved):
        return dy * self._f


class Forgetful(Setting):
    """One that keeps another value than it was given."""

    def __init__(self, factor=1.0, **options):
        super().__init__(factor, **options)
        self.factor = 1.0


class Assigning(Scale):
    """One that sets its gradient instead of adding to it."""

    def backward(self, ctx, dy, saved):
        ctx.grads["gamma"][...] = (dy * saved).reshape(-1, dy.shape[-1]).sum(0)
        return dy * ctx.params["gamma"]


class Replacing(Scale):
    """One that puts another array in the place of its gradient."""

    def backward(self, ctx, dy, saved):
        ctx.grads["gamma"] = (dy * saved).reshape(-1, dy.shape[-1]).sum(0)
        return dy * ctx.params["gamma"]


class Twice(mc.Layer):
    """Two convolutions, one after the other; each op with weights needs a workspace of its own."""

    def parameters(self, shape):
        window = (3, 3, shape[-1], shape[-1])
        arrays = {"w": window, "b": shape[-1:], "w2": window, "b2": shape[-1:]}
        return {name: mc.Parameter(shape) for name, shape in arrays.items()}

    def workspaces(self, ctx):
        return ctx.workspace.part("first"), ctx.workspace.part("second")

    def forward(self, ctx, x):
        geometry, (first, second) = Geometry(1, "same"), self.workspaces(ctx)
        y = ctx.kernels.conv2d(x, ctx.params["w"], ctx.params["b"], geometry, first)
        return ctx.kernels.conv2d(y, ctx.params["w2"], ctx.params["b2"], geometry, second), (x, y)

    def backward(self, ctx, dy, saved):
        geometry, (first, second), (x, y) = Geometry(1, "same"), self.workspaces(ctx), saved
        backward = ctx.kernels.conv2d_backward
        wanted = Wanted(True, (ctx.grads["w2"], ctx.grads["b2"]))
        dy, *_ = backward(dy, y, ctx.params["w2"], geometry, wanted, second)
        return backward(dy, x, ctx.params["w"], geometry, ctx.wanted("w", "b"), first)[0]


class OnOneWorkspace(Twice):
    """The same, where the second convolution finds the packed weights of the first."""

    def workspaces(self, ctx):
        return ctx.workspace, ctx.workspace


def test_every_op_of_a_layer_has_a_workspace_of_its_own():
    assert mc.check_gradients(Twice(), (5, 4, 2)).ok
    report = mc.check_gradients(OnOneWorkspace(), (5, 4, 2))
    assert not report.ok and "conv2d on another op's workspace" in str(report)
    x, y = random_batch(3)
    gradients = []
    for device in ("cpu", "reference"):
        layers = [Twice(name="twice"), mc.Flatten(), mc.Dense(3)]
        model = mc.Sequential(layers, (22, 19, 1), device=device)
        gradients.append(model.loss_and_gradients(x, y)[1])
    for name, gradient in gradients[0].items():
        np.testing.assert_allclose(gradient, gradients[1][name], rtol=1e-4, atol=1e-6)


def test_mistakes_of_layers_are_found(tmp_path):
    for kind in (Assigning, Replacing):
        assert not mc.check_gradients(kind(), (4, 3, 2)).ok, kind
    with pytest.raises(ValueError, match="Setting keeps no attribute 'factor'"):
        mc.check_gradients(Setting(3.0), (4, 3, 2))
    report = mc.check_gradients(Forgetful(3.0), (4, 3, 2))
    assert not report.ok and "y of the saved layer" in str(report)
    with pytest.raises(ValueError, match="Setting keeps no attribute"):
        mc.Sequential([Setting(), mc.Flatten(), mc.Dense(2)], (4, 3, 2), device="reference").save(
            tmp_path / "m"
        )
    with pytest.raises(ValueError, match="a layer named ReLU is there already"):
        type("ReLU", (mc.Layer,), {"__module__": "mine"})
    with pytest.raises(ValueError, match="text without '/'"):
        mc.ELU(name="a/b")
