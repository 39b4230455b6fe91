"""All ops on feature maps at rest and lit, one after the other, for the arguments of a case."""

import numpy as np

from minicnn.kernels.arguments import Wanted

ALL = Wanted(), Wanted()


def everything(kernels, a, workspace=None):
    """Return {what: result} of all five ops for the arguments of a case, on the device."""
    part = workspace.part if workspace else lambda name: None
    lists = kernels.lit_lists(a["positions"], a["events"], a["geometry"], workspace=part("lists"))
    resting = kernels.lit_rest(a["rest"], a["block"], part("rest"))
    lit = kernels.lit_block(a["changes"], lists, resting, a["block"], part("lit"))
    results = {"lists": lists, "resting": resting, "lit": lit}
    return results | gradients(kernels, {**a, "lit": lit, "resting": resting}, workspace)


def gradients(kernels, a, workspace=None, wanted=ALL):
    """Return {what: gradient}; ``wanted`` of lit_block_backward and of lit_rest_backward."""
    part = workspace.part if workspace else lambda name: None
    block, lit, resting = a["block"], a["lit"], a["resting"]
    dy, rest_dy = (kernels.asarray(d) for d in upstream(lit.y.shape, resting.y.shape))
    back = kernels.lit_block_backward(dy, lit, block, wanted[0], part("lit"))
    sums = back[1] + 0  # the next op adds to them
    rest = kernels.lit_rest_backward(rest_dy, sums, resting, block, wanted[1], part("rest"))
    return {
        **dict(zip(("dx", "sums", "dw", "db"), back)),
        **dict(zip(("rest dx", "rest dw", "rest db"), rest)),
        "sums with rest": sums,
    }


def upstream(shape, rest_shape):
    rng = np.random.default_rng(1)
    return rng.standard_normal(shape).astype(np.float32), rng.standard_normal(rest_shape)


def without_lists(results):
    """The lists have pieces that follow the number of threads, or of multiprocessors."""
    lit = results["lit"]
    return {**results, "lists": None, "lit": (lit.y, lit.argmax)}
