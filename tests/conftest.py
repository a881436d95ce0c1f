"""Shared by all tests."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Indices of data sets are cached for the user; tests keep theirs to themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMVGGT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
