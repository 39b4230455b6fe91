"""What makes numba compile less. It leans on parts of numba that are nobody's interface: where a
version has them no longer, all is compiled as numba likes, which takes longer, and nothing else
changes.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from numba import types
from numba.core import codegen as numbas_codegen

_Library: Any = getattr(numbas_codegen, "JITCodeLibrary", None)
#: Methods of a library of numba's that pieces of a parallel loop do without, or call.
_STEPS = ("_optimize_final_module", "_finalize_final_module", "_finalize_dynamic_globals")


def compile_less(dispatcher: Any) -> Any:
    """Return a function of numba's, with no version of its own for every constant that it is called
    with by compiled functions, and no machine code for pieces of a parallel loop.
    """
    if hasattr(dispatcher, "get_call_template"):
        dispatcher.get_call_template = functools.partial(_call_of_any, dispatcher.get_call_template)
    compiler: Any = getattr(dispatcher, "_compiler", None)
    if OnlyLinked is not None and hasattr(compiler, "compile"):
        codegen = dispatcher.targetctx.codegen
        compiler.compile = functools.partial(_compile, compiler.compile, codegen)
    return dispatcher


def _call_of_any(call_template, arguments, keywords):
    """Return what a caller that is compiled needs of this function, for any numbers in the place of
    constants.
    """
    keywords = {name: types.unliteral(kind) for name, kind in keywords.items()}
    return call_template([types.unliteral(kind) for kind in arguments], keywords)


def _compile(numbas_compile, codegen, arguments, result):
    with _wrappers_only_linked(codegen()):
        return numbas_compile(arguments, result)


@contextlib.contextmanager
def _wrappers_only_linked(codegen: Any) -> Iterator[None]:
    """Have numba not compile the two wrappers of a parallel loop by themselves. Each has the whole
    loop in it, and so has the function in which they end: without this, half of the time that a
    parallel function takes to compile is for machine code that is thrown away.
    """
    before = codegen.create_library

    def create_library(name, **options):
        if name == "parallelgufuncwrapper" or "_GufuncWrapper" in name:
            return OnlyLinked(codegen, name, **options)
        return before(name, **options)

    codegen.create_library = create_library
    try:
        yield
    finally:
        codegen.create_library = before


OnlyLinked: Any = None
if all(hasattr(_Library, step) for step in _STEPS):

    class OnlyLinked(_Library):  # type: ignore[no-redef]
        """A piece of a function that is never run by itself: nothing is made of it but what is
        linked into the function, which is optimised and turned into machine code as a whole.
        """

        def _optimize_final_module(self):
            pass

        def _finalize_final_module(self):
            self._finalize_dynamic_globals()
            self._finalized = True
