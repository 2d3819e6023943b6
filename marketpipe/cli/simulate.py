"""``marketpipe sim``: the simulated exchange on a socket, for people and for other clients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, get_args, get_type_hints

import attrs
import click
import trio

from marketpipe.cli import NOBODY_READS, checks
from marketpipe.cli.complaints import complain
from marketpipe.sim import SimConfig, run_simulator

__all__ = ["sim"]

_HELP = {
    "seed": "The same seed gives the same market.",
    "markets": "How many markets are listed.",
    "lively": "So many of 855 markets trade as in the busiest hours, the others hardly ever.",
    "limit": "Requests per second that each rate-limit group accepts.",
    "window": "How a second is counted.",
    "latency_s": "Milliseconds from a request to its answer.",
    "jitter_s": "Up to so many milliseconds more, at random.",
    "refusal": "The body of a 429.",
    "ban_after": "So many refusals are followed by a block (418); 0: never.",
    "ban_window_s": "Seconds within which refusals add up to a block.",
    "ban_s": "Seconds the first block lasts; the next twice as long.",
    "ban_body": "Whether a 418 says how long it lasts.",
    "origin_rule": "Requests with an Origin header get one answer per 10 s.",
    "row_order": "The order of rows in a batch.",
    "region": "Whose fields are sent.",
    "duplicates": "A market asked twice in a batch is answered so often.",
    "future_to": "A `to` after now is as good as none, or refused.",
    "nonpositive_count": "A count of 0 or less is refused, or taken as 1.",
    "unknown_quote": "An unknown quote currency is refused, or has no rows.",
    "gzip": "Compress for clients that accept it.",
    "connect_limit": "WebSocket connections per second that are accepted.",
    "message_limit": "Messages per second that each WebSocket connection accepts.",
    "minute_limit": "Messages per minute that each WebSocket connection accepts.",
    "excess": "Whether a message too many closes its connection.",
    "idle_s": "Seconds of silence after which a WebSocket connection is dropped.",
    "snapshot_s": "Seconds from a subscription to its snapshots.",
    "reordered": "Share of trades that are sent late, 0 to 1.",
    "duplicated": "Share of trades that are sent twice, 0 to 1.",
}
EXAMPLES = (
    "/v1/ticker?markets=KRW-BTC,KRW-ETH",
    "/v1/candles/minutes/1?market=KRW-BTC&count=3",
    "/v1/orderbook?markets=KRW-BTC",
    "/sim/stats",
)


def _options(command: Callable[..., None]) -> Callable[..., None]:
    hints = get_type_hints(SimConfig)
    for field in reversed(attrs.fields(SimConfig)):
        command = _option(field, hints[field.name])(command)
    return command


def _option(field: attrs.Attribute[Any], hint: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    shown = partial(click.option, help=_HELP.get(field.name), show_default=True)
    flag = "--" + field.name.replace("_", "-")
    if hint is bool:
        return shown(f"{flag}/--no-{flag[2:]}", default=field.default)
    if field.name in ("latency_s", "jitter_s"):
        milliseconds = (field.default or 0.0) * 1000
        return shown(flag[:-1] + "ms", field.name, type=float, default=milliseconds, callback=checks.milliseconds)
    if field.name == "ban_after":
        return shown(flag, type=click.IntRange(0), default=field.default)
    choices = [choice for choice in get_args(hint) if isinstance(choice, str)]
    kind = click.Choice(choices) if choices else float if hint is float else int
    return shown(flag, type=kind, default=field.default, callback=checks.of_field(field))


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8600, show_default=True,
              help="The port to listen on; 0: any free one.")  # fmt: skip
@_options
def sim(host: str, port: int, **options: Any) -> None:
    """Run a simulated Upbit until Ctrl-C: the same paths, fields, limits and silences.

    \b
    marketpipe sim --port 8600 --latency-ms 20
    marketpipe sim --port 0 --seed 42 --window rolling --jitter-ms 300
    """
    try:
        trio.run(partial(run_simulator, _config(**options), host=host, port=port, announce=_announce))
    except* ValueError as failures:
        complain(failures)
        raise SystemExit(1) from None
    except* BrokenPipeError:
        raise SystemExit(NOBODY_READS) from None
    except* OSError as failures:
        complain(failures, about=f"cannot listen on {host} port {port}")
        raise SystemExit(1) from None


def _config(*, ban_after: int, **others: Any) -> SimConfig:
    return SimConfig(ban_after=ban_after or None, **others)


def _announce(line: str) -> None:
    base_url = line.rpartition(" ")[2]
    click.echo(line)
    for path in EXAMPLES:
        click.echo(f"  curl '{base_url}{path}'")
    click.echo(f"  marketpipe ticker KRW-BTC KRW-ETH --base-url {base_url}")
    click.echo(f"  marketpipe watch KRW-BTC KRW-ETH --base-url {base_url}")
