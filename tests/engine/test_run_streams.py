"""The streams of runs: kept, read by those who come late, ended once (docs/protocol.md 8)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stephttp._wire import stream_frames
from stephttp._wire.stream_frames import LOST, METADATA, Frame
from stephttp.engine.live.channels import STREAM

from .support import RUN, World, answer, complete, new_run, sleep, until, world
from .test_realtime import Stream, following

TEE = f"/v1/realtime/publish/tee?channel={RUN}"
OK = {"status": 201, "headers": {"x-a": "b"}, "body": "hi"}


def pushed(*values: int, step: str = "") -> bytes:
    return b"".join(stream_frames.pushed(b"%d" % value, step) for value in values)


async def send(w: World, body: bytes, writer: str = "w", before: int = 0, status: int = 200) -> str:
    """Send frames as our SDK does; returns what the engine says of the stream."""
    headers = {"x-stephttp-stream": f"{writer} {before}"}
    response = await w.http.post(TEE, content=body, headers=headers)
    assert response.status_code == status, response.text
    return response.headers.get("x-stephttp-stream", "")


def frames(stream: Stream) -> list[Frame]:
    return list(stream_frames.read(b"".join(stream.chunks)))


def values(stream: Stream) -> list[str]:
    return [frame.data for frame in frames(stream) if frame.event == stream_frames.STREAM]


def end(stream: Stream) -> dict[str, object]:
    """The one answer that a stream ended with."""
    ends = [frame.data for frame in frames(stream) if frame.event == stream_frames.RESPONSE]
    assert len(ends) == 1
    data: dict[str, object] = json.loads(ends[0])
    return data


async def ended(stream: Stream) -> dict[str, object]:
    await until(lambda: stream.over)
    return end(stream)


async def test_one_who_comes_late_gets_all_and_the_end_at_once() -> None:
    async with world() as w:
        token = (await w.post(sleep(text="1s")))["realtime_token"]
        await send(w, pushed(1, 2))
        w.script = [answer(complete(OK))]
        async with following(w, token) as early:
            await w.after(1)
            assert (await ended(early))["status"] == "succeeded"
        async with following(w, token) as late:
            await ended(late)
        assert values(early) == values(late) == ["1", "2"]
        assert end(late) == {
            "status": "succeeded",
            "response": {"body": "hi", "statusCode": 201, "headers": {"x-a": "b"}},
        }
        # And one who has some of it already gets the rest.
        async with following(w, f"{token}&after=1000001") as rest:
            await ended(rest)
        assert values(rest) == ["2"]


async def test_a_stream_is_still_there_after_a_restart(tmp_path: Path) -> None:
    async with world(path=tmp_path / "db") as w:
        token = (await w.post(sleep(text="1h")))["realtime_token"]
        await send(w, pushed(1, 2))
    async with world(path=tmp_path / "db") as w, following(w, token) as stream:
        await until(lambda: values(stream) == ["1", "2"])
        await send(w, pushed(2, 3), before=1)
        await until(lambda: values(stream) == ["1", "2", "3"])


@pytest.mark.parametrize("sdk", ["test:v1", "inngest-js:v4.24.0"])
async def test_a_run_that_fails_ends_with_the_answer_that_its_sdk_wrote(sdk: str) -> None:
    """Followed before or after the end, it is the same one."""
    async with world() as w:
        token = await failing(w, sdk, stream_frames.response(500, [], b'"too bad"', failed=True))
        async with following(w, token) as late:
            first = await ended(late)
        async with following(w, token) as later:
            assert await ended(later) == first
        assert first == {
            "status": "failed", "response": {"body": '"too bad"', "statusCode": 500, "headers": {}},
        }  # fmt: skip


@pytest.mark.parametrize("written", [
    stream_frames.response(200, [], b"all is well", failed=False),
    b"event: inngest.response\ndata: {}\n\n",
    b"event: inngest.response\ndata: nonsense\n\n",
])  # fmt: skip
async def test_an_answer_that_does_not_say_that_the_run_failed_is_not_its_end(
    written: bytes,
) -> None:
    async with world() as w:
        token = await failing(w, "inngest-js:v4.24.0", written)
        async with following(w, token) as stream:
            w.clock.advance(1)
            assert (await ended(stream))["response"] == {
                "body": '{"name":"E","message":"m"}',
                "statusCode": 500,
                "headers": {"content-type": "application/json"},
            }


async def failing(w: World, sdk: str, written: bytes) -> str:
    """Let a run fail whose SDK writes something to its stream; return the token of that."""
    body = new_run(sleep(text="1s"))
    response = await w.http.post("/v1/checkpoint", json=body, headers={"x-inngest-sdk": sdk})
    await w.http.post(TEE, content=pushed(1) + written)
    w.script = [answer({"name": "E", "message": "m"}, 500)]
    await w.after(1)
    token: str = response.json()["data"]["realtime_token"]
    return token


async def test_a_stream_begins_once_or_as_often_as_its_sdk_says() -> None:
    """JavaScript begins it with each call; its clients expect that, and the order."""
    async with world() as w:
        js = {"x-inngest-sdk": "inngest-js:v4.24.0"}
        body = new_run(sleep(text="1s"))
        response = await w.http.post("/v1/checkpoint", json=body, headers=js)
        token = response.json()["data"]["realtime_token"]
        begin = stream_frames.metadata(RUN)
        for number in (1, 2):
            await w.http.post(TEE, content=begin + pushed(number))
        w.script = [answer(complete(OK))]
        await w.after(1)
        async with following(w, token) as stream:
            w.clock.advance(1)
            await ended(stream)
        assert [(frame.event, frame.data) for frame in frames(stream)][:-1] == [
            (METADATA, f'{{"runId":"{RUN}"}}'), ("inngest.stream", "1"),
            (METADATA, f'{{"runId":"{RUN}"}}'), ("inngest.stream", "2"),
        ]  # fmt: skip


async def test_a_run_whose_sdk_names_itself_by_its_time_alone_is_javascripts() -> None:
    """Versions before 4.19 send no header with their first checkpoint."""
    async with world() as w:
        body = new_run(sleep(text="1s"), ts=1795350755411)
        token = (await w.http.post("/v1/checkpoint", json=body)).json()["data"]["realtime_token"]
        async with following(w, token) as stream:
            w.script = [answer(complete({"status": 200, "headers": {}, "body": '"x"'}))]
            await w.after(1)
            late = stream_frames.response(202, [], b"x", failed=False)
            await w.http.post(TEE, content=late)
            assert (await ended(stream))["response"]["statusCode"] == 202  # type: ignore[index]


async def test_the_answer_that_javascript_writes_is_the_end_also_if_it_comes_late() -> None:
    async with world() as w:
        body = new_run(sleep(text="1s"))
        js = {"x-inngest-sdk": "inngest-js:v4.24.0"}
        response = await w.http.post("/v1/checkpoint", json=body, headers=js)
        token = response.json()["data"]["realtime_token"]
        async with following(w, token) as stream:
            w.script = [answer(complete({"status": 200, "headers": {}, "body": '"x"'}))]
            await w.after(1)
            told = stream_frames.response(202, [("a", "b")], b"x", failed=False)
            await w.http.post(TEE, content=told)
            assert (await ended(stream))["response"] == {
                "body": "x", "statusCode": 202, "headers": {"a": "b"},
            }  # fmt: skip
        async with following(w, token) as late:
            assert (await ended(late))["response"]["statusCode"] == 202  # type: ignore[index]


async def test_the_engine_ends_the_stream_where_javascript_does_not() -> None:
    async with world() as w:
        js = {"x-inngest-sdk": "inngest-js:v4.24.0"}
        body = new_run(complete(OK))
        response = await w.http.post("/v1/checkpoint", json=body, headers=js)
        token = response.json()["data"]["realtime_token"]
        async with following(w, token) as stream:
            w.clock.advance(0.5)
            assert not stream.over
            w.clock.advance(0.5)
            assert (await ended(stream))["response"]["statusCode"] == 201  # type: ignore[index]


async def test_what_is_beyond_the_limit_is_said() -> None:
    async with world(max_stream=100) as w:
        token = (await w.post(sleep(text="1s")))["realtime_token"]
        assert await send(w, pushed(1, 2)) == ""
        assert await send(w, pushed(3, 4), before=2) == "full"
        w.script = [answer(complete(OK))]
        async with following(w, token) as stream:
            await w.after(1)
            await ended(stream)
        events = [frame.event for frame in frames(stream)]
        assert values(stream) == ["1", "2", "3"]
        assert events[-2:] == [LOST, stream_frames.RESPONSE]


async def test_a_stream_goes_some_time_after_its_run_and_that_is_said() -> None:
    async with world(stream_retain=60, realtime_token_lifetime=9000, sweep_interval=1000) as w:
        token = (await w.post(sleep(text="1s")))["realtime_token"]
        await send(w, pushed(1))
        unknown = "/v1/realtime/publish/tee?channel=01M81KWY4BC292NS2P7Q9MNAN7"
        await w.http.post(unknown, content=pushed(9))
        w.clock.advance(100)
        w.script = [answer(complete(OK))]
        await w.engine.idle()
        sweep = w.engine.streams.sweep
        assert await sweep() == 1  # of a run that never came
        w.clock.advance(60)
        assert await sweep() == 0
        w.clock.advance(1)
        assert await sweep() == 1
        assert await sweep() == 0
        async with following(w, token) as stream:
            await ended(stream)
        assert [frame.event for frame in frames(stream)] == [
            METADATA, LOST, stream_frames.RESPONSE,
        ]  # fmt: skip


async def test_a_call_that_was_superseded_writes_nothing() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"))
        headers = {"x-stephttp-stream": "w 0", "x-inngest-job-id": "old", "x-stephttp-attempt": "0"}
        refused = await w.http.post(TEE, content=pushed(1), headers=headers)
        assert (refused.status_code, refused.json()["error"][:7]) == (409, "frames:")


async def test_a_call_whose_number_is_too_long_is_refused() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"))
        headers = {"x-inngest-job-id": "old", "x-stephttp-attempt": "9" * 5000}
        writes = headers | {"x-stephttp-stream": "w 0"}
        for refused in (
            await w.http.post(TEE, content=pushed(1), headers=writes),
            await w.http.get(f"/v0/runs/{RUN}/actions", headers=headers),
        ):
            assert refused.status_code == 400
            assert refused.json()["error"].startswith("x-stephttp-attempt: ")


@pytest.mark.parametrize("header", ["", "w", "w -1", "w 1 2", "w x", "a/b 1", "w " + "9" * 10])
async def test_writers_that_make_no_sense(header: str) -> None:
    async with world() as w:
        response = await w.http.post(TEE, content=b"", headers={"x-stephttp-stream": header})
        assert response.status_code == 400
        assert response.json()["error"].startswith("x-stephttp-stream: ")


async def test_a_slow_listener_holds_up_no_other_and_loses_nothing() -> None:
    async with world() as w:
        token = (await w.post(sleep(text="1s")))["realtime_token"]
        async with following(w, token) as slow, following(w, token) as quick:
            slow.stuck.clear()
            total = 0
            for _ in range(20):
                body = b"".join(stream_frames.pushed(b'"%s"' % (b"x" * 1000)) for _ in range(40))
                await send(w, body, before=total)
                total += 40
            await until(lambda: len(values(quick)) == total)
            assert len(values(slow)) < total
            slow.stuck.set()
            await until(lambda: len(values(slow)) == total)


async def test_a_stream_that_was_forgotten_takes_nothing_more() -> None:
    async with world(stream_retain=60, sweep_interval=1000) as w:
        await w.post(sleep(text="1s"))
        await send(w, pushed(1))
        w.script = [answer(complete(OK))]
        await w.after(1)
        w.clock.advance(61)
        assert await w.engine.streams.sweep() == 1
        await send(w, pushed(2), before=1, status=409)
        assert (await w.http.post(TEE, content=pushed(3))).status_code == 409
        assert await w.engine.streams.sweep() == 0
        part = await w.engine.streams.read(RUN)
        assert [frame.event for _, frame in part.frames] == [LOST]


async def test_listeners_of_several_topics_get_what_was_kept() -> None:
    """Not what was refused, and once what was sent twice."""
    async with world() as w:
        await w.post(sleep(text="1s"))
        with w.engine.channels.listening([(RUN, STREAM), (RUN, "paid")]) as listener:
            told = stream_frames.response(201, [], b"hi", failed=False)
            for _ in range(2):
                await send(w, pushed(1) + told)
            await send(w, pushed(2), before=9, status=409)
            stale = {
                "x-stephttp-stream": "v 0",
                "x-inngest-job-id": "old",
                "x-stephttp-attempt": "0",
            }
            assert (await w.http.post(TEE, content=pushed(3), headers=stale)).status_code == 409
            assert b"".join(listener.take()) == pushed(1) + told
