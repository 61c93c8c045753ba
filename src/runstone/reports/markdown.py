"""Markdown to HTML in which nothing can run: raw HTML is shown as text, links lead only where a click may go."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from runstone.errors import InvalidConfig
from runstone.reports.pieces import text as escaped

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

Block = Callable[[str, str], str]
_SAFE_LINK = re.compile(r"(?:https?|mailto):|#|[^:/?#\\]*(?:[/?#]|$)", re.IGNORECASE)
_PICTURES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".gif": "gif", ".webp": "webp"}
_LARGEST_PICTURE = 8 << 20
_DEEPEST = 20


def to_html(text: str, *, kinds: Sequence[str], block: Block, folder: Path | None = None) -> str:
    """Return Markdown as HTML.

    Pictures are put into the page where they lie in the folder of the report, and become links otherwise: a report
    loads nothing from anywhere.

    Args:
        text: CommonMark, with tables and strikethrough.
        kinds: First words of fenced blocks that are live.
        block: Returns the HTML of a live block, from its kind and what stands in it.
        folder: Where the report lies.

    Raises:
        InvalidConfig: markdown-it-py is not installed.
    """
    parser, rules = _parser()
    plain_fence = rules["fence"]

    def fence(tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
        word = tokens[place].info.strip().split(" ")[0]
        if word in kinds:
            return block(word, tokens[place].content)
        return str(plain_fence(tokens, place, options, env))

    def image(tokens: Sequence[Token], place: int, _options: Any, _env: Any) -> str:
        source, said = str(tokens[place].attrs.get("src", "")), tokens[place].content
        data = _picture(folder, source) if folder is not None else None
        if data is not None:
            return f'<img src="{data}" alt="{escaped(said)}">'
        return f'<a href="{escaped(source)}" rel="noopener noreferrer nofollow">{escaped(said or source)}</a>'

    rules |= {"fence": fence, "image": image}
    return str(parser.render(text))


def title_of(text: str) -> str:
    """Return the first heading of a Markdown text, without its marks; empty where there is none."""
    for line in text.splitlines():
        match = re.match(r"#{1,2}\s+(.+?)\s*#*$", line)
        if match:
            return match[1]
    return ""


def _parser() -> tuple[MarkdownIt, dict[str, Any]]:
    try:
        from markdown_it import MarkdownIt  # an extra, only for reports
        from markdown_it.renderer import RendererHTML
    except ImportError:
        raise InvalidConfig("reports take markdown-it-py: pip install 'runstone[reports]'") from None
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": _DEEPEST}).enable(["table", "strikethrough"])
    renderer = cast(RendererHTML, parser.renderer)
    # One list of what is allowed in place of the library's list of what is not.
    parser.validateLink = lambda url: _SAFE_LINK.match(url.strip()) is not None  # type: ignore[method-assign]

    def link_open(tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
        tokens[place].attrSet("rel", "noopener noreferrer nofollow")
        return str(renderer.renderToken(tokens, place, options, env))

    rules: dict[str, Any] = renderer.rules
    rules["link_open"] = link_open
    return parser, rules


def _picture(folder: Path, source: str) -> str | None:
    """Return a picture of the report's own folder as a data URL; `None` where it is anything else."""
    kind = _PICTURES.get(Path(source).suffix.lower())
    if kind is None or "\\" in source or "\0" in source:
        return None
    try:
        path = (folder / source).resolve(strict=True)
        if not path.is_relative_to(folder.resolve()) or not path.is_file() or path.stat().st_size > _LARGEST_PICTURE:
            return None
        return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    except (OSError, RuntimeError):
        return None
