"""Networks by name."""

from ..engine.model import Sequential
from .layers import ELU, Conv2D, Dense, Flatten, MaxPooling2D


def microboone(size=3600, channels=1, classes=5, **options):
    """Return the talk's five-class LArTPC network; for size 3600 and one plane it has 1,245,705
    parameters.

    Four blocks of Conv2D 5 x 5 "same" (10, 64, 128, 256 filters), ELU, MaxPooling2D 5; Flatten;
    Dense 32, ELU; Dense ``classes``. ``size`` is the side of the image in pixels (at least 625),
    ``channels`` the number of wire planes; ``options`` go to Sequential. Smaller images get as many
    blocks as leave at least one pixel. Source: Bhattacharya et al., "Scaling studies for deep
    learning in LArTPC event classification" (PNNL).
    """
    layers, side = [], size
    for i, filters in enumerate((10, 64, 128, 256), 1):
        if side < 5:
            break
        layers += [
            Conv2D(filters, 5, padding="same", name=f"block{i}_conv1"),
            ELU(),
            MaxPooling2D(5, name=f"block{i}_pool"),
        ]
        side //= 5
    if not layers:
        raise ValueError(f"size must be at least 5 pixels, got {size}")
    layers += [
        Flatten(name="flatten"),
        Dense(32, name="fc1"),
        ELU(),
        Dense(classes, name="predictions"),
    ]
    return Sequential(layers, input_shape=(size, size, channels), **options)
