"""Layers: thin descriptions of what an op needs over the kernels of a backend; see base.py.

A module here says in its ``__all__`` which of its names are public; they are ``mc.<name>`` then.
"""

from . import activation, base, conv, dense, merge, norm, pooling
from .activation import *  # noqa: F403
from .base import *  # noqa: F403
from .base import REGISTRY as REGISTRY
from .conv import *  # noqa: F403
from .dense import *  # noqa: F403
from .merge import *  # noqa: F403
from .norm import *  # noqa: F403
from .pooling import *  # noqa: F403

__all__: list[str] = []
__all__ += activation.__all__
__all__ += base.__all__
__all__ += conv.__all__
__all__ += dense.__all__
__all__ += merge.__all__
__all__ += norm.__all__
__all__ += pooling.__all__
