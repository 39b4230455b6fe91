"""temporary"""

import os


def atomic_write(path, data):
    partial = f"{path}.partial"
    with open(partial, "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
