"""Arrays that several processes of jax.distributed have a part of each."""

from __future__ import annotations

from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from numpy.typing import NDArray

# Of narrower floats a compiler may make others on the way: a NaN need not stay the same NaN.
_CARRIED_AS: Final = {1: jnp.uint8, 2: jnp.uint16}


def is_of_several(array: Any) -> bool:
    """Whether other processes have a part of an array, too."""
    return isinstance(array, jax.Array) and not array.is_fully_addressable


def is_in_parts(array: Any) -> bool:
    """Whether no process has the whole of an array."""
    return is_of_several(array) and not array.is_fully_replicated


def is_in_all(array: jax.Array) -> bool:
    """Whether every process has at least a part."""
    there = {device.process_index for device in array.sharding.device_set}
    return len(there) == int(jax.process_count())


def whole(array: Any) -> NDArray[Any]:
    """An array with all of its parts, in the host's memory, bit for bit; all processes must ask."""
    if not is_in_parts(array):
        return np.asarray(array)
    narrow = jnp.issubdtype(array.dtype, jnp.floating)
    carried = _CARRIED_AS.get(array.dtype.itemsize) if narrow else None
    if carried is not None:
        array, dtype = lax.bitcast_convert_type(array, carried), array.dtype
        return np.asarray(multihost_utils.process_allgather(array, tiled=True)).view(dtype)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def here(array: Any) -> Any:
    """An array of several processes as one of this process; all of them must ask."""
    return jnp.asarray(whole(array)) if is_of_several(array) else array


def put(array: Any, sharding: Any) -> Any:
    """An array laid out, of which every process has the whole."""
    if sharding is None or sharding.is_fully_addressable or is_of_several(array):
        return jax.device_put(array, sharding)
    held = np.asarray(array)  # of which each process puts its part on its devices
    return jax.make_array_from_callback(held.shape, sharding, lambda index: held[index])
