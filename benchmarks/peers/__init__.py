"""Other systems at the same work, to measure ourselves against: see README.md in this folder.

A peer runs in an environment of its own, so `work` and `load` import nothing but the standard library and
asyncpg, and neither this file nor `benchmarks/__init__.py` imports anything at all.
"""
