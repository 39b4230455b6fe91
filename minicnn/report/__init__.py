"""What a run leaves behind for people: event displays, learning curves, confusion tables and pictures.

Pictures are made on matplotlib's Figure objects, never through pyplot: no display, no global state. matplotlib
loads with the first picture, not with the import.
"""
from .confusion import draw_confusion, talk_table, write_confusion_csv
from .curves import draw_history
from .display import draw_event, draw_events

__all__ = ["draw_confusion", "draw_event", "draw_events", "draw_history", "talk_table", "write_confusion_csv"]
