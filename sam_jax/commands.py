"""The commands that an installation brings: each is `python -m` of one module.

`sam-jax-train`, `-evaluate`, `-prepare` and `-dashboard` run the commands of the package.
`sam-jax-study NAME` runs a study of a checkout, which the package does not hold: experiments/NAME,
or experiments/A/B for the name A.B.
"""

import pathlib
import runpy
import sys

from sam_jax.extras import MissingExtra
from sam_jax.mistakes import UserMistake, one_sentence
from sam_jax.suggestions import did_you_mean


def train() -> None:
    """Run `python -m sam_jax.train`."""
    _run("sam_jax.train")


def evaluate() -> None:
    """Run `python -m sam_jax.evaluate`."""
    _run("sam_jax.evaluate")


def prepare() -> None:
    """Run `python -m sam_jax.data.prepare`."""
    _run("sam_jax.data.prepare")


def dashboard() -> None:
    """Run `python -m sam_jax.dashboard`."""
    _run("sam_jax.dashboard")


def study() -> None:
    """Run `python -m experiments.NAME` in a checkout, where NAME is the first argument."""
    with one_sentence():
        _study()


def _study() -> None:
    folder = pathlib.Path("experiments")
    mains = folder.rglob("__main__.py")
    names = sorted(".".join(path.parent.relative_to(folder).parts) for path in mains)
    if not names:
        raise UserMistake(
            f"{pathlib.Path.cwd()} holds no studies; they are in the folder experiments/ of a "
            "checkout of sam_jax, so run sam-jax-study at its root."
        )
    if len(sys.argv) > 1 and sys.argv[1] in ("-h", "--help", "--helpshort", "--helpfull"):
        print(_studies(folder, names))
        return
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        given = repr(sys.argv[1]) if len(sys.argv) > 1 else "nothing"
        raise UserMistake(
            f"The first argument must be a study, one of {', '.join(names)}; got {given}."
            f"{did_you_mean(sys.argv[1], names) if len(sys.argv) > 1 else ''} "
            "Usage: sam-jax-study NAME --config=CONFIG --workdir=DIR"
        )
    _run(f"experiments.{sys.argv.pop(1)}")


def _studies(folder: pathlib.Path, names: list[str]) -> str:
    """Return the help of the command: its studies, each with what it says of itself."""
    lines = ["Run a study of this checkout: sam-jax-study NAME --workdir=DIR.", ""]
    for name in names:
        text = (folder.joinpath(*name.split(".")) / "__main__.py").read_text()
        title, paragraph = text.removeprefix('"""').split("\n\n")[:2]
        words = title.split(": python")[0]
        if words == "Run the study":
            words = " ".join(paragraph.split(". ")[0].split())
        lines.append(f"  {name}: {words.rstrip('.')}.")
    lines += ["", "For example: sam-jax-study variants --help", ""]
    return "\n".join(lines)


def _run(module: str) -> None:
    """Run a module as `python -m` does: configs and studies are found from the current folder."""
    sys.path.insert(0, str(pathlib.Path.cwd()))
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except MissingExtra as error:
        sys.exit(str(error))
