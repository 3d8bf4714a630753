"""What is said where a model's function does not take what an input gives."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..core.errors import EnsembleError, plural


@contextmanager
def explained_call(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    title: str,
    way: str,
    remedy: str,
) -> Iterator[None]:
    """Have a TypeError of a call itself say how an input goes in, and what to do.

    One from within the function comes as it is: there the arguments fit.

    Args:
        function: what is called in the end, such as a module's `forward`.
        args: its arguments.
        kwargs: those by keyword.
        title: what the message calls the function.
        way: how an input of this kind goes in.
        remedy: the code by which it goes in otherwise.

    Raises:
        EnsembleError: in place of the TypeError.
    """
    try:
        yield
    except TypeError as error:
        fault = None if _was_entered(function, error) else _misfit(function, args, kwargs)
        if fault is None:
            raise
        raise EnsembleError(
            f"{title} must take what the input gives: {way}. Received: {fault}; to have it "
            f"otherwise, give {remedy}"
        ) from error


def _was_entered(function: Callable[..., Any], error: TypeError) -> bool:
    """Whether the error came while the function ran, maybe with other arguments, by a hook."""
    code, trace = getattr(inspect.unwrap(function), "__code__", None), error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is code:
            return True
        trace = trace.tb_next
    return False


def _misfit(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> str | None:
    """Why a function cannot be called with some arguments; None where it can, or is not known."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        came = [f"{name}=" for name in kwargs]
        given = ", ".join(came) or plural(len(args), "argument")
        return f"{given}, where it takes ({', '.join(signature.parameters)})"
    return None
