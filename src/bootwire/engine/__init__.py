"""The units every engine counts in.

An engine is one protocol and one role, without I/O. It has `receive(message, now)`, `tick(now)` and
`deadline` (when `tick` is next due, None once closed), and returns its effects in the order to perform them.
Nobody inherits that shape; `now` is always passed and never goes back.
"""

from __future__ import annotations

Ns = int  # monotonic nanoseconds since an arbitrary moment
US: Ns = 1_000
MS: Ns = 1_000_000
S: Ns = 1_000_000_000
