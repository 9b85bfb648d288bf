"""The bytes of a pickle, checked before they are unpickled.

Python's unpickler takes a table of as many entries as the highest number a pickle gives to an
object. One flipped bit there asks for tens of gigabytes, and the process is killed.
"""

import pickle
import pickletools
from io import BufferedIOBase
from typing import IO, cast

_NUMBERED = ("PUT", "BINPUT", "LONG_BINPUT")


def checked(file: BufferedIOBase) -> bytes:
    """The next pickle of an open file, which is then at its end.

    Raises:
        ValueError: it ends early, has an unknown operation, or a string beyond its end.
        pickle.UnpicklingError: it numbers more objects than it has.
    """
    start, count = file.tell(), 0
    for operation, argument, _ in pickletools.genops(cast(IO[bytes], file)):
        count += 1
        if operation.name in _NUMBERED and int(argument or 0) > count:
            raise pickle.UnpicklingError(f"object {argument} of {count}")
    end = file.tell()
    file.seek(start)
    return file.read(end - start)
