"""Go's text/template as far as Pixiecore's command lines use it: `{{ URL "https://…" }}` and its kin, made into text.

Understood: actions of one pipeline of function calls over string and number literals ("…", `…`, 12), the trim markers
`{{-` and `-}}`, comments, and of Go's own functions print, println, printf (%s %d %v %q %%), len, html, urlquery and
slice. Not understood, and refused with a reason: fields, variables, if, range, with, template, define, block.
Source: https://pkg.go.dev/text/template (syntax), https://pkg.go.dev/strconv (Quote), danderson/netboot README.api.md.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Mapping

MAX_TEXT = 64 * 1024  # characters of a template, and of what comes out; kernels take 4 KiB at most (COMMAND_LINE_SIZE)
MAX_ACTIONS = 256

Function = Callable[[str], str]
"""What an operator's template may call: one string in, one string out."""


class TemplateError(Exception):
    """The template cannot be made into text; the text says why, and where."""


def expand(text: str, functions: Mapping[str, Function], words: Mapping[str, str] | None = None) -> str:
    """`text` with its actions replaced by what they give; words: functions that take nothing. Raises TemplateError."""
    known: dict[str, Function | str] = {**functions, **(words or {})}
    if len(text) > MAX_TEXT:
        raise TemplateError(f"a template of more than {MAX_TEXT} characters")
    out: list[str] = []
    size = at = 0
    trim = False
    for _ in range(MAX_ACTIONS + 1):
        begin = text.find("{{", at)
        literal = text[at:] if begin < 0 else text[at:begin]
        if trim:
            literal = literal.lstrip(_SPACE)
        if begin < 0:
            out.append(literal)
            return "".join(out)
        inside = begin + 2
        if text[inside : inside + 1] == "-" and text[inside + 1 : inside + 2] in _SPACE_OR_END:
            literal, inside = literal.rstrip(_SPACE), inside + 1
        value, at, trim = _action(text, inside, known)
        out += (literal, value)
        size += len(literal) + len(value)
        if size > MAX_TEXT:
            raise TemplateError(f"more than {MAX_TEXT} characters come out of the template")
    raise TemplateError(f"more than {MAX_ACTIONS} actions in one template")


def quote(text: str) -> str:
    """As strconv.Quote: in double quotes, with Go's escapes for what is not printable."""
    return '"' + "".join(_QUOTED.get(c) or (c if c.isprintable() else _escaped(c)) for c in text) + '"'


def literal(text: str) -> str:
    """A template that gives `text`, whatever is in it."""
    return text.replace("{{", '{{ "{{" }}')


_SPACE = " \t\r\n"
_SPACE_OR_END = (" ", "\t", "\r", "\n")
_TOKEN = re.compile(
    r"""[ \t\r\n]*(?:
        (?P<end>(?P<trim>(?<=[ \t\r\n])-)?\}\})
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<raw>`[^`]*`)
      | (?P<number>-?[0-9]+)(?![0-9A-Za-z_.])
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<bar>\|)
      | (?P<open>\()
      | (?P<close>\))
    )""",
    re.VERBOSE,
)
_COMMENT = re.compile(r"/\*.*?\*/(?P<trim>[ \t\r\n]-)?\}\}", re.DOTALL)
_KEYWORDS = ("if", "else", "end", "range", "with", "template", "define", "block", "break", "continue")
_MAX_NESTING = 8


def _action(text: str, at: int, functions: Mapping[str, Function | str]) -> tuple[str, int, bool]:
    """What the action whose inside begins at `at` gives, where it ends, and whether it trims what follows."""
    inside = at
    while text[inside : inside + 1] in _SPACE_OR_END:
        inside += 1
    if text.startswith("/*", inside):
        comment = _COMMENT.match(text, inside)
        if comment is None:
            raise TemplateError(f"a comment that does not end, at character {at}")
        return "", comment.end(), bool(comment["trim"])
    reader = _Reader(text, at, functions)
    value = reader.pipeline(0)
    if reader.kind != "end":
        raise TemplateError(f"{reader.found()} where the action should end, at character {reader.at}")
    return _text(value), reader.at, reader.trims


