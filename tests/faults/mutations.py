"""Sound files made unsound: some of their bytes, or their structure, changed at random."""

import json
import struct

NUMBERS = (0, 1, 2, 127, 128, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 10**9, 2**40, 2**63 - 1)


def mutated(sound, path, rng):
    """Write a changed copy of the file ``sound`` to ``path``; return what was done to it."""
    structured = {".h5": hdf5, ".safetensors": settings}.get(path.suffix)
    if structured and rng.random() < 0.35:
        path.write_bytes(sound.read_bytes())
        return structured(path, rng)
    data, names = bytearray(sound.read_bytes()), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        change = rng.choice(BYTES)
        if len(data) > 16:
            data = change(data, rng)
            names.append(change.__name__)
    path.write_bytes(data)
    return "+".join(names)


# ------------------------------------------------------------------------------------------ bytes
def flip(data, rng):
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def set_bytes(data, rng):
    for _ in range(rng.choice((1, 2, 8))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return data


def head(data, rng):
    data[rng.randrange(min(len(data), rng.choice((32, 256, 2048))))] = rng.choice((0, 255, 1, 128))
    return data


def number(data, rng):
    size = rng.choice((2, 4, 8))
    place = rng.randrange(len(data) - size) // size * size
    data[place : place + size] = struct.pack("<Q", rng.choice(NUMBERS))[:size]
    return data


def truncate(data, rng):
    return data[: rng.randrange(len(data))]


def grow(data, rng):
    return data + rng.randbytes(rng.choice((1, 8, 500)))


def piece(data, rng):
    length = rng.randrange(1, min(len(data) // 2, rng.choice((8, 64, 512, 4096))) + 1)
    start = rng.randrange(len(data) - length + 1)
    return start, start + length


def cut(data, rng):
    start, end = piece(data, rng)
    return data[:start] + data[end:]


def repeat(data, rng):
    start, end = piece(data, rng)
    return data[:end] + data[start:]


def move(data, rng):
    start, end = piece(data, rng)
    place = rng.randrange(len(data) - (end - start) + 1)
    data[place : place + end - start] = data[start:end]
    return data


def blank(data, rng):
    start, end = piece(data, rng)
    data[start:end] = bytes([rng.choice((0, 255))]) * (end - start)
    return data


BYTES = (flip, flip, set_bytes, head, number, number, truncate, grow, cut, repeat, move, blank)


# -------------------------------------------------------------------------------------- structure
def hdf5(path, rng):
    """Change a data set or an attribute, checksums of HDF5 included."""
    import h5py
    import numpy as np

    with h5py.File(path, "r+") as file:
        names = []
        file.visit(names.append)
        name = rng.choice(names)
        found = file[name]
        holder = rng.choice((file, found))
        if len(holder.attrs) and rng.random() < 0.3:
            attribute = rng.choice(sorted(holder.attrs))
            value = rng.choice((0, -1, 2**62, 0.5, "x", b"\xff", [1, 2, 3], np.zeros((2, 2))))
            if rng.random() < 0.3:
                del holder.attrs[attribute]
            else:
                holder.attrs[attribute] = value
            return f"attribute {attribute}"
        if rng.random() < 0.2:
            del file[name]
            return f"without {name}"
        if not isinstance(found, h5py.Dataset):
            del file[name]
            file[name] = np.arange(rng.randrange(4))
            return f"{name} is no group"
        way = rng.choice(("size", "type", "value", "value", "value", "shape"))
        if way == "size" and found.chunks:
            found.resize(max(0, rng.choice((0, 1, len(found) - 1, len(found) + 1, 10**6))), 0)
        elif way == "value" and found.size and found.dtype.kind in "iuf" and found.ndim:
            row = rng.randrange(len(found))
            least, most = (
                (-1e30, 1e30) if found.dtype.kind == "f" else (np.iinfo(found.dtype).min, None)
            )
            most = np.iinfo(found.dtype).max if most is None else most
            found[row] = rng.choice((0, 1, least, most, rng.randrange(100)))
        else:
            shape = found.shape if way == "type" else (rng.randrange(5), rng.randrange(1, 4))
            kind = rng.choice(("f8", "i1", "u8", "S3", "?", "c8", "f2"))
            del file[name]
            file[name] = np.zeros(shape, kind)
    return f"{way} of {name}"


def settings(path, rng):
    """Change a value in the JSON of a safetensors file."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    state = json.loads(header["__metadata__"]["minicnn"])
    top = rng.choice((header, state, state, state))
    places = list(leaves(top))
    holder, key = rng.choice(places)
    if rng.random() < 0.2 and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = rng.choice((0, -1, 1e300, True, None, "x", [], {}, [1] * 9, 2**70, 3))
    if top is state:
        header["__metadata__"]["minicnn"] = json.dumps(state)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    return f"JSON {key}"


def leaves(value):
    """Yield (holder, key) of every place in nested dicts and lists."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from leaves(value[key])
