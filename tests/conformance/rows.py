"""The rows of the register, one after the other in the order of the sheet. See `conformance.register`."""

# ruff: noqa: E501 - a table: one row on as few lines as it takes
from __future__ import annotations

from collections.abc import Iterator

import attrs

__all__ = ["ROWS", "Row"]


@attrs.frozen
class Row:
    """``tests`` of tests/sim that claim it; ``unclaimed`` says why nothing does."""

    id: str
    lines: tuple[str, ...]
    tests: tuple[str, ...] = ()
    unclaimed: str = ""

    @property
    def section(self) -> str:
        return self.id.partition("/")[0]


def _row(id: str, lines: str | tuple[str, ...], *tests: str, unclaimed: str = "") -> Row:
    return Row(id, (lines,) if isinstance(lines, str) else lines, tests, unclaimed)


def _rows() -> Iterator[Row]:
    yield from _transport()
    yield from _quotation()
    yield from _candles()
    yield from _limits_and_errors()
    yield from _websocket()
    yield from _values()


# fmt: off



def _transport() -> Iterator[Row]:
    yield _row("1.0/regions", ("| Korea", "| Singapore", "| Indonesia", "| Thailand", "[A] table: `SDK`"),
               unclaimed="one host at a time; `region` picks its fields, markets are those of Korea")
    yield _row("1.0/v1", "All paths start `/v1`", "exchange::test_a_path_without_a_route_is_a_404_of_the_gateway_that_counts_nowhere")
    yield _row("1.0/tls", "TLS >= 1.2 only", unclaimed="plain HTTP/1.1 on loopback; TLS is the network's, not the exchange's")
    yield _row("1.0/gzip", "gzip is offered", "exchange::test_a_long_answer_is_compressed_if_both_sides_want_it")
    yield _row("1.0/headers", "Real reply headers", "exchange::test_an_answer_carries_the_headers_of_the_wire",
               "exchange::test_only_an_answer_has_an_etag_and_it_is_that_of_the_uncompressed_body")
    yield _row("1.0/no-server-time", "Real reply headers")
    yield _row("1.0/percent-encoding", "Query values must be percent-encoded")
    yield _row("1.0/duplicate-headers", "duplicated request headers", unclaimed="\"can be\" refused: nobody has seen when")
    yield _row("1.0/latency", "Latency Seattle->Seoul", "exchange::test_half_of_the_latency_passes_before_the_request_is_counted",
               "exchange::test_jitter_is_added_from_the_seed_and_never_more_than_configured")
    yield _row("1.0/sizes", "Sizes: `market/all`", unclaimed="sizes of one day; they follow from fields and number of markets")


