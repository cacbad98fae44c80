"""Checks the public signatures of sam_jax.optim and sam_jax.metrics in every test that calls them.

beartype compares what goes in and what comes out with the annotations. jaxtyping binds the names of
axes within one call: "points" has one length in the arguments and in the fields of the result.
"""

import functools
import inspect
import typing

from beartype import BeartypeConf
from beartype.door import is_bearable
from jaxtyping import jaxtyped

import sam_jax
from sam_jax import metrics, optim

INTEGERS_ARE_FLOATS = BeartypeConf(is_pep484_tower=True)


def install():
    """Put checked functions in the place of the public ones, before a test takes them."""
    for room in (metrics, optim):
        for name, function in public_functions(room).items():
            places = [x for x in (room, sam_jax) if getattr(x, name, None) is function]
            replacement = checked(function)
            for place in places:
                setattr(place, name, replacement)


def public_functions(room):
    return {name: value for name, value in vars(room).items() if inspect.isfunction(value)}


def checked(function):
    """Return a function that raises a TypeError where its annotations do not say what is so."""
    signature, hints = inspect.signature(function), typing.get_type_hints(function)

    @functools.wraps(function)
    def call(*args, **kwargs):
        result, wrong = None, []
        with jaxtyped("context"):
            try:
                arguments = signature.bind(*args, **kwargs).arguments
            except TypeError:
                arguments = {}  # the call below says what is wrong
            for name, value in arguments.items():
                kind = signature.parameters[name].kind
                values = value if kind is inspect.Parameter.VAR_POSITIONAL else [value]
                if kind is not inspect.Parameter.VAR_KEYWORD:
                    wrong += [name for x in values if not fits(x, hints.get(name))]
            # What the signature refuses the function has to refuse too, in its own words.
            result = function(*args, **kwargs)
            if not fits(result, hints.get("return")):
                wrong.append("the result")
            for name, hint in fields_of(result):
                if not fits(getattr(result, name), hint):
                    wrong.append(f"the field {name} of the result")
        if wrong:
            raise TypeError(f"{function.__name__}: {', '.join(wrong)}: not as annotated.")
        return result

    return call


def fits(value, hint):
    return hint is None or is_bearable(value, hint, conf=INTEGERS_ARE_FLOATS)


def fields_of(result):
    """Return the annotated fields of a named tuple or dataclass of the package."""
    cls = type(result)
    if not cls.__module__.startswith("sam_jax.metrics"):
        return ()
    return typing.get_type_hints(cls).items()
