"""What all pages share: templates/ has their style, tables that sort, and the plotting library.

A page carries all of it in itself, so that it needs no network and no file beside it.
"""

import base64
import functools
import gzip
import pathlib

TEMPLATES = pathlib.Path(__file__).with_name("templates")


@functools.cache
def plotting_library() -> str:
    """Return plotly.js as base64 of gzip: 2.0 MB instead of 4.8.

    Plotly is the maintained one of the libraries with surfaces and contours that come inside a
    package of PyPI, so that nothing is vendored and nothing is fetched. A page unpacks it where a
    reader comes to the first plot that needs it.
    """
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
