"""Templates of the fleet's texts: command lines, messages, scripts and the documents that machines fetch later.

Jinja in its immutable sandbox: values are data, never templates; what a template may touch is named; what is not there
is an error, not an empty word. A template is the operator's, its values may be a peer's.

Time and memory are bounded without a process of its own: a trace function looks at the clock at each line of a
template and at each function that is called, and every value that a template makes is paid for from what one rendering
may spend, before it is made where it could be much larger than what it is made of. So no single step in C, which
nothing interrupts, has more than that to work on.
"""

from __future__ import annotations

import functools
import json
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from bootwire.wire.text import printable

if TYPE_CHECKING:
    import jinja2

MAX_OUTPUT = 4 << 20  # characters that may come out: an autoinstall document with its scripts is some 100 KB
MAX_RANGE = 10_000  # steps of one range()
SECONDS = 0.5  # of processor time that one template may take; a thousandth is usual
MAX_NUMBER = 1 << 16  # of a power in a template
MAX_BITS = 4096  # of a product; Python writes out numbers of 4,300 digits at most
MAX_REPEATED = 1 << 16  # characters or elements that a repetition makes
MAX_VALUE = 1 << 20  # characters of one text that a template makes on the way
MAX_MADE = 8 << 20  # characters of all that one rendering makes, 4 octets each at most
ELEMENT = 16  # characters that an element of a list is paid as
MAX_DIGITS = 64  # that a number is rounded to


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
        until = time.thread_time() + SECONDS
        _purse.begin(until)
        sys.settrace(_watch(until))
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


_LONG = f"a text of more than {MAX_VALUE >> 20} million characters"
_LATE = f"it took longer than {SECONDS} s"


class _Purse(threading.local):
    """What the rendering in this thread may still spend, in characters."""

    def __init__(self) -> None:
        self._left, self._until = 0, 0.0

    def begin(self, until: float) -> None:
        self._left, self._until = MAX_MADE, until

    def spend(self, characters: int) -> None:
        self._left -= characters
        if self._left < 0:
            raise BadTemplate(f"more than {MAX_MADE >> 20} million characters are made on the way")
        if time.thread_time() > self._until:
            raise BadTemplate(_LATE)

    def pay(self, value: object) -> None:
        """For all that is in a value, which may be the same many times over."""
        waiting = [value]
        while waiting:
            one = waiting.pop()
            if isinstance(one, str):
                if len(one) > MAX_VALUE:
                    raise BadTemplate(_LONG)
                self.spend(len(one))
            elif isinstance(one, list | tuple | set | frozenset):
                self.spend(ELEMENT * len(one))
                waiting.extend(one)
            elif isinstance(one, dict):
                self.spend(2 * ELEMENT * len(one))
                waiting.extend(one)
                waiting.extend(one.values())
            elif type(one).__name__ == "Namespace":
                raise BadTemplate("a namespace is no value")


_purse = _Purse()


def _watch(until: float) -> Callable[[FrameType, str, Any], Any]:
    """A trace function (sys.settrace) that ends a template's loops when its time is over."""

    def line(frame: FrameType, event: str, _: Any) -> Any:
        if time.thread_time() > until:
            raise BadTemplate(_LATE)
        return line

    def call(frame: FrameType, event: str, _: Any) -> Any:
        if time.thread_time() > until:
            raise BadTemplate(_LATE)
        return line if frame.f_code.co_filename == "<template>" else None

    return call


