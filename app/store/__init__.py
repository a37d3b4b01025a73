"""Tables and the statements on them. Functions take a Session and never commit; the caller commits once."""
