"""TensorBoard event files: runs mirrored into them while they train, and runs made from them.

`mirror` follows a run's files and writes event files, `process` does so in a helper process, `reader` reads event
files, `importer` turns them into runs. Only `protos` imports tensorboardX. See docs/tensorboard.md.
"""

from runstone.tensorboard.process import default_logdir, start_mirror

__all__ = ["default_logdir", "start_mirror"]
