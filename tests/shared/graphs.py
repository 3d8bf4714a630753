"""The size of a graph that JAX traced."""

from __future__ import annotations

from typing import Any


def equations(jaxpr: Any) -> int:
    """All equations of a jaxpr, inner ones too."""
    count = 0
    for equation in jaxpr.eqns:
        count += 1
        for value in equation.params.values():
            for inner in value if isinstance(value, list | tuple) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                count += equations(inner) if hasattr(inner, "eqns") else 0
    return count
