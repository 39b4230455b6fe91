"""Networks of all layers and kinds of graph, with weights that matter."""

import numpy as np

import minicnn as mc
from helpers.lit_networks import randomize

NAMES = ["gamma", "e-", "mu-"]


def every_layer(**options):
    """A classifier with every layer, none of square windows and strides alone."""
    inputs = mc.Input((24, 20, 2), name="the image")
    x = mc.LayerNormalization()(mc.Conv2D(6, (3, 4), strides=2, padding="same")(inputs))
    a = mc.GELU()(mc.DepthwiseConv2D((2, 3), padding="same", depth_multiplier=2, dilation=2)(x))
    b = mc.SiLU()(mc.Conv2D(12, 3, padding="same", dilation=(1, 2))(x))
    x = mc.BatchNormalization()(mc.Add()([a, b, a]))
    c = mc.Tanh()(mc.AveragePooling2D((2, 3), (1, 2))(mc.ZeroPadding2D(((1, 0), (0, 1)))(x)))
    d = mc.Cropping2D(((0, 1), (1, 0)))(mc.LeakyReLU(0.1)(mc.ZeroPadding2D(((1, 1), (1, 1)))(x)))
    d = mc.Sigmoid()(mc.MaxPooling2D((2, 3), (1, 2))(d))
    x = mc.SpatialDropout2D(0.3)(mc.Concatenate()([c, d]))
    up = mc.Softplus()(mc.Conv2DTranspose(4, (3, 2), strides=(2, 1), padding="same")(x))
    up = mc.Conv2DTranspose(3, (1, 3), strides=(2, 2))(mc.UpSampling2D((1, 2))(up))
    up = mc.Conv2DTranspose(3, (2, 1), strides=(1, 2), padding="same")(up)
    x = mc.ELU(0.7)(mc.MaxPooling2D(5)(mc.Softmax()(up)))
    flat = mc.Dense(8, name="in.between")(mc.Flatten()(x))
    flat = mc.LayerNormalization()(mc.BatchNormalization()(mc.Dropout(0.2)(mc.ReLU()(flat))))
    ends = [flat, mc.GlobalAveragePooling2D()(x), mc.GlobalMaxPooling2D()(x)]
    outputs = mc.Dense(3)(mc.Concatenate()(ends))
    return mc.Model(inputs, outputs, class_names=NAMES, input_scale=0.01, input_knee=50, **options)


def several(**options):
    """Two planes through shared layers at two sizes, and two outputs: scores and momentum."""
    planes = [mc.Input((20, 20, 1), name="u"), mc.Input((30, 20, 1), name="v")]
    conv, crop, pool = mc.Conv2D(4, 3, padding="same"), mc.Cropping2D(1), mc.MaxPooling2D(2)
    seen = [mc.GlobalAveragePooling2D()(crop(pool(mc.ELU()(conv(plane))))) for plane in planes]
    x = mc.Concatenate()(seen)
    outputs = [mc.Dense(3, name="scores")(x), mc.Dense(1, name="momentum")(x)]
    loss = [mc.SoftmaxCrossEntropy(), mc.MeanSquaredError(scale=1000)]
    return mc.Model(planes, outputs, loss=loss, input_scale=0.01, **options)


def talk(**options):
    return mc.models.microboone(50, 1, 3, input_scale=0.01, class_names=NAMES, **options)


def pixels(**options):
    return mc.models.unet(16, 1, 2, (3, 4), **options)


NETWORKS = [talk, pixels, every_layer, several]


def made(network):
    """Return the model with weights at random, on the backend that compiles nothing."""
    model = network(device="reference")
    randomize(model)
    return model


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert np.array_equal(found[name], wanted[name]), name
