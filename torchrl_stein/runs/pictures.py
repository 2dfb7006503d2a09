"""Pictures and videos as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["as_picture", "write_picture", "write_video"]

Pixels = npt.NDArray[np.uint8]


def as_picture(what: str, pixels: Any, shape: str) -> Pixels:
    """Pixels as a NumPy array of a known layout.

    Args:
        what: name for the message.
        pixels: tensor or array, uint8.
        shape: "HW3" for a picture, "THW3" for a video.

    Raises:
        TypeError: if they are not of uint8.
        ValueError: if they have another shape, or one of no pixels.
    """
    tensor = torch.as_tensor(pixels).detach().cpu()
    layout = f"[{', '.join(shape)}]"
    if tensor.dtype != torch.uint8:
        raise TypeError(f"{what} must be uint8 {layout}, got {tensor.dtype}")
    if tensor.ndim != len(shape) or tensor.shape[-1] != 3 or not tensor.numel():
        raise ValueError(f"{what} must be uint8 {layout}, got shape {list(tensor.shape)}")
    return tensor.numpy()


def write_picture(path: Path, image: Pixels) -> Path:
    """Write ``[H, W, 3]`` in the format that the ending of the path names."""
    import imageio.v3 as imageio

    imageio.imwrite(path, image)
    return path


def write_video(path: Path, frames: Pixels, fps: float) -> Path:
    """Write ``[T, H, W, 3]`` as MP4 (H.264), which browsers play.

    A last row or column of pixels is repeated where a side is odd: the format has colours for
    blocks of two by two.

    Raises:
        ImportError: if imageio-ffmpeg is not installed.
        OSError: if the encoder stops; RuntimeError if it is not found.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     frames = np.zeros((5, 33, 64, 3), np.uint8)
        ...     write_video(Path(folder) / "black.mp4", frames, fps=10).stat().st_size > 0
        True
    """
    try:
        from imageio_ffmpeg import write_frames  # an extra, with the encoder inside
    except ImportError as error:
        raise ImportError(
            "imageio-ffmpeg is missing, pip install 'torchrl_stein[recipes]'"
        ) from error

    height, width = frames.shape[1:3]
    margin = ((0, height % 2), (0, width % 2), (0, 0))
    size = (width + width % 2, height + height % 2)
    writer = write_frames(str(path), size, fps=fps, macro_block_size=2, ffmpeg_log_level="error")
    writer.send(None)  # starts the encoder
    try:
        for frame in frames:
            writer.send(np.ascontiguousarray(np.pad(frame, margin, mode="edge")))
    finally:
        writer.close()
    return path