def _quotation() -> Iterator[Row]:
    yield _row("1.1/is-details", "| `is_details`", "quotation::test_details_add_the_market_event")
    yield _row("1.1/market", "| `market` | string")
    yield _row("1.1/names", "`korean_name`, `english_name`")
    yield _row("1.1/english-name", "`korean_name`, `english_name`")
    yield _row("1.1/warning", "`market_event.warning`")
    yield _row("1.1/caution", "`market_event.caution.", "rows::test_markets_with_details")
    yield _row("1.1/market-warning", "| `market_warning`", "rows::test_markets_of_global_regions",
               "quotation::test_global_regions_have_fewer_fields_and_no_levels")
    yield _row("1.1/order", "Row order is arbitrary", "quotation::test_market_all_lists_every_market_in_an_order_of_its_own")
    yield _row("1.1/no-status", "There is no status", "quotation::test_a_market_appears_when_it_is_listed")
    yield _row("1.1/mistyped", "Only documented error: 400")

    yield _row("1.2/market", "| `market` | string | yes")
    yield _row("1.2/to", "| `to` | string", "quotation::test_to_excludes_the_bar_that_opens_at_it_and_never_cuts_a_bar")
    yield _row("1.2/count", "| `count` | int", "quotation::test_a_count_above_two_hundred_is_clamped_silently")
    yield _row("1.2/converting", "| `converting_price_unit`", "quotation::test_days_can_be_converted_to_krw_where_the_quote_is_a_coin")
    yield _row("1.2/paths", ("Paths: `/v1/candles/seconds`", "`seconds` and `years` exist"))
    yield _row("1.2/newest-first", "Response: JSON array", "quotation::test_candles_are_the_worlds_bars_newest_first_with_the_running_one")
    yield _row("1.2/field-market", "| `market` | string | all")
    yield _row("1.2/field-utc", "| `candle_date_time_utc`")
    yield _row("1.2/field-kst", "| `candle_date_time_kst`")
    yield _row("1.2/field-prices", "| `opening_price high_price")
    yield _row("1.2/field-timestamp", "| `timestamp` | integer ms")
    yield _row("1.2/field-turnover", "| `candle_acc_trade_price`")
    yield _row("1.2/field-volume", "| `candle_acc_trade_volume`")
    yield _row("1.2/field-unit", "| `unit` | int")
    yield _row("1.2/field-prev-close", "| `prev_closing_price` | number", "quotation::test_a_day_names_the_close_before_it_and_its_signed_change")
    yield _row("1.2/field-change-price", "| `change_price` | number")
    yield _row("1.2/field-change-rate", "| `change_rate` | number")
    yield _row("1.2/field-converted", "| `converted_trade_price`", "quotation::test_days_can_be_converted_to_krw_where_the_quote_is_a_coin")
    yield _row("1.2/field-first-day", "| `first_day_of_period`")
    yield _row("1.2/key-order", ("Wire key order", "Samples: payloads"), "rows::test_candles", "rows::test_day_candles",
               "rows::test_candles_whose_numbers_were_respelt_by_the_documentation")
    yield _row("1.2/no-nulls", "No other nulls")

    yield _row("1.3/market", "| `market` | string | yes")
    yield _row("1.3/to", "| `to` | string", "quotation::test_to_is_an_exclusive_second_inside_the_day")
    yield _row("1.3/count", "| `count` | int", "quotation::test_trades_are_the_newest_of_the_day_newest_first_and_one_by_default")
    yield _row("1.3/cursor", "| `cursor`", "quotation::test_a_cursor_pages_through_a_day_and_ends_with_nothing")
    yield _row("1.3/days-ago", "| `days_ago`")
    yield _row("1.3/field-market", "| `market` string;")
    yield _row("1.3/field-date", "| `market` string;")
    yield _row("1.3/field-time", "| `market` string;")
    yield _row("1.3/field-timestamp", "| `timestamp` | integer ms")
    yield _row("1.3/field-numbers", "| `trade_price`, `trade_volume`")
    yield _row("1.3/field-change-price", "| `change_price` | number")
    yield _row("1.3/field-side", "| `ask_bid`")
    yield _row("1.3/field-id", "| `sequential_id` | integer")
    yield _row("1.3/no-change-no-stream-type", "There is no `change`", "rows::test_trades")
    yield _row("1.3/empty-day", "exact reply when a day has no trades", "quotation::test_a_day_without_trades_is_an_empty_list")

    yield _row("1.4/parameters", "`/ticker`: `markets`", "quotation::test_ticker_all_has_the_same_rows_as_ticker")
    yield _row("1.4/unknown-code", "one unknown/delisted code", "quotation::test_one_unknown_code_refuses_the_whole_batch")
    yield _row("1.4/long-url", "very long `markets` lists", "exchange::test_a_target_longer_than_the_gateway_takes_is_a_414")
    yield _row("1.4/field-market", "| `market` | string")
    yield _row("1.4/field-date", "| `trade_date`,`trade_time`")
    yield _row("1.4/field-time", "| `trade_date`,`trade_time`")
    yield _row("1.4/field-kst", "| `trade_date_kst`", "rows::test_tickers_of_global_regions_have_no_seoul_time")
    yield _row("1.4/field-trade-timestamp", "| `trade_timestamp`")
    yield _row("1.4/field-prices", "| `opening_price high_price", "world::test_a_ticker_is_the_sum_of_the_trades")
    yield _row("1.4/field-prev-close", "| `prev_closing_price`", "world::test_a_ticker_is_the_sum_of_the_trades")
    yield _row("1.4/field-change", "| `change` | `RISE`")
    yield _row("1.4/field-absolute", "| `change_price`,`change_rate`")
    yield _row("1.4/field-signed", "| `signed_change_price`")
    yield _row("1.4/field-volume", "| `trade_volume`", "quotation::test_a_ticker_row_says_what_the_world_says")
    yield _row("1.4/field-today", "| `acc_trade_price`,", "world::test_a_ticker_is_the_sum_of_the_trades")
    yield _row("1.4/field-24h", "| `acc_trade_price_24h`,", "world::test_a_ticker_is_the_sum_of_the_trades")
    yield _row("1.4/field-52-weeks", "| `highest_52_week_price`", "world::test_the_52_week_prices_are_the_extremes_of_364_days_with_today")
    yield _row("1.4/field-52-week-days", "| `highest_52_week_price`")
    yield _row("1.4/field-timestamp", "| `timestamp` | int ms", "world::test_things_are_stored_30_to_54_ms_later_in_the_order_they_happened")
    yield _row("1.4/not-of-websocket", "REST ticker has **no**", "rows::test_tickers")
    yield _row("1.4/share-of-changes", "REST ticker has **no**", unclaimed="how busy one minute of one day was, over all markets")

    yield _row("1.5/markets", "| `markets` | string", "quotation::test_lower_case_is_accepted_for_order_books_only")
    yield _row("1.5/level", "| `level` | string", "quotation::test_books_can_be_grouped_by_a_supported_level_and_by_no_other",
               "quotation::test_global_regions_have_fewer_fields_and_no_levels")
    yield _row("1.5/count", "| `count` | int", "quotation::test_a_count_out_of_range_is_thirty_units")
    yield _row("1.5/units", "Row: `market` str")
    yield _row("1.5/field-numbers", "Row: `market` str")
    yield _row("1.5/field-level", "Row: `market` str")
    yield _row("1.5/timestamp", "[C] `timestamp`: docs say", "world::test_busy_books_change_every_100_ms_with_a_phase_of_their_own",
               "world::test_quiet_books_are_minutes_old_and_many_are_padded")
    yield _row("1.5/sorted-and-padded", "asks ascending", "world::test_a_book_is_sorted_uncrossed_padded_and_totalled",
               "quotation::test_a_padded_side_has_price_and_size_zero")
    yield _row("1.5/spelling", "REST writes keys", "rows::test_orderbooks")
    yield _row("1.5/same-stamp-same-book", "REST book is 0", "world::test_a_book_with_the_same_timestamp_is_the_same_book")
    yield _row("1.5/behind-websocket", "REST book is 0", unclaimed="REST is never behind here: the 0 of 0 to 200 ms")
    yield _row("1.5/totals", "whether total_*_size covers")
    yield _row("1.6/instruments", "`instruments`: `markets`", "quotation::test_instruments_and_levels", "rows::test_instruments")
    yield _row("1.6/field-tick", "`instruments`: `markets`", "world::test_ticks_are_those_of_the_exchange")
    yield _row("1.6/supported-levels", "`supported_levels`: deprecated", "rows::test_supported_levels")
    yield _row("1.6/group", "group `orderbook` shared", "quotation::test_every_endpoint_belongs_to_its_group_even_when_it_refuses")


