"""The messages of TensorBoard's event files, as tensorboardX has them.

tensorboardX imports torch where it is installed, which takes seconds and hundreds of megabytes. Nothing here uses it,
so it is kept out unless the process has it already.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from runstone.errors import RunstoneError
from runstone.tensorboard.process import MISSING

__all__ = [
    "Event",
    "HParamsPluginData",
    "SessionLog",
    "Summary",
    "TensorProto",
    "TextPluginData",
    "crc32c",
]


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # Python's way to make an import fail
    try:
        yield
    finally:
        del sys.modules["torch"]


try:
    with _without_torch():
        from tensorboardX.crc32c import crc32c
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
        from tensorboardX.proto.plugin_text_pb2 import TextPluginData
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.proto.tensor_pb2 import TensorProto
except ImportError as error:
    raise RunstoneError(MISSING) from error
