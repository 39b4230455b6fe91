"""What a run leaves behind for people: event displays, learning curves, confusion tables and
pictures.

Pictures are made on matplotlib's Figure objects, never through pyplot: no display, no global state.
matplotlib loads with the first picture, not with the import.
"""

from .confusion import draw_accuracy, draw_confusion, talk_table, write_confusion_csv
from .curves import draw_history
from .display import View, draw_event, draw_events
from .timeline import draw_step, ledger_table, write_timeline
from .validation import draw_validation, write_page

__all__ = [
    "View",
    "draw_accuracy",
    "draw_confusion",
    "draw_event",
    "draw_events",
    "draw_history",
    "draw_step",
    "draw_validation",
    "ledger_table",
    "talk_table",
    "write_confusion_csv",
    "write_page",
    "write_timeline",
]
