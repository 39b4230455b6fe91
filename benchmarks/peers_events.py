"""The events of peers.py: sets of images with labels, by name."""

import math

import numpy as np

import minicnn as mc
from minicnn.simulate.samples import SAMPLES, SPECIES

#: The talk's particles; its species one after the other: few events have them equally often.
TALK = SAMPLES["talk"]
TALK_PDG = [SPECIES[name] for kinds in TALK.classes.values() for name in kinds]


def event_sets(args):
    """Return {name: (images, labels)} of one plane; the first set is that of the check."""
    count = number_of(args)
    if args.events:
        with mc.data.open_events(args.events, size=args.size) as reader:
            events = [reader.read(i % len(reader)) for i in range(count)]
    else:
        simulator = mc.data.Simulator(
            seed=args.seed, shape=(args.size, args.size, 1), sample="isotropic"
        )
        events = [simulator.read(i) for i in range(count)]
    sets = {"simulated" if not args.events else "events": apart(events)}
    if args.talk:
        sets["talk"] = apart(talk_events(args.seed, args.size, count))
    if args.real:
        with mc.data.open_events(args.real, size=args.size) as reader:
            image = reader.read(0).image
        sets["real"] = [mirrored(image, k) for k in range(8)], [k % 5 for k in range(8)]
    if args.noise:
        rng = np.random.default_rng(args.seed)
        images = [10 * rng.standard_normal((args.size, args.size, 1), np.float32) for _ in range(2)]
        sets["noise"] = images, [1, 2]
    return sets


def plane_sets(args):
    """Return {"planes": (images, labels)}: simulated single particles, three images of each."""
    simulator = mc.data.Simulator(
        seed=args.seed, shape=(args.size, args.size, 3), sample="isotropic"
    )
    images, labels = apart([simulator.read(i) for i in range(number_of(args))])
    return {"planes": ([image.planes() for image in images], labels)}


def number_of(args):
    """Return the number of events: whole batches of the largest size."""
    return max(args.batch_size) * -(-args.number // max(args.batch_size))


def apart(events):
    """Return (images, labels) of events."""
    return [event.image for event in events], [max(int(event.label), 0) for event in events]


def talk_events(seed, size, count):
    """Return ``count`` simulated events of one particle each, made as the talk's were."""
    simulator = mc.data.Simulator(seed=seed, shape=(size, size, 1), sample="isotropic")
    rng, events = np.random.default_rng(seed), []
    for i in range(count):
        xz, yz = np.radians(TALK.spread) * rng.standard_normal(2)
        events.append(
            simulator.simulate(
                i,
                pdg=TALK_PDG[i % len(TALK_PDG)],
                momentum=TALK.momentum[0],
                position=TALK.position,
                direction=(math.sin(xz) * math.cos(yz), math.sin(yz), math.cos(xz) * math.cos(yz)),
            )
        )
    return events


def mirrored(image, k):
    """Return one of the eight mirror images of a square SparseImage."""
    (rows, columns), last = image.coords.T, image.shape[0] - 1
    if k & 4:
        rows, columns = columns, rows
    return mc.data.SparseImage.from_pixels(
        last - rows if k & 2 else rows,
        last - columns if k & 1 else columns,
        image.values,
        image.shape,
        image.background,
    )


def lit_fraction(images):
    """Return the mean fraction of lit pixels; of an event with several planes, that of them all."""
    flat = [p for image in images for p in (image if isinstance(image, tuple) else (image,))]
    return np.mean(
        [
            np.count_nonzero(image) / image.size
            if isinstance(image, np.ndarray)
            else image.nnz / np.prod(image.shape[:2])
            for image in flat
        ]
    )
