"""The rules that a study's definition must heed: each module names what is wrong, and where.

`definition` runs them all.
"""