def _candles() -> Iterator[Row]:
    yield _row("2/only-with-trades", "Bar exists only if", "world::test_candles_are_exactly_the_trades",
               "world::test_thin_markets_have_empty_minutes_and_dust_has_empty_days")
    yield _row("2/maintenance", "Exchange maintenance also", "world::test_maintenance_leaves_no_trade_in_any_market_and_no_other_missing")
    yield _row("2/boundaries", "Boundaries: everything UTC")
    yield _row("2/running-bar", "bar label = open time", "quotation::test_candles_are_the_worlds_bars_newest_first_with_the_running_one")
    yield _row("2/no-closed-flag", "there is no \"closed\" flag")
    yield _row("2/closed-bars", "closed bars do not get rewritten")
    yield _row("2/late-bars", "but some users saw", unclaimed="one report of 2021 against the wire of 2026; `edit` faults drop rows where it is wanted")
    yield _row("2/sums", "sum of hourly volume", "world::test_a_bar_is_the_sum_of_the_finer_bars_inside_it")
    yield _row("2/timestamp", "`timestamp` = storage time")
    yield _row("2/prev-close-differs", "day `prev_closing_price` may differ", unclaimed="seen once, unexplained; here it is the close before")
    yield _row("2/to-exclusive", "`to` is exclusive", "quotation::test_to_excludes_the_bar_that_opens_at_it_and_never_cuts_a_bar")
    yield _row("2/to-formats", "`to` formats accepted", "quotation::test_every_accepted_spelling_of_to_means_the_same_moment",
               "quotation::test_a_fraction_of_a_second_is_not_lost")
    yield _row("2/never-cut", "bars are never cut")
    yield _row("2/to-empty", "`to` empty string")
    yield _row("2/before-listing", "`to` before listing")
    yield _row("2/history-runs-out", "fewer than `count` rows", "quotation::test_history_ends_with_a_short_page_and_then_nothing")
    yield _row("2/seconds-kept", "seconds retention", "quotation::test_seconds_go_back_three_months")
    yield _row("2/first-day", "minutes/days reach back", "world::test_every_market_has_its_first_trade_where_its_history_begins")
    yield _row("2/to-in-the-future", "`to` in the future", "quotation::test_an_empty_to_and_a_future_one_are_as_good_as_none")
    yield _row("2/to-malformed", "malformed `to`", "quotation::test_any_other_to_is_an_invalid_parameter")
    yield _row("2/paging", "paging: next `to`", "quotation::test_pages_tile_the_history")
    yield _row("2/renamed", "renamed coins keep history", unclaimed="an invented history has no renames or redenominations")
    yield _row("2/delisted", "delisted code -> 404", "quotation::test_a_delisted_code_is_as_unknown_as_one_that_never_was")
    yield _row("2/months-sample", "months doc sample", unclaimed="about the documentation, not the exchange")


