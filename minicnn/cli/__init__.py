"""The commands of ``python -m minicnn``, one module each: ``arguments(parser)`` and ``run(args)``
-> exit status.
"""
