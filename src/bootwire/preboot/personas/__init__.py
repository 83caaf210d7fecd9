"""Firmware as it behaves on the wire, from power-on to "would start this kernel" or to the error it would print.

A persona is a generator: it yields one request to the outside at a time (`steps`) and is sent the answer. It does no
I/O and knows no time but what its `Machine` says, so the same persona runs in virtual time and over real sockets.
"""