def _limits_and_errors() -> Iterator[Row]:
    for name, line in (("market", "| `market` | `market`"), ("candle", "| `candle` (all"), ("trade", "| `trade` | `crix"),
                       ("ticker", "| `ticker` (ticker"), ("orderbook", "| `orderbook` (orderbook")):
        yield _row(f"3/{name}", line)
    yield _row("3/origin", "carrying an `Origin` header", "exchange::test_an_origin_header_moves_a_request_into_the_origin_group",
               "limiter::test_an_origin_gets_one_request_per_ten_seconds")
    yield _row("3/origin-websocket", "carrying an `Origin` header", "websocket::test_an_origin_has_one_connection_per_ten_seconds")
    yield _row("3/websocket-connect", "| `websocket-connect`",
               "websocket::test_the_sixth_connection_of_a_second_is_refused_and_the_next_second_begins_anew")
    yield _row("3/websocket-message", "| `websocket-message`", "limiter::test_messages_are_held_to_their_second_and_their_minute",
               "websocket::test_the_hundred_and_first_message_of_a_minute_is_refused")
    yield _row("3/private-groups", "| exchange `default`", unclaimed="no private API")
    yield _row("3/independent", "Groups are independent", "limiter::test_every_group_has_its_own_limit")
    yield _row("3/header", "Header: `Remaining-Req", "limiter::test_the_header_counts_down_to_zero_and_stays_there_on_a_refusal")
    yield _row("3/other-headers", "`origin` reply looked like", "websocket::test_an_upgrade_is_accepted_with_the_headers_of_the_wire",
               "exchange::test_a_path_without_a_route_is_a_404_of_the_gateway_that_counts_nowhere")
    yield _row("3/window", "Window model", "limiter::test_fixed_mode_counts_by_the_seconds_of_the_wall_clock",
               "limiter::test_first_mode_counts_a_second_from_the_first_request",
               "limiter::test_rolling_mode_never_accepts_more_than_the_limit_in_any_half_open_second")
    yield _row("3/429-and-418", "429 = over the per-second limit", "exchange::test_the_next_second_of_the_wall_clock_lets_in_again",
               "limiter::test_refusals_add_up_to_a_block_of_every_group_that_doubles_each_time")
    yield _row("3/429-body", "**429 body**", "exchange::test_one_request_too_many_is_a_429")
    yield _row("3/418-body", "**418 body**", "exchange::test_a_block_says_how_long_it_lasts_and_ends", "exchange::test_a_bare_block_names_no_time")
    yield _row("3/early-429", "Nobody in our sources provoked", unclaimed="nobody knows why; a `limit` below ten stands for it")
    yield _row("3/websocket-no-count", "WS: no remaining-count", "websocket::test_the_sixth_message_of_a_second_is_refused_and_the_connection_closed")
    yield _row("3/best-practice", "Best practice", unclaimed="advice to clients")

    yield _row("4/envelope", "Envelope `{", "quotation::test_recorded_errors_come_out_to_the_byte")
    yield _row("4/unknown", "| unknown / delisted market")
    yield _row("4/missing", "| missing required param", "quotation::test_a_required_parameter_must_be_there")
    yield _row("4/mistyped", "| type mismatch")
    yield _row("4/bad-value", "| bad value")
    yield _row("4/bad-unit", "| minute unit 120", "quotation::test_candles_refuse_what_is_no_unit_or_count")
    yield _row("4/no-route", "| no such path", "quotation::test_other_paths_have_no_route_and_no_group")
    yield _row("4/limit-or-block", "| rate limit / block", "exchange::test_one_request_too_many_is_a_429")
    yield _row("4/server-fault", "| server fault", "faults::test_a_status_comes_with_its_usual_body_or_the_one_given")
    yield _row("4/no-data", "| listed market, no data")
    yield _row("4/unsupported-level", "| unsupported orderbook level")
    yield _row("4/count-clamped", "| count out of range")
    yield _row("4/count-not-positive", "| count=0 / negative", "quotation::test_trades_refuse_what_is_no_day_time_or_count")
    yield _row("4/precedence", "Error precedence", unclaimed="unknown; here: missing, mistyped, bad value, unknown code")
    yield _row("4/bithumb", "Do not mix up with Bithumb", unclaimed="about another exchange")


