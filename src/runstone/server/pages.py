"""The files of the page: read once, named by the hash of all of them, so that a browser may keep them for ever."""

from __future__ import annotations

import gzip
import hashlib
import html
import importlib.util
import mimetypes
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from starlette.responses import FileResponse, HTMLResponse, Response

from runstone.server.errors import ApiError

INDEX = "index.html"
PLOTLY = "plotly.min.js"
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_MOST_PACKED_BYTES = 1 << 20
_FOR_EVER = "public, max-age=31536000, immutable"
_NO_PAGE = (
    "<!doctype html><meta charset=utf-8><title>Runstone</title>"
    "<p>The page is not part of this installation; the API answers below <code>api/</code>."
)


@dataclass(frozen=True)
class Page:
    """The page.

    Attributes:
        folder: Of its files.
        is_fixed: Whether they are read once; else at each request, for those who write the page.
    """

    folder: Path
    is_fixed: bool = True

    @cached_property
    def _known(self) -> tuple[str, dict[str, Path]]:
        return self._read()

    def _files(self) -> tuple[str, dict[str, Path]]:
        return self._known if self.is_fixed else self._read()

    def _read(self) -> tuple[str, dict[str, Path]]:
        files = {
            path.relative_to(self.folder).as_posix(): path
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts and path.name[0] != "."
        }
        plotly = plotly_file()
        if plotly is not None:
            files[PLOTLY] = plotly
        digest = hashlib.sha256()
        for name, path in files.items():
            content = path.read_bytes() if path is not plotly else str(path.stat().st_size).encode()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()[:16], files

    @cached_property
    def _packed(self) -> dict[str, bytes]:
        """Files that were packed, by name."""
        return {}

    @property
    def version(self) -> str:
        """The hash of all files."""
        return self._files()[0]

    def index(self) -> Response:
        """Return the page itself.

        In `index.html`, `static/` in front of a file becomes `static/<hash>/`, and `<!-- modulepreload -->` a link for
        each module, so that a browser fetches all at once.
        """
        version, files = self._files()
        if INDEX not in files:
            return HTMLResponse(_NO_PAGE)
        text = files[INDEX].read_text("utf-8")
        modules = [name for name in files if name.endswith(".js") and name != PLOTLY]
        links = "\n".join(f'<link rel="modulepreload" href="static/{html.escape(name)}">' for name in modules)
        text = text.replace("<!-- modulepreload -->", links)
        text = text.replace('"static/', f'"static/{version}/')
        return HTMLResponse(text, headers={"Cache-Control": "no-cache"})

    def file(self, version: str, name: str, accepted: str = "") -> Response:
        """Return one file; only what was found in the folder can be named.

        Args:
            version: As in the address.
            name: Below the folder.
            accepted: The header `Accept-Encoding`: a text is sent packed where that is understood, a third of its size.

        Raises:
            ApiError: there is none, or of another version of the page.
        """
        standing, files = self._files()
        path = files.get(name)
        if path is None or name == INDEX or (self.is_fixed and version != standing):
            raise ApiError("not_found", f"the page has no file {name!r:.100}; load it again")
        kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        caching = _FOR_EVER if self.is_fixed else "no-store"
        headers = {"Cache-Control": caching, "Vary": "Accept-Encoding"}
        if "gzip" in accepted.lower() and path.suffix in _TYPES and path.stat().st_size <= _MOST_PACKED_BYTES:
            return Response(self._pack(name, path), media_type=kind, headers=headers | {"Content-Encoding": "gzip"})
        return FileResponse(path, media_type=kind, headers=headers)

    def _pack(self, name: str, path: Path) -> bytes:
        if not self.is_fixed:
            return gzip.compress(path.read_bytes(), 1)
        if name not in self._packed:
            self._packed[name] = gzip.compress(path.read_bytes(), mtime=0)
        return self._packed[name]


def plotly_file() -> Path | None:
    """Return plotly.js as the installed plotly package ships it, `None` where that is not installed."""
    found = importlib.util.find_spec("plotly")
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(found.submodule_search_locations[0]) / "package_data" / PLOTLY
    return path if path.is_file() else None
