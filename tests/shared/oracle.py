"""What a schedule should say, computed another way than the library computes it.

Boundaries come from loops over cycles in Fractions, written from the definition
of `CyclicCosine`'s arguments; rates come from `(1 + cos(pi * x)) / 2` in decimal
arithmetic of 100 digits, with a pi and a cosine of its own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from fractions import Fraction
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

DIGITS = 100
_CONTEXT = Context(prec=DIGITS, Emin=MIN_EMIN, Emax=MAX_EMAX)


@contextmanager
def exactly() -> Iterator[None]:
    """Decimal arithmetic of 100 digits and practically no limit on the exponent."""
    with localcontext(_CONTEXT):
        yield


def _pi() -> Decimal:
    """Machin: pi / 4 = 4 * arctan(1/5) - arctan(1/239), in integers."""
    unit: int = 10 ** (DIGITS + 20)

    def arctan_of_one_over(n: int) -> int:
        power = total = unit // n
        k = 1
        while abs(power) > 1:
            power //= -n * n
            k += 2
            total += power // k
        return total

    scaled = 4 * (4 * arctan_of_one_over(5) - arctan_of_one_over(239))
    with exactly():
        return Decimal(scaled) / Decimal(unit)


PI = _pi()
_TINY = Decimal(10) ** -(DIGITS + 5)
with exactly():
    _FACTORS = [1 / Decimal((2 * n - 1) * (2 * n)) for n in range(1, 80)]


def decimal(value: Fraction | float) -> Decimal:
    """The number itself, a float's binary value included, to 100 digits."""
    exact = Fraction(value)
    with exactly():
        return Decimal(exact.numerator) / Decimal(exact.denominator)


def cos_pi(x: Decimal) -> Decimal:
    """`cos(pi * x)` for `x` in [0, 1], by its power series."""
    with exactly():
        if 2 * x > 1:
            return -cos_pi(1 - x)
        minus_square = -((PI * x) ** 2)
        total = term = Decimal(1)
        for factor in _FACTORS:
            term = term * minus_square * factor
            total += term
            if abs(term) < _TINY:
                return total
    raise AssertionError("the power series of the cosine did not converge")


def curve_at(
    passed: Fraction,
    *,
    first: Decimal,
    last: Decimal,
    curve: str = "cosine",
    exponent: float = 1.0,
    k: float = 1.0,
) -> Decimal:
    """The rate where the share `passed` of a clock has passed; held beyond its ends."""
    if curve == "constant" or passed >= 1:
        return last
    if passed <= 0:
        return first
    with exactly():
        x = decimal(passed)
        if k != 1:
            x = x ** decimal(k)
        weight = (1 + cos_pi(x)) / 2 if curve == "cosine" else 1 - x
        if exponent != 1:
            weight = weight ** decimal(exponent)
        return last + (first - last) * weight


def ulps(got: float, exact: Decimal) -> float:
    """How far `got` lies from the exact value, in units of the exact value's last place."""
    with exactly():
        return float(abs(Decimal(got) - exact) / Decimal(math.ulp(float(exact))))


class Worst:
    """The worst of many comparisons, and where it was."""

    def __init__(self) -> None:
        self.ulps = 0.0
        self.where = "nowhere"
        self.count = 0

    def see(self, got: float, exact: Decimal, where: str) -> None:
        self.count += 1
        distance = ulps(got, exact)
        if not distance <= self.ulps:
            self.ulps = distance
            self.where = f"{where}: got {got!r}, exactly {float(exact)!r}"

    def __repr__(self) -> str:
        return f"{self.ulps:.2f} ulp in {self.count} comparisons, at {self.where}"