def _websocket() -> Iterator[Row]:
    yield _row("5.1/private", "URLs: public", unclaimed="no private API, no indicators; private types are INVALID_AUTH")
    yield _row("5.1/path", "URLs: public", "websocket::test_other_paths_do_not_speak_websocket")
    yield _row("5.1/binary", "All server frames are **BINARY", "websocket::test_a_request_in_binary_frames_or_in_parts_is_understood_too")
    yield _row("5.1/deflate", "permessage-deflate", "websocket::test_messages_are_compressed_if_and_only_if_the_client_offers_it")
    yield _row("5.1/keepalive", "Keepalive: server sends", "websocket::test_the_text_ping_brings_a_sign_of_life_on_the_exchanges_own_tick")
    yield _row("5.1/idle", "Idle timeout", "websocket::test_any_byte_in_or_out_keeps_a_connection")
    yield _row("5.1/close-after-error", "After an error frame",
               "websocket::test_an_error_is_told_in_korean_and_the_connection_closed_a_little_later")
    yield _row("5.1/all-at-once", "max connections per IP", "streams::test_the_whole_exchange_can_be_heard_at_once")
    yield _row("5.1/reconnect-storms", "Reconnect storms",
               "websocket::test_the_sixth_connection_of_a_second_is_refused_and_the_next_second_begins_anew")
    yield _row("5.2/array", "JSON **array**", "websocket::test_a_request_is_understood_in_any_order_and_spelling",
               "websocket::test_what_makes_no_sense_has_a_name")
    yield _row("5.2/ticket", "| `ticket`")
    yield _row("5.2/types", "| `type` | string")
    yield _row("5.2/codes", "| `codes`")
    yield _row("5.2/level", "| `level`", "streams::test_a_level_groups_the_book_as_rest_does")
    yield _row("5.2/only", "| `is_only_snapshot`", "streams::test_only_what_comes_first_or_only_what_follows")
    yield _row("5.2/format", "| `format`", "websocket::test_formats_apply_to_every_message")
    yield _row("5.2/several", "Several type objects")
    yield _row("5.2/bursts", "**No acknowledgement.**", "websocket::test_snapshots_come_in_two_bursts_and_each_market_once")
    yield _row("5.2/replace", "**A new request replaces", "websocket::test_a_request_replaces_the_one_before_entirely",
               "websocket::test_no_trade_is_lost_where_a_request_replaces_another")
    yield _row("5.2/silence", "Unknown code, lower-case code", "websocket::test_what_nobody_knows_is_met_with_silence")
    yield _row("5.2/suffix", "Unsupported suffix", "streams::test_a_suffix_says_how_many_units_of_the_same_book")
    yield _row("5.2/lists", "LIST formats wrap")
    yield _row("5.3/snapshot-then-realtime", "Default: one SNAPSHOT",
               "websocket::test_the_snapshot_of_a_market_comes_first_and_nothing_older_after_it_but_trades")
    yield _row("5.3/ticker", "**ticker** (abbr)", "frames::test_tickers", "frames::test_abbreviations_are_those_of_the_documentation")
    yield _row("5.3/ticker-on-change", "Sent on change")
    yield _row("5.3/trade", "**trade**: type ty", "frames::test_trades", "streams::test_every_trade_is_told_once_in_order_50_to_130_ms_later")
    yield _row("5.3/orderbook", "**orderbook**: type ty", "frames::test_orderbooks")
    yield _row("5.3/whole-books", "Every frame is a complete book", "streams::test_every_change_of_a_book_is_told_at_once_as_rest_shows_it",
               "streams::test_a_quiet_book_tells_its_grid_and_its_trades")
    yield _row("5.3/candle", "**candle.{unit}**", "frames::test_candles")
    yield _row("5.3/candle-each-second", "wC: evaluated every", "streams::test_the_first_candle_is_the_latest_there_is",
               "streams::test_candles_are_looked_at_once_a_second_and_sent_if_a_trade_changed_them")
    yield _row("5.3/candle-last-frame", "`MX` live: last 07:46", "streams::test_the_last_frame_of_every_bar_is_the_bar_of_rest")
    yield _row("5.3/no-days", "No day+ candles")
    yield _row("5.4/list", "LIST_SUBSCRIPTIONS", "websocket::test_subscriptions_are_listed_without_being_replaced")
    yield _row("5.5/frame", "(key order varies", "websocket::test_an_error_is_told_in_korean_and_the_connection_closed_a_little_later")
    for name in ("WRONG_FORMAT", "NO_TICKET", "NO_TYPE", "NO_CODES", "INVALID_PARAM", "INVALID_AUTH"):
        yield _row(f"5.5/{name}", f"| `{name}`")
    yield _row("5.5/TOO_MANY_REQUEST", "| `TOO_MANY_REQUEST`", "websocket::test_the_sixth_message_of_a_second_is_refused_and_the_connection_closed",
               "websocket::test_a_message_too_many_can_be_refused_without_a_close")
    yield _row("5.5/english", "ID texts", "websocket::test_other_regions_tell_errors_in_english")
    yield _row("5.5/refused-upgrade", "HTTP status when websocket-connect",
               "websocket::test_the_sixth_connection_of_a_second_is_refused_and_the_next_second_begins_anew")


