"""The assertions of the specification kit explain themselves as those of a test do."""

import pytest

pytest.register_assert_rewrite("tests.support.machine")
