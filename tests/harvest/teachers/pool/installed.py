"""The teacher `echo` as a package that is installed, for this process and for what it starts."""

from pathlib import Path

ROOT = Path(__file__).parents[4]
METADATA = {
    "METADATA": "Metadata-Version: 2.1\nName: echo\nVersion: 1\n",
    "entry_points.txt": "[harvest_distill.teachers]\necho = tests.harvest.teachers.pool.echo_teacher:ECHO\n",
}


def install_echo(site: Path) -> tuple[str, str]:
    """Put the package into the folder `site`; give what has to be on the path."""
    folder = site / "echo-1.dist-info"
    folder.mkdir(parents=True)
    for name, text in METADATA.items():
        (folder / name).write_text(text)
    return str(site), str(ROOT)
