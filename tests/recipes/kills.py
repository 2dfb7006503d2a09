"""A process that kills itself at a chosen moment of writing its checkpoints.

From outside one would have to look often enough: short runs end between two looks of a busy
machine. The interpreter tells an audit hook of each file that is made, renamed and removed.
"""

import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kill:
    """SIGKILL once the checkpoint of ``step`` or a later one is complete, and a moment later.

    Args:
        step: in environment steps.
        moment: what the process is about to do. ``writing``: give the next checkpoint, whose
            files are written, its name. ``removing``: remove the second file of an old one. A
            number: open the file of that number, counted from the complete checkpoint.
    """

    step: int
    moment: str | int

    def install(self):
        files = 0
        complete = removing = False

        def hook(event, arguments):
            nonlocal files, complete, removing
            if event == "os.rename":
                step = re.fullmatch(r"checkpoint-(\d+)", Path(arguments[1]).name)
                if complete and step and self.moment == "writing":
                    os.kill(os.getpid(), signal.SIGKILL)
                # The hook is called before the renaming, which the next file comes after.
                complete = complete or (step is not None and int(step[1]) >= self.step)
            elif complete and event == "shutil.rmtree":
                removing = str(arguments[0]).endswith("-removed")
            elif (event == "os.remove" and removing and self.moment == "removing") or (
                event == "open" and complete and isinstance(self.moment, int)
            ):
                files += 1
                if files == (2 if self.moment == "removing" else self.moment):
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
