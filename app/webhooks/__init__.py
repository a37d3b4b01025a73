"""Telling receivers of a project's events over HTTP.

`addresses` decides where a request may go, `signing` proves who sent it, `sending` makes one request, and `deliveries`
brings every webhook what its log has told, in order and at least once.
"""
