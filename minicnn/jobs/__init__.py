"""The main job, from events to a report: recipe.py has its settings, run_folder.py what it leaves,
train.py and predict.py do it. ``python -m minicnn train`` and ``examples/microboone.py`` run it.
"""
