"""The simulator's pure parts: what files are made of, when jobs move, which fault strikes."""

import tracemalloc
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from export_worker.simulator.downloads import split_at
from export_worker.simulator.faults import FaultBook, Standing, Target
from export_worker.simulator.files import ROWS_PER_BLOCK, FileSpec, codec_of, content, digest, size_bytes
from export_worker.simulator.jobs import Course, Job, JobFile, JobStore
from export_worker.simulator.scenario import FLAKY, CallType, Fault, Scenario
from export_worker.simulator.tokens import TokenBook

COLUMNS = ("用户ID", "姓名", "城市", "订单交易笔数")
WALK = ("NONE", "READY", "RUNNING", "DATA_READY", "FINISH")


def spec(**fields: Any) -> FileSpec:
    return FileSpec(**{"seed": "s", "columns": COLUMNS, **fields})


# Files


def test_a_file_has_its_header_and_as_many_rows_as_told() -> None:
    text = b"".join(content(spec(rows=7))).decode()
    assert text.splitlines()[0] == ",".join(COLUMNS)
    assert len(text.splitlines()) == 8


@pytest.mark.parametrize("rows", [0, 1, 2, ROWS_PER_BLOCK - 1, ROWS_PER_BLOCK, ROWS_PER_BLOCK + 1, 3 * ROWS_PER_BLOCK])
@pytest.mark.parametrize("codec", ["utf-8", "utf-16-le", "gb18030"])
def test_rows_are_counted_right_at_each_edge_of_a_block(rows: int, codec: str) -> None:
    described = spec(rows=rows, codec=codec)
    written = b"".join(content(described))
    assert len(written) == size_bytes(described)
    assert written.decode(codec).count("\n") == rows + 1


@given(
    file_bytes=st.integers(0, 700_000),
    codec=st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "gbk"]),
    bom=st.booleans(),
)
def test_a_file_of_told_length_has_it_and_can_be_decoded(file_bytes: int, codec: str, bom: bool) -> None:
    described = spec(file_bytes=file_bytes, codec=codec, bom=bom and codec != "gbk")
    written = b"".join(content(described))
    assert len(written) == size_bytes(described)
    assert file_bytes - len(written) in ((0, 1) if "16" in codec else (0,))
    written.decode(codec)


def test_equal_descriptions_give_equal_bytes_and_other_seeds_others() -> None:
    assert list(content(spec())) == list(content(spec()))
    assert b"".join(content(spec())) != b"".join(content(spec(seed="t")))
    assert digest(spec()) == sha256(b"".join(content(spec()))).hexdigest()


def test_no_two_blocks_of_a_large_file_are_equal() -> None:
    pieces = list(content(spec(file_bytes=4_000_000)))
    assert len(pieces) > 10
    assert len(set(pieces)) == len(pieces)


def test_a_byte_order_mark_stands_at_the_beginning_only() -> None:
    written = b"".join(content(spec(bom=True, codec="utf-16-le", rows=2 * ROWS_PER_BLOCK)))
    assert written.startswith(b"\xff\xfe")
    assert written.decode("utf-16-le").count("\ufeff") == 1


def test_a_large_file_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        assert sum(map(len, content(spec(seed="large", file_bytes=300 * 2**20)))) == 300 * 2**20
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("charset", "codec"),
    [("UTF-8", "utf-8"), ("utf_8", "utf-8"), ("UTF-16LE", "utf-16-le"), ("GBK", "gbk"), ("rot13", None), ("", None)],
)
def test_charsets_are_known_by_their_usual_names(charset: str, codec: str | None) -> None:
    assert codec_of(charset) == codec


@given(pieces=st.lists(st.binary(min_size=1, max_size=9)), offset=st.integers(0, 60) | st.none())
def test_splitting_keeps_the_bytes_and_ends_a_piece_at_the_offset(pieces: list[bytes], offset: int | None) -> None:
    parts = list(split_at(pieces, offset))
    whole = b"".join(pieces)
    assert b"".join(parts) == whole
    if offset is not None and offset <= len(whole):
        ends = [0]
        for part in parts:
            ends.append(ends[-1] + len(part))
        assert offset in ends


# Jobs


def job(
    job_id: str, created_s: float = 0.0, uri: str = "/f.csv", stages: tuple[str, ...] = WALK, succeeds: bool = True
) -> Job:
    return Job(
        job_id=job_id,
        short_id="s",
        kind="segment",
        call="submit",
        arguments={},
        name=None,
        charset="UTF-8",
        files=(JobFile(uri, spec()),),
        course=Course(stages, 1.0, succeeds=succeeds),
        created_s=created_s,
        created_at=datetime.now(UTC),
    )


def test_a_job_walks_through_its_stages_by_the_clock_and_stays_in_the_last() -> None:
    walked = [job("a").stage(now_s) for now_s in (0.0, 0.9, 1.0, 2.5, 3.0, 4.0, 1e9)]
    assert walked == ["NONE", "NONE", "READY", "RUNNING", "DATA_READY", "FINISH", "FINISH"]


def test_without_duration_a_job_is_done_at_once() -> None:
    assert Course(WALK, 0.0, succeeds=True).stage(0.0, None) == "FINISH"


def test_a_held_stage_is_not_passed_and_another_platforms_word_holds_nothing() -> None:
    assert job("a").stage(99.0, "RUNNING") == "RUNNING"
    assert job("a").stage(0.0, "RUNNING") == "NONE"
    assert job("a").stage(99.0, "WORKING") == "FINISH"
    assert Course(WALK, 0.0, succeeds=True).stage(0.0, "READY") == "READY"


