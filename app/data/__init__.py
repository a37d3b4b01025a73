"""Data that users bring: read once, checked, and kept in one form (`normal`) that every worker loads without parsing.

`reading` says how a file is read, `files` read its bytes, `columns` decides what each column holds, `assembly` makes a
data set of them, `store` keeps it by its hash, and `roots` are the places that files may be named in.
"""
