"""Sound that a teacher made, kept beside the shards: audio/<first two digits>/<the row's request_key>.wav."""

from pathlib import Path

from shared.disk import explain_disk_errors, make_folder, replace_file


def find_audio(folder: Path, key: str) -> Path:
    """Where a teacher folder keeps the sound of the row of that request key, if it does."""
    return folder / "audio" / key[:2] / f"{key}.wav"


def keep_audio(folder: Path, key: str, content: bytes) -> None:
    """Write the WAV file of a row into a teacher folder; when this returns, it survives a power loss."""
    path = find_audio(folder, key)
    with explain_disk_errors(folder):
        make_folder(path.parent)
        replace_file(path, content)
