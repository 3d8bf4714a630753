"""What must hold for the arrays of every framework, given how to make one and to read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from cosanneal.ensemble import ValuePool, pool
from cosanneal.ensemble.predict.pooling import Pooling


def check_kind(
    make: Callable[[NDArray[Any], str], Any],
    read: Callable[[Any], NDArray[Any]],
    *,
    dtypes: Sequence[str],
    same_place: Callable[[Any, Any], bool],
) -> None:
    """Pool arrays of a framework, and compare with numpy's float64 and the first's dtype.

    Args:
        make: an array of the framework from numpy's float64 and a dtype's name.
        read: the array as numpy's float64.
        dtypes: the names of the floating dtypes to try.
        same_place: whether two arrays are of one type, dtype and device.
    """
    random = np.random.default_rng(0)
    for dtype in dtypes:
        logits = [make(random.normal(size=(6, 4)) * 3, dtype) for _ in range(5)]
        exact = [read(z) for z in logits]  # as the dtype holds them
        # Half a unit in the last place of a number below 1, and of a logarithm below 64.
        ulp = {"float64": 2.0**-52, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
        for pooling in get_args(Pooling):
            result = pool(logits, pooling=pooling, inputs="logits", weights=[1, 2, 0, 1, 0.5])
            assert same_place(result, logits[0])
            expected = pool(exact, pooling=pooling, inputs="logits", weights=[1, 2, 0, 1, 0.5])
            scale = 64 if pooling == "log-probabilities" else 1
            np.testing.assert_allclose(
                read(result), expected, rtol=0, atol=scale * ulp[dtype], err_msg=pooling
            )
        values, plain = ValuePool[Any](), ValuePool[NDArray[Any]]()
        for z, e in zip(logits, exact, strict=True):
            values.update(z)
            plain.update(e)
        assert same_place(values.mean, logits[0])
        assert same_place(values.variance, logits[0])
        for mine, theirs in ((values.mean, plain.mean), (values.variance, plain.variance)):
            np.testing.assert_allclose(read(mine), theirs, rtol=2 * ulp[dtype], atol=1e-300)
        assert all(np.array_equal(read(z), e) for z, e in zip(logits, exact, strict=True))
