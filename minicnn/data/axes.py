"""What the rows and columns of an image are in the detector: the axes of event displays."""

from typing import NamedTuple


class Axis(NamedTuple):
    """One axis: pixel p covers ``start`` + p ``step`` to ``start`` + (p + 1) ``step`` of what
    ``name`` counts.

    cm: length per pixel along the coordinate ``length``, ``origin`` its value at the edge of pixel
    0; 0 where it is not known.
    """

    name: str
    step: float = 1.0
    start: float = 0.0
    length: str = ""
    cm: float = 0.0
    origin: float = 0.0

    def summed(self, block):
        """Return the axis after ``block`` pixels have been added up to one."""
        return self._replace(step=self.step * block, cm=self.cm * block)

    def padded(self, pixels):
        """Return the axis after ``pixels`` have been put before the first one."""
        return self._replace(
            start=self.start - pixels * self.step, origin=self.origin - pixels * self.cm
        )


#: of an image whose detector is not known
PLAIN = (Axis("row"), Axis("column"))
#: rows and columns of a MicroBooNE-like image of 3600 x 3600: 3456 collection wires in the middle,
#: pairs of ticks of 0.5 us
MICROBOONE = (
    Axis("wire", 1.0, -72.0, "z", 0.3, 0.1 - 72 * 0.3),
    Axis("tick", 2.0, 0.0, "x", 0.1098, -400 * 0.1098),
)


def placed(axes, shape, edge, size=None):
    """Return the axes of an image of ``shape`` that is centred on ``edge`` x ``edge`` and summed to
    ``size`` x ``size``.
    """
    return tuple(
        axis.padded((edge - n) // 2).summed(edge // (size or edge)) for axis, n in zip(axes, shape)
    )
