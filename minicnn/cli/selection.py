"""What ``convert`` writes of its inputs: conditions, shares and balanced classes."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.event import EventError

SELECT = re.compile(
    r"(labelled)|(class)=(.+)|(lit)(>=|<=)(\d+)|(events)=(\d*):(\d*)|share=([\d.]+):([\d.]+)"
)
#: Of the order in which shares and balanced classes are drawn: the same in every conversion.
SEED = 0


@dataclass(frozen=True)
class Condition:
    """One --select: ``wants`` says whether an event is to be written.

    asks_about: what the condition needs. "number": the event's number in its input and how many
    events are there; "label": its label and the names of the classes; "image": its image and
    the same names.
    """

    text: str
    asks_about: str
    wants: Callable[[Any, Any], bool]


class Selection:
    """All conditions of a conversion, and with ``balance`` as many events of every class as the
    rarest has among those that fulfil them.
    """

    def __init__(self, texts: Sequence[str], balance: bool = False) -> None:
        self.conditions = [_condition(text) for text in texts]
        self._balanced: dict[str, set[int]] | None = {} if balance else None
        later = [c.text for c in self.conditions if c.asks_about == "image"]
        if balance and later:
            raise EventError(
                f"--balance counts events before they are read, --select {later[0]} is known "
                "afterwards: convert first, then balance the event file"
            )

    def numbers(self, source: str, count: int) -> list[int]:
        """Return the numbers of the events of an input of ``count`` events that are to be read."""
        of_numbers = [c for c in self.conditions if c.asks_about == "number"]
        numbers = [i for i in range(count) if all(c.wants(i, count) for c in of_numbers)]
        if self._balanced is None:
            return numbers
        return [i for i in numbers if i in self._balanced.get(source, ())]

    def wants(self, event: Any, class_names: Sequence[str]) -> bool:
        """Return whether an event that has been read is to be written."""
        asked = {"label": event.label, "image": event.image}
        some = (c for c in self.conditions if c.asks_about in asked)
        return all(c.wants(asked[c.asks_about], class_names) for c in some)

    def balance(self, inputs: Mapping[str, tuple[np.ndarray, Sequence[str]]]) -> None:
        """Choose events of the inputs, {name: (labels int (n,), names of the classes)}: they are
        drawn at random, the same in every conversion.
        """
        of_labels = [c for c in self.conditions if c.asks_about == "label"]
        self._balanced, events = None, []
        for source, (labels, names) in inputs.items():
            for i in self.numbers(source, len(labels)):
                label = int(labels[i])
                if label >= 0 and all(c.wants(label, names) for c in of_labels):
                    events.append((source, i, names[label]))
        classes = [name for _, _, name in events]
        rarest = min((classes.count(name) for name in set(classes)), default=0)
        self._balanced = {source: set() for source in inputs}
        left = dict.fromkeys(classes, rarest)
        for k in np.random.default_rng(SEED).permutation(len(events)):
            source, i, name = events[k]
            if left[name]:
                left[name] -= 1
                self._balanced[source].add(i)


def _condition(text: str) -> Condition:
    """Return the Condition that a --select asks for."""
    found = SELECT.fullmatch(text)
    if not found:
        raise EventError(
            f"--select {text}: expected labelled, class=A,B, lit>=N, lit<=N, events=A:B or "
            "share=A:B"
        )
    labelled, _, names, _, sign, pixels, events, first, last, low, high = found.groups()

    def of_class(label: int, class_names: Sequence[str]) -> bool:
        wanted = names.split(",")
        unknown = sorted(set(wanted) - set(class_names))
        if unknown:
            raise ValueError(
                f"--select {text}: there is no class {', '.join(unknown)}, only "
                f"{', '.join(class_names)}"
            )
        return label >= 0 and class_names[label] in wanted

    if labelled:
        return Condition(text, "label", lambda label, _: label >= 0)
    if names:
        return Condition(text, "label", of_class)
    if sign == ">=":
        return Condition(text, "image", lambda image, _: image.nnz >= int(pixels))
    if sign == "<=":
        return Condition(text, "image", lambda image, _: image.nnz <= int(pixels))
    if events:
        begin, end = int(first or 0), int(last) if last else sys.maxsize
        return Condition(text, "number", lambda number, _: begin <= number < end)
    return Condition(text, "number", _share(text, low, high))


def _share(text: str, low: str, high: str) -> Callable[[int, int], bool]:
    """Return whether an event is in a share: events of an input are shuffled, the same in every
    conversion, and those from low to high of all are taken; shares that meet have no event in
    common and leave none out.
    """
    try:
        begin, end = float(low), float(high)
    except ValueError:
        begin = end = -1.0
    if not 0 <= begin < end <= 1:
        raise EventError(f"--select {text}: a share is from A to B with 0 <= A < B <= 1, as 0:0.8")
    places: dict[int, np.ndarray] = {}

    def wants(number: int, count: int) -> bool:
        if count not in places:
            places[count] = np.random.default_rng(SEED).permutation(count)
        place = int(places[count][number])
        return round(begin * count) <= place < round(end * count)

    return wants
