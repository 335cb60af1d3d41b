"""Makes pytest explain failed assertions within the suite."""

import pytest

pytest.register_assert_rewrite("export_worker.platforms.conformance")
