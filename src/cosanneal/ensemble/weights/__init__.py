"""Means of the members' weights: one model at the cost of one."""
