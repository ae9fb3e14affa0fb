"""Sound as float32 samples from -1 to 1: its sampling rate, the windows that a listener takes, and files of it."""

import io
import wave
from collections.abc import Sequence
from math import gcd
from typing import Any, TypeAlias

import numpy as np

Sound: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

_FRAME_SECONDS = 0.02
_QUIET_FRAMES = 5  # a pause is told from a sound by the loudness of a tenth of a second
_LAST_SHARE = 0.4  # of a window: a pause is looked for in this much of its end


def resample(sound: Sound, rate: int, wanted: int) -> Sound:
    """Give the sound `sound`, of `rate` samples a second, as one of `wanted`."""
    if rate == wanted:
        return sound
    from scipy.signal import resample_poly

    shared = gcd(rate, wanted)
    resampled: Sound = resample_poly(sound, wanted // shared, rate // shared).astype(np.float32)
    return resampled


def split_into_windows(pieces: Sequence[Sound], rate: int, seconds: float) -> list[Sound]:
    """Join the pieces of one text, sentences, into as few windows of at most `seconds` as fit; at least one.

    A piece that is longer is cut where it is quietest, so that few words are torn apart.
    """
    most = int(seconds * rate)
    windows: list[Sound] = []
    for piece in (part for whole in pieces for part in _cut(whole, rate, most)):
        if windows and len(windows[-1]) + len(piece) <= most:
            windows[-1] = np.concatenate([windows[-1], piece])
        else:
            windows.append(piece)
    return windows or [np.zeros(0, np.float32)]


def _cut(sound: Sound, rate: int, most: int) -> list[Sound]:
    parts = []
    while len(sound) > most:
        frame = max(1, int(_FRAME_SECONDS * rate))
        first = int(most * (1 - _LAST_SHARE)) // frame
        frames = sound[first * frame : most // frame * frame].reshape(-1, frame)
        loudness = np.convolve((frames.astype(np.float64) ** 2).sum(1), np.ones(_QUIET_FRAMES), "same")
        end = (first + int(loudness.argmin())) * frame or most
        parts.append(sound[:end])
        sound = sound[end:]
    return [*parts, sound]


def write_wav(sound: Sound, rate: int) -> bytes:
    """Write a WAV file of 16 bits a sample, one channel."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()
