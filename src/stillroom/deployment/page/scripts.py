"""The page's own modules of JavaScript, put together into one script, for a page from a file cannot load modules."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
_IMPORT = re.compile(r'^import \{ ([\w, ]+) \} from "(\.[\w./]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async function|function|class|const) \*?(\w+))", re.MULTILINE)
_INDENT = re.compile(r"^\s+", re.MULTILINE)
_COMMENT = re.compile(r"^(?://.*|/\*.*\*/|/\*\*\n(?:\*(?!/).*\n)*\*/)\n", re.MULTILINE)
_REMARK = re.compile(r"(?<=[;{]) // .*$", re.MULTILINE)
_EXPORTED = re.compile(r"^export \{ ([\w, ]+) \};$", re.MULTILINE)


def joined(entry: Path) -> str:
    """A script that does what the module does, with all modules that it imports, each in a scope of its own.

    Modules import by ``import { a, b } from "./x.js";`` and export functions, classes and constants as they are declared, or
    by ``export { a, b };``.
    """
    order: list[Path] = []

    def visit(file: Path) -> None:
        if file not in order:
            for match in _IMPORT.finditer(file.read_text("utf-8")):
                visit((file.parent / match[2]).resolve())
            order.append(file)

    visit(entry.resolve())
    return "\n".join(_scoped(file, last=file == order[-1]) for file in order)


def lean(text: str) -> str:
    """A script or style sheet of ours without indents and comments: they are a tenth of it."""
    return _REMARK.sub("", _COMMENT.sub("", _INDENT.sub("", text)))


def _scoped(file: Path, last: bool) -> str:
    text = lean(file.read_text("utf-8"))
    exported = [match[1] for match in _EXPORT.finditer(text)]
    exported += [name for match in _EXPORTED.finditer(text) for name in match[1].split(", ")]
    text = _IMPORT.sub(lambda match: f"const {{ {match[1]} }} = {_scope(file.parent / match[2])};", text)
    text = _EXPORTED.sub("", _EXPORT.sub("", text))
    if re.search(r"^(import|export)\b", text, re.MULTILINE):
        raise ValueError(f"{file} imports or exports in a form that is not known here")
    given = f"return {{ {', '.join(exported)} }};\n" if exported else ""
    scope = f"{_scope(file)} = " if not last or exported else ""
    return f"{'const ' if scope else ''}{scope}(() => {{\n{text}{given}}})();"


def _scope(file: Path) -> str:
    return f"module_{re.sub(r'[^a-z0-9]', '_', file.stem.lower())}"


def of_others(name: str, text: str) -> str:
    """A published module that imports none, as a constant with its exports, for a script that is no module.

    Its own address, which it would load its files from, is that of the script: they are handed to it.
    """
    text = text.replace("import.meta.url", "OWN_ADDRESS")
    text = re.sub(r"^//# sourceMappingURL=.*$", "", text, flags=re.MULTILINE)
    body, found, rest = text.rpartition("export")
    if rest.strip().startswith("default "):
        given = f"return {rest.strip().removeprefix('default ').rstrip(';')};"
    else:
        pairs = (part.split(" as ") for part in rest.strip().strip("{};").split(","))
        given = f"return {{{', '.join(f'{outer}: {inner}' for inner, outer in pairs)}}};".replace(
            "default:", '"default":'
        )
    if not found or re.search(r"^\s*import\b(?!\.|\()", body, re.MULTILINE):
        raise ValueError(f"{name} is no module of the form that is known here")
    return f"const {name} = (() => {{\nlet OWN_ADDRESS = self.location.href;\n{body}\n{given}\n}})();"
