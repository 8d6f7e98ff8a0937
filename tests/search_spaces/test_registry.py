"""Search spaces by name: found in the folder, added from elsewhere, and no name is given twice."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from search_spaces import SEARCH_SPACES, SearchSpace, register_space


@pytest.fixture
def another() -> Iterator[SearchSpace]:
    """A space that is not registered; the registry is put back after the test."""
    kept = dict(SEARCH_SPACES)
    yield replace(SEARCH_SPACES["turbo3d"], name="another")
    SEARCH_SPACES.clear()
    SEARCH_SPACES.update(kept)


def test_a_space_from_elsewhere_is_known_by_its_name(another: SearchSpace) -> None:
    register_space(another, __name__)
    assert SEARCH_SPACES["another"] is another


def test_a_name_is_given_once(another: SearchSpace) -> None:
    with pytest.raises(ValueError) as caught:
        register_space(replace(another, name="hybrid"), "my_lab.spaces")
    expected = "search space name 'hybrid' is taken by search_spaces.hybrid: my_lab.spaces has to choose another"
    assert str(caught.value) == expected
    assert SEARCH_SPACES["hybrid"].description != another.description
    register_space(another, "my_lab.spaces")
    with pytest.raises(ValueError, match=r"^search space name 'another' is taken by my_lab\.spaces: "):
        register_space(another, "my_lab.spaces")
