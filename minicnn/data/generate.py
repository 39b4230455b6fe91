"""Simulated events into a file: made by all ranks, written in order by rank 0."""
from .readers import EventWriter

BLOCK = 16                                           # events a rank makes between two gatherings


def generate(path, events, simulator, comm=None, progress=None):
    """Write events 0 to ``events`` - 1 of ``simulator`` to ``path``; every rank makes a share, the file is the same for any number.

    ``progress(done, total)`` is called on rank 0. The file appears under its name only when it is complete.
    """
    rank, ranks = (comm.rank, comm.size) if comm else (0, 1)
    writer = None
    try:
        if rank == 0:
            metadata = {"creator": "minicnn simulate", "seed": simulator.seed, "units": "ADC", "row": "wire", "column": "tick pair"}
            writer = EventWriter(path, simulator.image_shape, simulator.class_names, metadata=metadata)
        for start in range(0, events, BLOCK * ranks):
            mine = range(start + rank, min(start + BLOCK * ranks, events), ranks)
            made = [simulator.read(i) for i in mine]
            everyones = comm.gather(made) if comm else [made]
            if writer is not None:
                for i in range(len(made) and max(map(len, everyones))):
                    for share in everyones:
                        if i < len(share):
                            writer.append(share[i])
                if progress:
                    progress(len(writer), events)
        if writer is not None:
            writer.close()
    except BaseException:
        if writer is not None:
            writer.abort()
        raise
    if comm:
        comm.Barrier()                               # nobody opens the file before it is there