class Oracle:
    """The schedule that `CyclicCosine` should give for the same arguments."""

    def __init__(
        self,
        max_lr: float,
        *,
        total_steps: int | None = None,
        cycle_steps: int | Sequence[int] | None = None,
        num_cycles: int | None = None,
        min_lr: float = 0.0,
        cycle_mult: float | Fraction = 1,
        cycle_decay: float = 1.0,
        warmup_steps: int = 0,
        warmup_lr: float = 0.0,
        restart_warmup_steps: int = 0,
        endpoint: bool = False,
    ) -> None:
        self.max_lr = decimal(max_lr)
        self.min_lr = decimal(min_lr)
        self.decay = decimal(cycle_decay)
        self.warmup_steps = warmup_steps
        self.warmup_lr = decimal(warmup_lr)
        self.restart_warmup_steps = restart_warmup_steps
        self.endpoint = endpoint
        # A float factor means the decimal it is written as.
        self._mult = Fraction(str(cycle_mult))
        self._even: tuple[int, int] | None = None  # so many steps in so many cycles
        self._starts = [0]
        self._next = (Fraction(0), Fraction(0))  # an exact boundary, and the length from there
        self.num_cycles = num_cycles
        if cycle_steps is None:
            assert total_steps is not None
            assert num_cycles is not None
            if self._mult == 1:
                self._even = (total_steps, num_cycles)
            else:
                whole = Fraction(0)
                length = Fraction(1)
                for _ in range(num_cycles):
                    whole += length
                    length *= self._mult
                self._next = (Fraction(0), total_steps / whole)
        elif isinstance(cycle_steps, int):
            if self._mult == 1:
                self._even = (cycle_steps, 1)
            else:
                self._next = (Fraction(0), Fraction(cycle_steps))
        else:
            for steps in cycle_steps:
                self._starts.append(self._starts[-1] + steps)
            self.num_cycles = len(cycle_steps)
        self.total_steps = None if self.num_cycles is None else self.start(self.num_cycles)

    def start(self, i: int) -> int:
        """The first step of cycle `i`."""
        if self._even is not None:
            steps, cycles = self._even
            return steps * i // cycles
        while len(self._starts) <= i:
            boundary, length = self._next
            boundary += length
            self._starts.append(boundary.numerator // boundary.denominator)
            self._next = (boundary, length * self._mult)
        return self._starts[i]

    def cycle_of(self, step: int) -> int:
        """The number of the cycle to which a step belongs."""
        if self._even is not None:
            steps, cycles = self._even
            i = step * cycles // steps
            while self.start(i + 1) <= step:
                i += 1
            return i
        while self._starts[-1] <= step:
            self.start(len(self._starts))
        return sum(start <= step for start in self._starts) - 1

    def warmup_of(self, i: int) -> int:
        """How many steps of cycle `i` are warmup."""
        return self.restart_warmup_steps if i else self.warmup_steps

    def peak(self, i: int) -> Decimal:
        """The peak of cycle `i`."""
        with exactly():
            return self.max_lr * self.decay**i if self.decay != 1 else self.max_lr

    def rate(self, step: int) -> Decimal:
        """The exact rate of a step."""
        if self.total_steps is not None and step >= self.total_steps:
            return self.min_lr
        i = self.cycle_of(step)
        warmup, peak = self.warmup_of(i), self.peak(i)
        done = step - self.start(i)
        if done < warmup:
            lowest = self.min_lr if i else self.warmup_lr
            with exactly():
                return lowest + (peak - lowest) * done / warmup
        done -= warmup
        steps = self.start(i + 1) - self.start(i) - warmup
        if self.endpoint:
            if steps == 1:
                return self.min_lr
            steps -= 1
        return curve_at(Fraction(done, steps), first=peak, last=self.min_lr)


class Picker(Protocol):
    """Where random arguments get their choices from: a seeded generator, or hypothesis."""

    def integer(self, low: int, high: int) -> int: ...
    def one_of(self, values: Sequence[T]) -> T: ...


class RandomPicker:
    """Choices of a seeded generator."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def one_of(self, values: Sequence[T]) -> T:
        return self._random.choice(values)


KINDS = ("budget", "growing budget", "equal", "growing", "endless", "endless growing", "list")
FINITE_KINDS = tuple(kind for kind in KINDS if not kind.startswith("endless"))

GROWING: tuple[float | Fraction, ...] = (
    *(2, 3, 10, 1.5, 1.1, 1.25, 1.07),
    *(Fraction(3, 2), Fraction(4, 3), Fraction(101, 97), Fraction(7, 1)),
)
SHRINKING: tuple[float | Fraction, ...] = (0.5, 0.9, 0.75, Fraction(2, 3), Fraction(97, 101))


def size(pick: Picker, low: int, high: int) -> int:
    """An integer in [low, high], of any order of magnitude alike."""
    bits = pick.integer(0, max(high - low, 1).bit_length())
    return min(high, low + pick.integer(0, 2**bits - 1))


def _share(pick: Picker) -> float:
    return pick.integer(1, 999_999) / 1_000_000


def arguments(pick: Picker, kind: str, *, largest: int = 2**62, cycles: int = 40) -> dict[str, Any]:
    """Arguments that CyclicCosine must accept, of at most about `largest` steps if finite."""
    given: dict[str, Any] = {
        "max_lr": pick.one_of((0.1, 0.2, 1.0, 3e-4, 0.05, 1e-300, 1e300))
        if pick.integer(0, 3)
        else pick.integer(1, 10**9) / 10 ** pick.integer(3, 14)
    }
    if kind == "budget":
        given["total_steps"] = size(pick, 1, largest)
        given["num_cycles"] = size(pick, 1, min(given["total_steps"], cycles))
    elif kind == "endless":
        given["cycle_steps"] = size(pick, 1, largest)
    elif kind == "equal":
        given["num_cycles"] = size(pick, 1, min(cycles, largest))
        given["cycle_steps"] = size(pick, 1, largest // given["num_cycles"])
    elif kind == "list":
        some = [size(pick, 1, max(1, largest // 8)) for _ in range(pick.integer(1, 3))]
        given["cycle_steps"] = [pick.one_of(some) for _ in range(pick.integer(1, 8))]
    elif kind == "endless growing":
        given["cycle_mult"] = pick.one_of(GROWING)
        given["cycle_steps"] = size(pick, 1, largest)
    else:
        mult = pick.one_of(GROWING + SHRINKING)
        given["cycle_mult"] = mult
        lengths = [Fraction(1)]
        for _ in range(pick.integer(1, cycles) - 1):
            longer = lengths[-1] * Fraction(str(mult))
            if sum(lengths) + longer > largest * min(*lengths, longer):
                break
            lengths.append(longer)
        given["num_cycles"] = len(lengths)
        in_all, shortest = sum(lengths), min(lengths)
        if kind == "growing budget":
            given["total_steps"] = size(pick, math.ceil(in_all / shortest), largest)
        else:
            least = math.ceil(1 / shortest)
            given["cycle_steps"] = size(pick, least, max(least, math.floor(largest / in_all)))

    plan = Oracle(**given)
    count = plan.num_cycles
    first = plan.start(1)
    if count is None:
        later = math.floor(first * Fraction(str(given.get("cycle_mult", 1))))
    else:
        ends = range(1, count)
        later = min((plan.start(i + 1) - plan.start(i) for i in ends), default=first)
    if pick.integer(0, 1):
        given["warmup_steps"] = size(pick, 0, first - 1)
        given["warmup_lr"] = given["max_lr"] * pick.one_of((0.0, _share(pick), 1.0))
    if pick.integer(0, 1):
        given["restart_warmup_steps"] = size(pick, 0, later - 1)
    if pick.integer(0, 1):
        given["cycle_decay"] = pick.one_of((0.5, 0.9, 0.999, 1 / 3, _share(pick)))
    if pick.integer(0, 2):
        lowest_peak = given["max_lr"]
        if "cycle_decay" in given:
            lowest_peak = 0.0 if count is None else float(Oracle(**given).peak(count)) * 0.999
        given["min_lr"] = lowest_peak * pick.one_of((_share(pick), 1e-3, 1.0))
    given["endpoint"] = bool(pick.integer(0, 1))
    return given


def steps_worth_a_look(pick: Picker, plan: Oracle, *, furthest: int = 2**62) -> list[int]:
    """Steps of one random cycle: its first and last, their neighbours, and some between."""
    if plan.num_cycles is not None:
        i = pick.integer(0, plan.num_cycles - 1)
    else:
        i = size(pick, 0, plan.cycle_of(furthest))
    start, stop = plan.start(i), plan.start(i + 1)
    peak = start + plan.warmup_of(i)
    steps = [start - 1, start, start + 1, peak - 1, peak, peak + 1, stop - 2, stop - 1, stop]
    steps += [pick.integer(start, stop - 1) for _ in range(4)]
    steps += [stop - size(pick, 1, stop - start), start + size(pick, 0, stop - start - 1)]
    if plan.total_steps is not None:
        steps += [plan.total_steps - 1, plan.total_steps + size(pick, 0, 2**62)]
    else:
        steps = [step for step in steps if step <= furthest]
    return [step for step in steps if step >= 0]
