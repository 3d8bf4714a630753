"""Rates and cycle boundaries, exactly. Standard library only."""
