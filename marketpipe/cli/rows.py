"""Values as JSON for programs: the model's own field names, and numbers that keep every digit.

Decimals are JSON numbers, not strings, with exactly the digits the exchange sent: jq and pandas can compute with them
at once, and whoever needs them exact reads them with ``json.loads(line, parse_float=Decimal)``.
"""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from marketpipe.cli.letters import escaped
from marketpipe.models import Candle, Market

__all__ = ["json_line", "row"]

_encoder = msgspec.json.Encoder(decimal_format="number")


def json_line(value: object) -> str:
    """``value`` as one line of JSON, exact."""
    return escaped(_encoder.encode(value).decode())


def row(value: Any, now_ms: int) -> dict[str, Any]:
    """The fields of a dated value, with its age, and what people look for first."""
    fields = {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
    if isinstance(value, Market):
        fields |= {"quote": value.quote, "base": value.base, "cautions": sorted(value.cautions)}
    if isinstance(value, Candle):
        fields |= {"open_time": value.open_time}
    return {**fields, "age_ms": value.age_ms(now_ms)}
