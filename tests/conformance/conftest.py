"""Makes pytest explain failed assertions within the conformance suite, which is not in a test file."""

import pytest

pytest.register_assert_rewrite("export_worker.platforms.conformance")