def _values() -> Iterator[Row]:
    yield _row("6/ids", "`sequential_id`: today 17 digits", "world::test_trades_are_in_order_with_unique_ids_that_name_their_millisecond")
    yield _row("6/shared-ids", "Unique **per market only**", "world::test_some_markets_share_trade_ids")
    yield _row("6/out-of-order", "Out-of-order delivery", "streams::test_the_share_of_reordered_trades_is_late_and_none_is_lost_or_repeated")
    yield _row("6/old-ids", "History: 2018", unclaimed="trades/ticks reaches back seven days, so no old id is ever shown")
    yield _row("6/ties", "Ties in ms are normal", "world::test_several_trades_share_a_millisecond_now_and_then")
    yield _row("6/websocket-lag", "WS `timestamp` - `trade_timestamp`")
    yield _row("6/depth", "REST depth: current UTC day")
    yield _row("6/pagination", "Pagination: next `cursor`", "quotation::test_a_cursor_pages_through_a_day_and_ends_with_nothing")
    yield _row("7/units", "30 units (since", "streams::test_a_suffix_says_how_many_units_of_the_same_book",
               "quotation::test_a_count_out_of_range_is_thirty_units")
    yield _row("7/same-books", "REST and WS with the same timestamp")
    spelt = "lexemes::test_numbers_seen_on_the_wire"
    seen = "frames::test_spellings_seen_in_frames"
    yield _row("8.1/rest-prices", "| REST ticker/candle/trade prices", spelt)
    yield _row("8.1/rest-trade-prices", "| REST ticker/candle/trade prices")
    yield _row("8.1/volumes", "| volumes")
    yield _row("8.1/candle-volumes", "| volumes")
    yield _row("8.1/turnover-today", "| REST `acc_trade_price` |", "lexemes::test_sixteen_decimals_are_exact_and_eight_are_rounded_half_up")
    yield _row("8.1/turnover-24h", "| REST `acc_trade_price_24h`")
    yield _row("8.1/candle-turnover", "| REST `acc_trade_price_24h`")
    yield _row("8.1/rates", "| change_rate / signed", "lexemes::test_rates_have_ten_decimals_rounded_half_up_and_zero_has_none")
    yield _row("8.1/zero-change", "| zero change", seen)
    yield _row("8.1/rest-books", "| REST orderbook", "lexemes::test_the_shortest_spelling_is_exact_plain_and_has_no_digit_to_spare")
    yield _row("8.1/ws-default", "| WS DEFAULT ticker/candle", "frames::test_decimals_are_spelt_as_a_bigdecimal")
    yield _row("8.1/ws-turnover", "| WS DEFAULT ticker/candle")
    yield _row("8.1/ws-turnover-24h", "| WS DEFAULT ticker/candle")
    yield _row("8.1/ws-candle", "| WS DEFAULT ticker/candle")
    yield _row("8.1/ws-trade", "| WS trade")
    yield _row("8.1/ws-trade-touch", "| WS trade")
    yield _row("8.1/ws-trade-close", "| WS trade", "frames::test_abbreviated_trades_are_spelt_as_in_2021")
    yield _row("8.1/ws-book-prices", "| WS DEFAULT orderbook", seen)
    yield _row("8.1/ws-book-sizes", "| WS DEFAULT orderbook")
    yield _row("8.1/ws-simple-book-prices", "| WS SIMPLE orderbook", "frames::test_abbreviated_orderbooks_are_spelt_another_way")
    yield _row("8.1/ws-simple-book-sizes", "| WS SIMPLE orderbook")
    yield _row("8.1/ws-simple-change", "| WS SIMPLE 2021")
    yield _row("8.1/exact", "A client needing exact Decimals", "frames::test_every_spelling_is_exact")
    for name, line in (("krw", "KRW (since 2025-07-31"), ("btc", "BTC market: 0.00000001"), ("usdt", "USDT (since 2024-08-19")):
        yield _row(f"8.2/{name}-ticks", line, "world::test_ticks_are_those_of_the_exchange", "world::test_prices_lie_on_the_tick_grid")
    yield _row("8.2/minimum-orders", "Min order 5000 KRW", unclaimed="no orders; what is drawn may be smaller")
    yield _row("8.2/old-ticks", "USDT (since 2024-08-19", unclaimed="all of history lies on today's grid")
    yield _row("8.3/universe", "855 = 289 KRW", "world::test_the_universe_has_the_exchanges_mix_and_a_smaller_one_is_its_beginning",
               "world::test_histories_begin_at_different_times_and_many_in_the_last_two_years")
    yield _row("8.3/turnover", "Turnover 24 h on", unclaimed="the turnover of one day; that most markets are thin is 2/only-with-trades")


# fmt: on
ROWS = tuple(_rows())
