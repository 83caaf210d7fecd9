"""Templates of the fleet's texts: command lines, messages, scripts and the documents that machines fetch later.

Jinja in its immutable sandbox: values are data, never templates; what a template may touch is named; what is not there
is an error, not an empty word; time and output are bounded. A template is the operator's, its values may be a peer's.
"""

from __future__ import annotations

import json
import shlex
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from bootwire.wire.text import printable

if TYPE_CHECKING:
    import jinja2

MAX_OUTPUT = 4 << 20  # characters that may come out: an autoinstall document with its scripts is some 100 KB
MAX_RANGE = 10_000  # steps of one range()
SECONDS = 0.5  # that one template may take; a thousandth is usual
MAX_NUMBER = 1 << 16  # of a power in a template
MAX_REPEATED = 1 << 16  # characters or elements that a repetition makes


class BadTemplate(Exception):
    """A template that cannot be read or made into text; the text says why, and in which of its lines."""


class Templates:
    """Compiles and renders. Any thread: a compiled template is used by one at a time."""

    def __init__(self) -> None:
        self._environment = _environment()
        self._lock = threading.Lock()
        self._compiled: dict[str, jinja2.Template] = {}

    def check(self, text: str) -> str:
        """Why `text` is no template, or ""."""
        try:
            self._compile(text)
        except BadTemplate as error:
            return str(error)
        return ""

    def render(self, text: str, values: Mapping[str, object]) -> str:
        """`text` with its expressions replaced. Raises BadTemplate."""
        if "{" not in text:
            return text
        import jinja2

        template = self._compile(text)
        out: list[str] = []
        size = 0
        before = sys.gettrace()
        sys.settrace(_watch(time.monotonic() + SECONDS))
        try:
            for piece in template.generate(**values):
                size += len(piece)
                if size > MAX_OUTPUT:
                    raise BadTemplate(f"more than {MAX_OUTPUT >> 20} million characters come out")
                out.append(piece)
        except jinja2.UndefinedError as error:
            raise BadTemplate(f"{printable(str(error), 120)} (line {_line(error)})") from None
        except BadTemplate:
            raise
        except Exception as error:  # a template can raise what its filters and our functions raise
            what = printable(str(error) or type(error).__name__, 120)
            raise BadTemplate(f"{what} (line {_line(error)})") from None
        finally:
            sys.settrace(before)
        return "".join(out)

    def _compile(self, text: str) -> jinja2.Template:
        import jinja2

        with self._lock:
            found = self._compiled.get(text)
            if found is None:
                try:
                    found = self._environment.from_string(text)
                except jinja2.TemplateSyntaxError as error:
                    raise BadTemplate(f"{printable(error.message or '', 120)} (line {error.lineno})") from None
                except (RecursionError, MemoryError, OverflowError):
                    raise BadTemplate("nested too deeply") from None
                if len(self._compiled) > 1024:
                    self._compiled.clear()
                self._compiled[text] = found
            return found


def _watch(until: float) -> Callable[[FrameType, str, Any], Any]:
    """A trace function (sys.settrace) that ends a template's loops when its time is over."""

    def line(frame: FrameType, event: str, _: Any) -> Any:
        if time.monotonic() > until:
            raise BadTemplate(f"it took longer than {SECONDS} s")
        return line

    def call(frame: FrameType, event: str, _: Any) -> Any:
        return line if frame.f_code.co_filename == "<template>" else None

    return call


def _environment() -> jinja2.Environment:
    import jinja2.sandbox

    class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
        """Attributes of nothing but plain values, no powers and repetitions that fill the memory."""

        intercepted_binops = frozenset(("**", "*", "%"))

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            plain = str, bytes, int, float, bool, list, tuple, dict, type(None)
            if not isinstance(obj, plain) and type(obj).__name__ not in ("LoopContext", "Cycler", "Namespace"):
                return False
            if isinstance(obj, str) and attr in ("format", "format_map", "encode", "zfill", "ljust", "rjust", "center"):
                return False
            return super().is_safe_attribute(obj, attr, value)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            sizes = [value for value in (left, right) if isinstance(value, int)]
            texts = [value for value in (left, right) if isinstance(value, str | bytes | list | tuple)]
            if operator == "%" and isinstance(left, str | bytes):
                raise jinja2.exceptions.SecurityError("% formats text in a way that is not allowed: use ~")
            if operator == "**" and any(abs(value) > MAX_NUMBER for value in sizes):
                raise jinja2.exceptions.SecurityError(f"{operator} with a number this large")
            if operator == "*" and any(len(text) * value > MAX_REPEATED for text in texts for value in sizes):
                raise jinja2.exceptions.SecurityError("a repetition this long")
            if operator == "**" and any(abs(value) > 64 for value in sizes[1:]):
                raise jinja2.exceptions.SecurityError("a power this high")
            return super().call_binop(context, operator, left, right)

    environment = Sandbox(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True,
        autoescape=False, loader=None, cache_size=0,
    )  # fmt: skip
    for name in ("lipsum", "cycler", "joiner"):
        environment.globals.pop(name, None)
    environment.globals["range"] = _range
    # those that make much of little, and those whose time is not ours to bound
    for name in (
        "format", "center", "indent", "pprint", "xmlattr", "urlize", "random", "filesizeformat", "batch", "slice",
        "wordwrap",
    ):  # fmt: skip
        environment.filters.pop(name, None)
    environment.filters["quote"] = _shell_quote
    environment.filters["replace"] = _replace
    environment.filters["json"] = environment.filters["yaml"] = environment.filters["tojson"] = _json
    return environment


def _range(*bounds: int) -> range:
    found = range(*bounds)
    if len(found) > MAX_RANGE:
        raise ValueError(f"range of more than {MAX_RANGE} steps")
    return found


def _replace(text: object, old: str, new: str, count: int = -1) -> str:
    before = str(text)
    if len(before) + before.count(old) * len(new) > MAX_OUTPUT:
        raise ValueError("a replacement this long")
    return before.replace(old, new, count)


def _shell_quote(value: object) -> str:
    return shlex.quote(str(value))


def _json(value: object) -> str:
    """JSON, which is YAML, too; nothing is escaped for HTML."""
    return json.dumps(value, ensure_ascii=False)


def _line(error: BaseException) -> int:
    """The template's line that an exception came from."""
    line, traceback = 0, error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == "<template>":
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


Function = Callable[..., object]
"""What a template may call."""
