"""The console's language: commands of words, quoted as in a shell, joined by `;`, `&&` and `||`."""

from __future__ import annotations

import shlex


def parse(line: str) -> list[tuple[str, list[str]]]:
    """Commands with what joins each to the one before: ";" (first, too), "&&" or "||". ValueError: bad quoting."""
    if not line.strip() or line.lstrip().startswith("#"):
        return []
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split, lexer.commenters = True, ""
    steps: list[tuple[str, list[str]]] = [(";", [])]
    for word in lexer:
        if word in (";", "&&", "||"):
            steps.append((word, []))
        elif word and not word.strip(";&|"):
            raise ValueError(f"{word!r} joins no commands: quote it")
        else:
            steps[-1][1].append(word)
    if any(not words for _, words in steps[:-1]) or (not steps[-1][1] and steps[-1][0] != ";"):
        raise ValueError("a command is missing")
    return [(joint, words) for joint, words in steps if words]