def test_only_the_last_stage_ends_a_job() -> None:
    standings = [job("a").standing(now_s) for now_s in (0.0, 3.9, 4.0)]
    assert standings == ["running", "running", "finished"]
    failing = job("b", stages=("NONE", "ERROR"), succeeds=False)
    assert [failing.standing(now_s) for now_s in (0.0, 1.0)] == ["running", "failed"]
    failing = job("c")
    failing.fail("ERROR")
    assert (failing.stage(0.0), failing.standing(0.0)) == ("ERROR", "failed")


def test_a_shared_path_holds_the_file_of_the_newest_job_that_is_done() -> None:
    store = JobStore()
    store.add(job("old", created_s=0.0))
    assert store.owner("/f.csv", 3.9) is None
    store.add(job("new", created_s=10.0))
    owners = [found[0].job_id for now_s in (10.0, 13.9, 14.0) if (found := store.owner("/f.csv", now_s))]
    assert owners == ["old", "old", "new"]
    assert store.owner("/g.csv", 99.0) is None


# Faults


def take(
    book: FaultBook,
    on: CallType = "poll",
    key: str = "k",
    text: str = "",
    *,
    flaky: bool = False,
    standing: Standing = "running",
) -> str | None:
    fault = book.take(on, Target(key, text or key), flaky=flaky, standing=standing)
    return None if fault is None else fault.fault


def book_of(*faults: Fault) -> FaultBook:
    book = FaultBook()
    for fault in faults:
        book.add(fault)
    return book


def test_a_fault_strikes_as_often_as_told_for_each_target() -> None:
    book = book_of(Fault(on="poll", fault="throttled", times=2))
    assert [take(book) for _ in range(3)] == ["throttled", "throttled", None]
    assert take(book, key="other") == "throttled"
    assert book.listing()[0]["hits"] == 3


def test_a_fault_can_count_over_all_targets_skip_and_last_for_ever() -> None:
    book = book_of(Fault(on="poll", fault="throttled", per="all", skip=1))
    assert [take(book, key=key) for key in "abc"] == [None, "throttled", None]
    book = book_of(Fault(on="poll", fault="throttled", times=None))
    assert [take(book) for _ in range(50)] == ["throttled"] * 50


def test_faults_strike_one_a_call_in_order_and_only_where_they_match() -> None:
    book = book_of(
        Fault(on="poll", fault="throttled", match="qgQMXnD3"),
        Fault(on="poll", fault="error5xx"),
        Fault(on="submit", fault="cut"),
    )
    assert [take(book, text="look at qgQMXnD3") for _ in range(3)] == ["throttled", "error5xx", None]
    assert [take(book, key="other") for _ in range(2)] == ["error5xx", None]
    book.clear()
    assert take(book, on="submit") is None


def test_faults_of_a_stage_wait_for_it() -> None:
    book = book_of(
        Fault(on="poll", fault="empty_uris"),
        Fault(on="poll", fault="error_stage", times=None),
        Fault(on="poll", fault="unknown_stage", times=None),
    )
    assert take(book, standing="failed") is None
    assert [take(book, standing="finished") for _ in range(2)] == ["empty_uris", None]
    assert take(book, standing="running") == "error_stage"


def test_the_flaky_preset_goes_round_once_for_each_target_and_comes_last() -> None:
    book = book_of(Fault(on="poll", fault="slow"))
    polls = [fault.fault for fault in FLAKY if fault.on == "poll"]
    for key in "ab":
        assert [take(book, key=key, flaky=True) for _ in range(6)] == ["slow", *polls, None]
    assert take(book, key="c", on="submit", flaky=False) is None


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"on": "list", "fault": "empty_uris"}, "can happen on poll only"),
        ({"on": "poll", "fault": "short"}, "can happen on download only"),
        ({"on": "download", "fault": "redirect"}, "needs a location"),
        ({"on": "poll", "fault": "gremlins"}, "fault"),
        ({"on": "poll", "fault": "slow", "dealy_s": 1}, "dealy_s"),
    ],
)
def test_an_impossible_fault_is_refused(told: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Fault.model_validate(told)


def test_a_misspelt_scenario_is_refused() -> None:
    with pytest.raises(ValidationError, match="stages_s"):
        Scenario.model_validate({"stages_s": 1})


# Tokens


def test_tokens_are_good_in_every_usual_form_until_they_end() -> None:
    tokens = TokenBook(("t1",))
    assert all(tokens.accepts(form, 0.0) for form in ("Token t1", "Bearer t1", "t1"))
    assert not any(tokens.accepts(form, 0.0) for form in (None, "", "Token", "Token t2", "Basic t1", "token t1"))
    issued = tokens.issue(until_s=10.0)
    assert [tokens.accepts(issued, now_s) for now_s in (9.9, 10.0)] == [True, False]


def test_revoking_ends_all_that_were_issued_or_one() -> None:
    tokens = TokenBook(("t1",))
    issued = [tokens.issue(10.0) for _ in range(2)]
    assert all(one != two for one, two in pairwise(issued))
    tokens.revoke()
    assert [tokens.accepts(token, 0.0) for token in ("t1", *issued)] == [True, False, False]
    tokens.revoke("t1")
    assert not tokens.accepts("t1", 0.0)
