"""Outside jit an update compiles its operations once, and never again."""

import jax
import problems
import pytest
from contract_runs import RHO, state_at, update
from contract_table import METHODS, in_m_sam, named, over

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module")
def compilations():
    """The list to which every compilation of this process is added."""
    events = []

    def listen(event, duration, **_):
        if event == COMPILED:
            events.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return events


SCANS = [in_m_sam(method, strategy="scan") for method in named("sam", "average_sam")]


@over(cases=[*METHODS, *SCANS])
def test_a_second_update_outside_jit_compiles_nothing(case, compilations):
    problem, tx = problems.dense_net(), case.make(RHO)
    state = state_at(tx, problem, 2)
    before = len(compilations)
    update(tx, problem, state)
    assert len(compilations) == before


def test_the_count_of_compilations_sees_one(compilations):
    before = len(compilations)
    jax.jit(lambda x: x * 1.2345)(1.0)
    assert len(compilations) == before + 1
