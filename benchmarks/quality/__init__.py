"""The bench of ordinary tasks: whether snapshot ensembles pay, and which rule chooses best.

`python -m benchmarks.quality` trains what is missing, scores it, and writes `results.json` and
the tables of `docs/quality.md`. `nox -s quality` does the same with the versions of
`constraints.txt`.
"""
