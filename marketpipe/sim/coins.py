"""The coins of the simulated market: the well-known first, then as many invented ones as anybody wants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from marketpipe.sim.draw import draw, words
from marketpipe.sim.ticks import E8

__all__ = ["DELISTED", "Coin", "coins"]

# Once listed, unknown now: their history is out of reach and they answer 404 like a code that never was.
DELISTED = ("KRW-LUNA2", "KRW-MATIC", "KRW-EOS", "KRW-STPT", "BTC-LUNA2", "BTC-SRM", "USDT-FTT")

# Code, Korean name, English name, US dollars.
_KNOWN: tuple[tuple[str, str, str, float], ...] = (
    ("BTC", "비트코인", "Bitcoin", 110_000),
    ("ETH", "이더리움", "Ethereum", 2_900),
    ("XRP", "엑스알피(리플)", "XRP", 1.5),
    ("SOL", "솔라나", "Solana", 160),
    ("USDT", "테더", "Tether", 1),
    ("DOGE", "도지코인", "Dogecoin", 0.19),
    ("ADA", "에이다", "Cardano", 0.68),
    ("TRX", "트론", "TRON", 0.29),
    ("LINK", "체인링크", "Chainlink", 17),
    ("AVAX", "아발란체", "Avalanche", 22),
    ("SUI", "수이", "Sui", 2.9),
    ("XLM", "스텔라루멘", "Stellar Lumens", 0.3),
    ("BCH", "비트코인캐시", "Bitcoin Cash", 480),
    ("HBAR", "헤데라", "Hedera", 0.19),
    ("DOT", "폴카닷", "Polkadot", 3.4),
    ("SHIB", "시바이누", "Shiba Inu", 0.0000105),
    ("UNI", "유니스왑", "Uniswap", 8.2),
    ("AAVE", "에이브", "Aave", 240),
    ("PEPE", "페페", "Pepe", 0.0000078),
    ("NEAR", "니어프로토콜", "NEAR Protocol", 2.4),
    ("ETC", "이더리움클래식", "Ethereum Classic", 18),
    ("APT", "앱토스", "Aptos", 3.7),
    ("ONDO", "온도파이낸스", "Ondo Finance", 0.78),
    ("POL", "폴리곤에코시스템토큰", "Polygon Ecosystem Token", 0.21),
    ("ARB", "아비트럼", "Arbitrum", 0.37),
    ("VET", "비체인", "VeChain", 0.021),
    ("ATOM", "코스모스", "Cosmos", 3.8),
    ("ALGO", "알고랜드", "Algorand", 0.19),
    ("SEI", "세이", "Sei", 0.24),
    ("FIL", "파일코인", "Filecoin", 2.1),
    ("WLD", "월드코인", "Worldcoin", 0.95),
    ("IMX", "이뮤터블엑스", "Immutable X", 0.52),
    ("INJ", "인젝티브", "Injective", 11),
    ("STX", "스택스", "Stacks", 0.55),
    ("GRT", "그래프", "The Graph", 0.077),
    ("BONK", "봉크", "Bonk", 0.0000164),
    ("THETA", "쎄타토큰", "Theta Token", 0.62),
    ("SAND", "샌드박스", "The Sandbox", 0.24),
    ("MANA", "디센트럴랜드", "Decentraland", 0.26),
    ("XTZ", "테조스", "Tezos", 0.61),
    ("AXS", "엑시인피니티", "Axie Infinity", 1.9),
    ("FLOW", "플로우", "Flow", 0.31),
    ("NEO", "네오", "NEO", 5.4),
    ("QTUM", "퀀텀", "Qtum", 2.1),
    ("CHZ", "칠리즈", "Chiliz", 0.036),
    ("ENS", "이더리움네임서비스", "Ethereum Name Service", 18),
    ("BAT", "베이직어텐션토큰", "Basic Attention Token", 0.15),
    ("ZRX", "제로엑스", "0x Protocol", 0.21),
    ("ZIL", "질리카", "Zilliqa", 0.0092),
    ("ICX", "아이콘", "ICON", 0.11),
    ("KAVA", "카바", "Kava", 0.31),
    ("JST", "저스트", "JUST", 0.034),
    ("BTT", "비트토렌트", "BitTorrent", 0.00000056),
    ("XEC", "이캐시", "eCash", 0.0000164),
    ("GAS", "가스", "GAS", 2.6),
    ("1INCH", "1인치네트워크", "1inch Network", 0.21),
    ("MINA", "미나", "Mina", 0.14),
    ("MASK", "마스크네트워크", "Mask Network", 0.98),
    ("STORJ", "스토리지", "Storj", 0.21),
    ("ANKR", "앵커", "Ankr", 0.012),
    ("SIGN", "사인", "Sign", 0.062),
    ("TOKAMAK", "토카막네트워크", "Tokamak Network", 0.84),
)
_CONSONANTS, _VOWELS = "BCDFGHJKLMNPRSTVXZ", "AEIOUY"
_SYLLABLES = "가나다라마바사아자카타파하고노도로모보소오조코토포호기니디리미비시이지키티피히"
_KINDS = ("Protocol", "Network", "Token", "Coin", "Finance", "Chain", "Labs", "DAO")


@attrs.frozen
class Coin:
    """A base asset; its usual ``price`` is an integer of 1e-16 US dollars, fine enough for the cheapest coin."""

    code: str
    korean: str
    english: str
    price: int


def coins(seed: int) -> Iterator[Coin]:
    """Every coin, endlessly, no code twice. The codes do not depend on the seed, the invented ones' prices do."""
    taken = {code.partition("-")[2] for code in DELISTED}
    for code, korean, english, dollars in _KNOWN:
        taken.add(code)
        yield Coin(code, korean, english, round(dollars * E8) * E8)
    number = 0
    while True:
        coin = _invented(seed, number)
        number += 1
        if coin.code not in taken:
            taken.add(coin.code)
            yield coin


def _invented(seed: int, number: int) -> Coin:
    kind, tail, *letters = words(8, "coin", number)
    code = "".join(_pick(_VOWELS if i % 2 else _CONSONANTS, letters[i]) for i in range(3 + letters[5] % 3))
    code += str(2 + tail % 8) if tail >> 24 < 20 else ""
    korean = "".join(_pick(_SYLLABLES, letter) for letter in letters[:3])
    return Coin(code, korean, f"{code.title()} {_pick(_KINDS, kind)}", _invented_price(seed, code))


def _invented_price(seed: int, code: str) -> int:
    # Most coins cost cents, some dollars, some next to nothing.
    scale: int = 10 ** (5, 6, 6, 7, 7, 7, 8, 9)[draw(8, seed, code, "scale")]
    return (100 + draw(900, seed, code, "price")) * scale * E8 // 100


def _pick(choices: Sequence[str], word: int) -> str:
    return choices[word % len(choices)]
