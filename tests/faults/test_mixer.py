"""Row 38: run folders made of parts of several runs, some edited; the campaign judges 300."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.faults._mixer import Mixer

SOME = 20


@pytest.fixture(scope="module")
def mixer(tmp_path_factory):
    return Mixer(tmp_path_factory.mktemp("mixer"), stops=(6,))


@pytest.mark.parametrize("number", range(SOME))
def test_row_38_a_mixed_folder_is_refused_or_right(mixer, number):
    folder, said = mixer.mixed(number)
    assert list(mixer.problems(folder, Counter())) == [], said
