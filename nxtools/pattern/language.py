"""The pattern language: sentences that people read and type and machines execute.

    " all" (9, but 2 after " at"); " none" or " any" (7); " one" after " not" (4); not capital; otherwise 0.5

`parse(text)` gives the Pattern, `str(pattern)` the sentence, and `parse(str(p)) == p`. The grammar and what
each part means are in docs/pattern-language.md; `nxtools.pattern.execute` runs a pattern on tokens.
"""

from nxtools.pattern.atoms import ANYTHING, CLASSES, Atom, quote, token
from nxtools.pattern.reading import parse
from nxtools.pattern.sentence import FULL, Context, Group, Pattern, Rule, Shift

__all__ = [
    "ANYTHING",
    "CLASSES",
    "FULL",
    "Atom",
    "Context",
    "Group",
    "Pattern",
    "Rule",
    "Shift",
    "parse",
    "quote",
    "token",
]