def _environment() -> jinja2.Environment:
    import jinja2.compiler
    import jinja2.sandbox
    import jinja2.utils

    class Generator(jinja2.compiler.CodeGenerator):
        """Has what a template makes in expressions paid for."""

        def visit_Concat(self, node: jinja2.nodes.Concat, frame: jinja2.compiler.Frame) -> None:
            self.write("environment.joined((")
            for one in node.nodes:
                self.visit(one, frame)
                self.write(", ")
            self.write("))")

        def visit_List(self, node: jinja2.nodes.List, frame: jinja2.compiler.Frame) -> None:
            self.write("environment.paid(")
            super().visit_List(node, frame)
            self.write(")")

        def visit_Tuple(self, node: jinja2.nodes.Tuple, frame: jinja2.compiler.Frame) -> None:
            self.write("environment.paid(" if node.ctx == "load" else "(")
            super().visit_Tuple(node, frame)
            self.write(")")

        def visit_Dict(self, node: jinja2.nodes.Dict, frame: jinja2.compiler.Frame) -> None:
            self.write("environment.paid(")
            super().visit_Dict(node, frame)
            self.write(")")

    class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
        """Attributes of nothing but plain values; what is made is paid for."""

        code_generator_class = Generator
        intercepted_binops = frozenset(("**", "*", "%", "+"))
        concat = staticmethod(_concat)
        joined = staticmethod(_joined)
        paid = staticmethod(_paid)

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            methods = next((names for kind, names in _METHODS.items() if isinstance(obj, kind)), None)
            if methods is None and type(obj).__name__ not in ("LoopContext", "Cycler", "Namespace"):
                return False
            if methods is not None and attr not in methods:
                return False
            return super().is_safe_attribute(obj, attr, value)

        def wrap_str_format(self, value: Any) -> None:
            if getattr(value, "__name__", "") in ("format", "format_map"):
                raise jinja2.exceptions.SecurityError("format makes text in a way that is not allowed: use ~")

        def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
            text, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
            if isinstance(text, str) and name in ("replace", "join"):
                return (_replace if name == "replace" else _join_by)(text, *args, **kwargs)
            found = super().call(context, obj, *args, **kwargs)
            return found if isinstance(found, jinja2.utils.Namespace) else _paid(found)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            sizes = [value for value in (left, right) if isinstance(value, int)]
            texts = [value for value in (left, right) if isinstance(value, str | bytes | list | tuple)]
            if operator == "%" and isinstance(left, str | bytes):
                raise jinja2.exceptions.SecurityError("% formats text in a way that is not allowed: use ~")
            if operator == "**" and any(abs(value) > MAX_NUMBER for value in sizes):
                raise jinja2.exceptions.SecurityError(f"{operator} with a number this large")
            if operator == "*" and any(len(text) * value > MAX_REPEATED for text in texts for value in sizes):
                raise jinja2.exceptions.SecurityError("a repetition this long")
            if operator == "*" and sum(value.bit_length() for value in sizes) > MAX_BITS:
                raise jinja2.exceptions.SecurityError("a number this large")
            if operator == "**" and any(abs(value) > 64 for value in sizes[1:]):
                raise jinja2.exceptions.SecurityError("a power this high")
            return _paid(super().call_binop(context, operator, left, right))

    environment = Sandbox(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True,
        autoescape=False, loader=None, cache_size=0, optimized=False, finalize=jinja2.pass_context(_written),
    )  # fmt: skip
    for name in ("lipsum", "cycler", "joiner"):
        environment.globals.pop(name, None)
    environment.globals["range"] = _range
    # those that make much of little, and those whose time is not ours to bound
    for name in (
        "format", "center", "indent", "pprint", "xmlattr", "urlize", "random", "filesizeformat", "batch", "slice",
        "wordwrap", "striptags",
    ):  # fmt: skip
        environment.filters.pop(name, None)
    environment.filters["quote"] = _shell_quote
    environment.filters["replace"] = _replace
    environment.filters["join"] = jinja2.pass_environment(_join)
    environment.filters["round"] = _round
    environment.filters["sum"] = jinja2.pass_environment(_sum)
    environment.filters["json"] = environment.filters["yaml"] = environment.filters["tojson"] = _json
    for name, function in environment.filters.items():
        environment.filters[name] = _paying(function)
    return environment


_OF_TEXT = frozenset((
    "capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii", "isdecimal",
    "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower", "lstrip", "partition",
    "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split",
    "splitlines", "startswith", "strip", "swapcase", "title", "upper",
))  # fmt: skip
_METHODS: Mapping[type | tuple[type, ...], frozenset[str]] = {
    str: _OF_TEXT,
    dict: frozenset(("get", "items", "keys", "values")),
    (list, tuple): frozenset(("count", "index")),
    (bytes, int, float, type(None)): frozenset(),
}
"""Of plain values: those whose time and result are in proportion to what they are called with."""


def _paid(value: Any) -> Any:
    _purse.pay(value)
    return value


def _paying(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose arguments, since it may look at all of them, and result are paid for."""

    @functools.wraps(function)  # keeps how it is to be called, too
    def paying(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            _purse.pay(value)
        return _paid(function(*args, **kwargs))

    return paying


def _text(value: object) -> str:
    """As `str`, of what is paid for before."""
    _purse.pay(value)
    return str(value)


def _written(_: object, value: object) -> str:
    """What an expression puts out."""
    return _text(value)


def _joined(values: Iterable[object]) -> str:
    return _concat([_text(value) for value in values])


def _concat(pieces: Iterable[str]) -> str:
    return _join_by("", pieces)


def _join_by(by: str, pieces: Iterable[object]) -> str:
    texts = [_text(piece) for piece in pieces]
    if sum(map(len, texts)) + len(by) * len(texts) > MAX_VALUE:
        raise BadTemplate(_LONG)
    return str(_paid(str(by).join(texts)))


def _join(
    environment: jinja2.Environment, values: Iterable[Any], d: str = "", attribute: str | int | None = None
) -> str:
    return _join_by(d, _attributes(environment, values, attribute))


def _round(value: float, precision: int = 0, method: str = "common") -> float:
    import jinja2.filters

    if abs(precision) > MAX_DIGITS:
        raise ValueError(f"a number is rounded to {MAX_DIGITS} digits at most")
    return jinja2.filters.do_round(value, precision, method)  # type: ignore[arg-type]


def _sum(
    environment: jinja2.Environment, values: Iterable[Any], attribute: str | int | None = None, start: float = 0
) -> Any:
    if not isinstance(start, int | float):
        raise ValueError("sum adds numbers: its start is none")
    return sum(_attributes(environment, values, attribute), start)


def _attributes(environment: jinja2.Environment, values: Iterable[Any], attribute: str | int | None) -> Iterable[Any]:
    import jinja2.filters

    return values if attribute is None else map(jinja2.filters.make_attrgetter(environment, attribute), values)


def _range(*bounds: int) -> range:
    found = range(*bounds)
    if len(found) > MAX_RANGE:
        raise ValueError(f"range of more than {MAX_RANGE} steps")
    return found


def _replace(text: object, old: str, new: str, count: int = -1) -> str:
    before = str(text)
    if len(before) + before.count(old) * len(new) > MAX_VALUE:
        raise ValueError("a replacement this long")
    return str(_paid(before.replace(old, new, count)))


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
