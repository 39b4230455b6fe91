"""Images made by code that keeps the rules by construction are checked in the tests all the
same.
"""

import os

from minicnn.data import sparse

sparse.CHECK_TRUSTED = True
os.environ["MINICNN_CHECK_IMAGES"] = "1"  # of processes that tests start
