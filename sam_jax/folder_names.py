"""Names that become folders: none leads out of the folder that it is put into."""

import re


def check_folder_name(what: str, name: str, most: int = 1) -> str:
    """Return `name`, of which a folder inside another is made.

    Args:
      what: names it in the error.
      name: such as "sgd_128", or with `most` above one, "imagenet_resized/32x32".
      most: how many folders deep it may lead.

    Raises:
      ValueError: it is empty, starts at the root, goes up with "..", or is deeper.

    >>> check_folder_name("an arm", "sam_rho0.1")
    'sam_rho0.1'
    """
    parts = re.split(r"[/\\]", name)
    is_plain = all(part.strip(". ") and part.isprintable() for part in parts)
    if not is_plain or len(parts) > most or re.match(r"[A-Za-z]:", name):
        shape = "one plain name" if most == 1 else f"at most {most} plain names with / between"
        raise ValueError(
            f"{what} is the name of a folder and must be {shape}, without .. and without a root; "
            f"got {name!r}."
        )
    return name
