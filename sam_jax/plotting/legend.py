"""One legend for all panels of a figure."""

from matplotlib.artist import Artist
from matplotlib.figure import Figure

from sam_jax.plotting.base import FONT_SIZE


def shared_legend(figure: Figure, width: float = 1.8, *, below: bool = False) -> None:
    """Write one legend on the right of the panels or below them, with every label once.

    Args:
      figure: A figure from `small_multiples`; it is made wider, or higher, by the size of the
        legend.
      width: Inches that a column of the legend takes.
      below: Whether the legend goes below the panels, in as many columns as fit: a wide figure
        stays readable where it is printed.

    >>> from sam_jax.plotting.base import small_multiples
    >>> figure, panels = small_multiples(2, columns=2)
    >>> for axes in panels:
    ...     _ = axes.plot([0, 1], [1, 0], label="SAM")
    >>> shared_legend(figure)
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['SAM']
    """
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        return
    columns = 1
    if below:
        columns = min(max(1, int(figure.get_figwidth() / width)), len(handles))
        rows = -(-len(handles) // columns)
        figure.set_figheight(figure.get_figheight() + 0.2 * rows + 0.1)
    else:
        figure.set_figwidth(figure.get_figwidth() + width)
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center" if below else "outside right upper",
        ncols=columns,
        fontsize=FONT_SIZE - 1,
        frameon=False,
        handlelength=2.6,
    )
