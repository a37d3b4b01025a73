"""What a study is, in pydantic and the standard library alone: no I/O, no Optuna, no SQL."""
