"""Any bytes at all, in every place where bytes of the exchange come in: models or the promised errors, nothing else.

``python -m fuzz.wire SECONDS`` (``make fuzz``) damages real messages at random, led by coverage where atheris is
installed. What breaks the promise is printed as a call of `judge`, to be made a test of.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs

from marketpipe.core.requests import (
    CandlesRequest,
    MarketsRequest,
    OrderbooksRequest,
    QuoteTickersRequest,
    TickersRequest,
    TradesRequest,
)
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import BadPayload, ExchangeError
from marketpipe.upbit import wire

__all__ = ["SEEDS", "TARGETS", "WORDS", "damaged", "judge"]

NOW_MS = 1_800_000_000_000
REQUESTS = (
    MarketsRequest(),
    TickersRequest(("KRW-BTC",)),
    QuoteTickersRequest(("KRW",)),
    OrderbooksRequest(("KRW-BTC",)),
    TradesRequest("KRW-BTC", 500),
    *(CandlesRequest("KRW-BTC", timeframe, 200) for timeframe in Timeframe),
)


def _rows(request: Any) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        try:
            rows, failed = wire.decode(request, data, received_ms=NOW_MS, exchange_ms=None)
        except BadPayload as flaw:
            _assert_shown(flaw)
            return
        for row in rows:
            _assert_model(row)
        for market, flaw in failed.items():
            assert type(flaw) is BadPayload
            assert flaw.market == market
            assert str(flaw).isprintable()

    return target


def _instruments(data: bytes) -> None:
    try:
        wire.decode_instruments(data)
    except BadPayload as flaw:
        _assert_shown(flaw)


def _frames(data: bytes) -> None:
    try:
        frames = wire.decode_frame(data, received_ms=NOW_MS)
    except ExchangeError as error:
        _assert_shown(error)
        return
    for frame in frames:
        if isinstance(frame.value, BadPayload):
            assert str(frame.value).isprintable()
        else:
            _assert_model(frame.value)


def _refusal(data: bytes) -> None:
    status = 100 + sum(data[:2])
    value = data[:200].decode("latin-1")
    error = wire.error_of(REQUESTS[1], status, {"retry-after": value}, data, now_ms=NOW_MS)
    assert isinstance(error, ExchangeError)
    assert str(error).isprintable()


def _headers(data: bytes) -> None:
    value = data.decode("latin-1")
    assert wire.date_ms(value) is None or isinstance(wire.date_ms(value), int)
    wire.remaining_req(value)


TARGETS = (_frames, *map(_rows, REQUESTS), _instruments, _refusal, _headers)


def _assert_shown(error: ExchangeError) -> None:
    assert str(error).isprintable()
    assert len(str(error)) < 500


def _assert_model(value: object) -> None:
    for field in attrs.fields(type(value)) if attrs.has(type(value)) else ():
        number = getattr(value, field.name)
        if isinstance(number, Decimal):
            assert number.is_finite(), field.name
            assert abs(number.adjusted()) <= 40, field.name
        if isinstance(number, tuple):
            for each in number:
                _assert_model(each)


def judge(data: bytes) -> None:
    """Give ``data`` to everything that reads bytes of the exchange; whatever is not promised escapes."""
    for target in TARGETS:
        target(data)


def _seeds() -> list[bytes]:
    # Rows of the simulator's making are in the tests of the wire; recorded ones lie beside the repository, or nowhere.
    from upbit import test_wire as rest
    from upbit import test_wire_frames as frames

    seeds = [rest.body(row) for row in (rest.market(), rest.ticker(), rest.book(), rest.trade(), rest.candle())]
    seeds += [rest.body(rest.ticker(), rest.ticker("KRW-ETH")), *frames.REAL]
    seeds += [rest.refusal("Try again in 30 seconds", 418), b"Tue, 29 Jul 2025 12:00:01 GMT", b"group=market; sec=8"]
    seeds.append(b'[{"market":"KRW-BTC","quote_currency":"KRW","tick_size":"1000","supported_levels":["0","10000"]}]')
    recorded = Path(__file__).parents[2].parent / "shared" / "payloads"
    for path in sorted(recorded.glob("*.json*")) if recorded.is_dir() else ():
        data = path.read_bytes()
        seeds += data.splitlines()[:40] if path.suffix == ".jsonl" else [data] if len(data) < 20_000 else []
    return [seed for seed in seeds if seed]


SEEDS = _seeds()

# What takes the place of a piece, or comes between two.
WORDS = (
    b"", b"0", b"-", b"-0.0", b"1e400", b"-1e-400", b"1e999999999", b"9" * 400, b"9" * 5000, b"0." + b"1" * 400,
    b"1" * 20, b"NaN", b"-Infinity", b"Infinity", b'"NaN"', b'"sNaN1"', b'"Infinity"', b"null", b"true", b"[]",
    b"{}", b'""', b"[[[[", b"[" * 3000, b'{"a":' * 1500, b'"', b"\\", b"\\u0000", b"\\ud800", b"\\udc00\\ud800",
    b"\xed\xa0\x80", b"\xff", b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc2\x9b", b"\x1b[2J", b"\xe2\x80\xae", b",",
    b":", b"[", b"]", b"{", b"}", b"\n", b"E9", b'"market":"KRW-ETH",', b'"code":"KRW-BTC",', b'"type":"trade",',
    b'"ty":"ticker",', b'"error":{"name":"x"},', b'"method":"x",', b'"KRW-BTC"', b'"9999-12-31T23:59:59.9999999"',
    b'"0001-01-01T00:00:00+14:00"', b'"2025-02-30"', b'"timestamp":9223372036854775808,', b'"status":"UP"',
    "\u3000\ud55c\uae00".encode(), b" " * 300,
)  # fmt: skip
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "utf-7", "cp949", "utf-8-sig")


def damaged(data: bytes, draw: random.Random) -> bytes:
    """``data`` with some harm done to it; structure first, for what is no JSON at all is soon refused."""
    for _ in range(draw.randint(1, 4)):
        data = draw.choice(HARMS)(data, draw)[:200_000]
    return data


def _tokens(data: bytes) -> list[int]:
    """Where something begins or ends in a piece of JSON."""
    return [0, *(index for index, byte in enumerate(data) if byte in b',:[]{}"'), len(data)]


def _replaced(data: bytes, draw: random.Random) -> bytes:
    ends = _tokens(data)
    at = draw.randrange(len(ends))
    start = ends[at] + 1
    end = ends[min(at + draw.randint(1, 2), len(ends) - 1)]
    return data[:start] + draw.choice(WORDS) + data[max(start, end) :]


def _dropped(data: bytes, draw: random.Random) -> bytes:
    ends = _tokens(data)
    start, end = sorted((draw.choice(ends), draw.choice(ends)))
    return data[:start] + data[min(end, start + draw.choice((1, 20, 100, 1000))) :]


def _doubled(data: bytes, draw: random.Random) -> bytes:
    ends = _tokens(data)
    start, end = sorted((draw.choice(ends), draw.choice(ends)))
    return data[:end] + data[start:end] + data[end:]


def _crossed(data: bytes, draw: random.Random) -> bytes:
    other = draw.choice(SEEDS)
    return data[: draw.choice(_tokens(data))] + other[draw.choice(_tokens(other)) :]


def _flipped(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + bytes([draw.randrange(256)]) + data[at + draw.randint(0, 1) :]


def _recoded(data: bytes, draw: random.Random) -> bytes:
    return data.decode("utf-8", "replace").encode(draw.choice(ENCODINGS), "replace")


HARMS = (
    *(_replaced,) * 6,
    *(_dropped, _doubled, _crossed, _flipped) * 2,
    _recoded,
    lambda data, draw: data[: draw.randrange(len(data) + 1)],
    lambda data, draw: data + draw.choice((b"", b"\n", b"\0")) + draw.choice(SEEDS),
    lambda data, draw: b"[" + data + b"]",
    lambda data, draw: draw.choice(WORDS) + data,
)


def main(seconds: float) -> None:
    seed = random.SystemRandom().randrange(2**32)
    draw = random.Random(seed)
    try:
        import atheris
    except ImportError:
        print(f"atheris is not installed: damage at random alone, seed {seed}", flush=True)
        count, until_s = 0, time.monotonic() + seconds
        while time.monotonic() < until_s:
            one(damaged(draw.choice(SEEDS), draw))
            count += 1
        print(f"{count} messages, {count * len(TARGETS)} decodings, nothing found")
        return

    def mutated(data: bytes, size: int, random_seed: int) -> bytes:
        own = random.Random(random_seed)
        return damaged(own.choice(SEEDS) if len(data) < 2 or own.random() < 0.2 else data, own)[:size]

    options = [sys.argv[0], f"-max_total_time={seconds:.0f}", "-max_len=20000", "-print_final_stats=1", f"-seed={seed}"]
    for name, module in list(sys.modules.items()):
        if name.startswith("marketpipe.upbit.wire"):
            for function in [value for value in vars(module).values() if callable(value)]:
                if getattr(function, "__module__", "") == name and hasattr(function, "__code__"):
                    setattr(module, function.__name__, atheris.instrument_func(function))
    atheris.Setup(options, one, custom_mutator=mutated, internal_libfuzzer=True)
    atheris.Fuzz()


def one(data: bytes) -> None:
    """As `judge`; says what to call to see it again."""
    try:
        judge(data)
    except Exception:
        print(f"\njudge({data!r})", flush=True)
        raise


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
