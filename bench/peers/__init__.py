"""The peers, each a script of its own that runs a work as its documentation shows and tells its figures on stdout.

They import nothing of Fettle but the data set `shapes`, and run in whatever environment has their packages.
"""