class _Reader:
    """Reads one action, token by token, and works it out on the way.

    kind, token   of the token at hand; at: where the next one begins; trims: the action ended in "-}}"
    """

    def __init__(self, text: str, at: int, functions: Mapping[str, Function | str]) -> None:
        self._text = text
        self._functions = functions
        self.at = at
        self.kind = self.token = ""
        self.trims = False
        self._next()

    def found(self) -> str:
        return repr(self.token) if self.token else "nothing"

    def pipeline(self, depth: int) -> str | int:
        value = self._command(None, depth)
        while self.kind == "bar":
            self._next()
            value = self._command(value, depth)
        return value

    def _command(self, piped: str | int | None, depth: int) -> str | int:
        """One function call or one operand; what is piped in becomes the last argument."""
        if self.kind != "word":
            if piped is not None:
                raise TemplateError(f"{self.found()} is no function, at character {self.at}")
            return self._operand(depth)
        name = self.token
        self._next()
        arguments: list[str | int] = []
        while self.kind in ("string", "raw", "number", "open", "word"):
            if self.kind == "word":
                raise TemplateError(f"{self.found()} is no text: put it in quotes, at character {self.at}")
            arguments.append(self._operand(depth))
        if piped is not None:
            arguments.append(piped)
        return self._call(name, arguments)

    def _operand(self, depth: int) -> str | int:
        kind, token = self.kind, self.token
        if kind == "open":
            if depth == _MAX_NESTING:
                raise TemplateError(f"more than {_MAX_NESTING} parentheses in one another")
            self._next()
            value = self.pipeline(depth + 1)
            if self.kind != "close":
                raise TemplateError(f"{self.found()} where ) should be, at character {self.at}")
            self._next()
            return value
        if kind not in ("string", "raw", "number"):
            raise TemplateError(f"{self.found()} where a text should be, at character {self.at}")
        self._next()
        if kind == "number":
            return int(token[:20])
        return token[1:-1] if kind == "raw" else _unquote(token)

    def _call(self, name: str, arguments: list[str | int]) -> str | int:
        function = self._functions.get(name)
        if isinstance(function, str):
            if arguments:
                raise TemplateError(f"{name} takes nothing")
            return function
        if function is not None:
            if len(arguments) != 1 or not isinstance(arguments[0], str):
                raise TemplateError(f"{name} takes one text")
            return function(arguments[0])
        if name in _KEYWORDS:
            raise TemplateError(f"{name} is not supported here")
        match name, arguments:
            case "print", _:
                return _printed(arguments)
            case "println", _:
                return " ".join(_text(a) for a in arguments) + "\n"
            case "printf", [str(form), *rest]:
                return _printf(form, rest)
            case "len", [str(text)]:
                return len(text.encode("utf-8", "surrogatepass"))
            case "html", _:
                return "".join(_HTML.get(c, c) for c in _printed(arguments))
            case "urlquery", _:
                return urllib.parse.quote_plus(_printed(arguments), safe="-_.~", errors="replace")
            case "slice", [str(text), int(start), int(stop)] if 0 <= start <= stop <= len(text):
                return text[start:stop]
        known = ", ".join((*self._functions, "print", "printf", "println", "len", "html", "urlquery", "slice"))
        raise TemplateError(f"{name} is no function that takes these arguments (there are {known})")

    def _next(self) -> None:
        match = _TOKEN.match(self._text, self.at)
        if match is None:
            rest = self._text[self.at : self.at + 20].strip()
            what = f"{rest!r} is not understood" if rest else "the action does not end"
            raise TemplateError(f"{what}, at character {self.at}")
        self.kind = next(name for name in _KINDS if match[name] is not None)
        self.token = match[self.kind]
        self.trims = match["trim"] is not None
        self.at = match.end()


_KINDS = ("end", "string", "raw", "number", "word", "bar", "open", "close")
_HTML = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "'": "&#39;", '"': "&#34;", "\0": "\ufffd"}
_QUOTED = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v", "\\": r"\\"} | {
    '"': r"\""
}
_UNQUOTED = {escape[1]: character for character, escape in _QUOTED.items()} | {"'": "'"}
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[0-7]{3}|.)", re.DOTALL)
_VERB = re.compile(r"%([-+# 0]*[0-9]{0,3})(.)", re.DOTALL)


def _text(value: str | int) -> str:
    return value if isinstance(value, str) else str(value)


def _printed(arguments: list[str | int]) -> str:
    """As fmt.Sprint: a space between two that are both no strings."""
    out = ""
    for before, value in zip([None, *arguments], arguments, strict=False):
        out += " " if isinstance(before, int) and isinstance(value, int) else ""
        out += _text(value)
    return out


def _printf(form: str, arguments: list[str | int]) -> str:
    """As fmt.Sprintf with %s, %d, %v, %q and %%; everything else is refused."""
    rest = list(arguments)

    def put(match: re.Match[str]) -> str:
        width, verb = match.groups()
        if verb == "%" and not width:
            return "%"
        if width or verb not in "sdvq":
            raise TemplateError(f"%{width}{verb} in printf is not supported")
        if not rest:
            raise TemplateError("printf has too few arguments")
        value = rest.pop(0)
        if (verb == "d") != isinstance(value, int) and verb != "v":
            raise TemplateError(f"%{verb} in printf does not suit {value!r}")
        return quote(_text(value)) if verb == "q" else _text(value)

    out = _VERB.sub(put, form)
    if rest:
        raise TemplateError("printf has too many arguments")
    return out


def _unquote(token: str) -> str:
    def one(match: re.Match[str]) -> str:
        escape = match[1]
        if escape[0] in "xuU" and len(escape) > 1:
            code = int(escape[1:], 16)
        elif len(escape) == 3:
            code = int(escape, 8)
        elif escape in _UNQUOTED:
            return _UNQUOTED[escape]
        else:
            raise TemplateError(f"\\{escape} is no escape that Go knows")
        if code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise TemplateError(f"\\{escape} is no character")
        return chr(code)

    return _ESCAPE.sub(one, token[1:-1])


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
