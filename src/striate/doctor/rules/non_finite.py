"""Losses or gradients are NaN or infinite.

Looks at: skipped steps with their reason, their images and the first layer that put out such a number; a loss of NaN in a table;
loss scale and losses just before.
Why: after such a number nothing is learnt; striate skips the step, others go on with weights of NaN. Whether it is the same few
images, the rate, or the range of 16-bit numbers shows in which steps and images it happens to.
Source: Micikevicius et al. 2018, section 3.2 (loss scaling); Goodfellow, Bengio and Courville 2016, section 11.4.1.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy, Severity
from striate.doctor.history import History, Skip, level

SOURCE = "Micikevicius et al. 2018, section 3.2; Goodfellow, Bengio and Courville 2016, section 11.4.1"

# With 16-bit floats a loss scale is found by trying: infinite gradients in this share of the steps are how it works. It tries a
# doubled scale every 2,000 steps, and about fifteen times at the start.
_SEARCHED_SHARE, _SEARCHED_FIRST = 0.005, 20
# A scale as low as this is no longer a search: gradients overflow as they are.
_LOWEST_SCALE = 16.0
# So few images, or one that recurs, are to blame; with more in each skipped step it is the network.
_FEW_IMAGES = 3


def check(history: History) -> Finding | None:
    """A finding when steps had to be skipped (beyond the search for a loss scale), or a table says NaN."""
    skips = _beyond_search(history)
    if not skips and not history.broken:
        losses = [history.loss, *(scores["loss"] for scores in history.evaluations.values())]
        if not any(np.isfinite(loss).any() for loss in losses):
            raise NotJudged("no losses")
        return None
    is_over = not skips or skips[-1].step >= history.last_step - 1 or len(skips) > 0.1 * max(1, history.last_step)
    severity: Severity = "error" if is_over or len(skips) >= 3 else "warning"
    return Finding(
        code="non-finite",
        severity=severity,
        sentence=_sentence(history, skips),
        evidence={
            "skipped steps": len(skips),
            "first at step": skips[0].step if skips else history.broken[0][0],
            "first layer": next((skip.first_bad_layer for skip in skips if skip.first_bad_layer), None),
            "images": ", ".join(f"{key} ({times}×)" for key, times in _keys(skips).most_common(5)),
            "loss before": _before(history, "loss"),
            "gradient norm before": _before(history, "gradient_norm"),
            "loss scale": _last(history, "loss_scale"),
        },
        causes=_causes(history, skips),
        remedies=_remedies(history, skips),
        source=SOURCE,
        layer=next((skip.first_bad_layer for skip in skips if skip.first_bad_layer), None),
        curve=history.loss_curve(),
    )


def _beyond_search(history: History) -> list[Skip]:
    """Skipped steps that are none of the search for a loss scale."""
    skips = [skip for skip in history.skips if "readable images" not in skip.reason]
    scale = _last(history, "loss_scale")
    if not scale > 0:
        return skips
    searching = [skip for skip in skips if skip.reason.startswith("gradient")]
    allowed = _SEARCHED_FIRST + _SEARCHED_SHARE * history.last_step
    if scale >= _LOWEST_SCALE and len(searching) <= allowed:
        return [skip for skip in skips if skip not in searching]
    return skips


def _sentence(history: History, skips: list[Skip]) -> str:
    if not skips:
        step, column = history.broken[0]
        return f"The column {column} is NaN or infinite from step {step:,} on."
    layer = next((skip.first_bad_layer for skip in skips if skip.first_bad_layer), None)
    where = f"; the first such number leaves layer {layer}" if layer else ""
    times = "1 step was" if len(skips) == 1 else f"{len(skips)} steps were"
    return f"{times} skipped, the first after step {skips[0].step:,}: {skips[0].reason}{where}."


def _keys(skips: list[Skip]) -> Counter[str]:
    return Counter(key for skip in skips for key in set(skip.keys))


def _last(history: History, name: str) -> float:
    return level(history.steps[name][-1:])


def _first_step(history: History, skips: list[Skip]) -> int:
    return skips[0].step if skips else history.broken[0][0]


def _before(history: History, name: str) -> float:
    """The last value before the first number that is not finite."""
    values = history.steps[name][history.steps["step"] <= _first_step(history, _beyond_search(history))]
    values = values[np.isfinite(values)]
    return float(values[-1]) if len(values) else float("nan")


def _causes(history: History, skips: list[Skip]) -> tuple[Cause, ...]:
    keys = _keys(skips)
    causes = []
    most = max(keys.values(), default=0)
    share = len(skips) / max(1, history.last_step)
    if keys and (most > 1 or len(keys) <= _FEW_IMAGES * len(skips)) and len(keys) < _half_a_batch(history) * len(skips):
        image, times = keys.most_common(1)[0]
        again = f", {times} times" if times > 1 else ""
        causes.append(Cause("bad-batch", 0.85 if most > 1 else 0.7, f"it is {len(keys)} image(s), as {image}{again}"))
    rising = _before(history, "loss") > 1.2 * _at_first(history, "loss") or (
        _before(history, "gradient_norm") > 10 * _at_first(history, "gradient_norm")
    )
    if rising:
        causes.append(Cause("learning-rate-high", 0.9, f"loss and gradients rose before, to {_before(history, 'loss'):.3g}"))
    elif not causes:
        causes.append(
            Cause(
                "learning-rate-high",
                0.6,
                f"{share:.0%} of the steps, and no image stands out" if skips else "most often it is the rate",
            )
        )
    is_16_bit = _last(history, "loss_scale") > 0
    if is_16_bit:
        causes.append(Cause("precision", 0.8 if not rising and not keys else 0.5, "16-bit floats end at 65,504"))
    elif not skips:
        causes.append(Cause("precision", 0.3, "16-bit floats end at 65,504"))
    if history.bad:
        causes.append(Cause("bad-batch", 0.4, f"{len(history.bad)} images cannot be read"))
    return tuple(causes)


def _half_a_batch(history: History) -> float:
    """Half of the images of a step: where more of them are bad at once, it is the network. Only eight are named in a record."""
    return min(8.0, (history.batch_size or 16) / 2)


def _at_first(history: History, name: str) -> float:
    values = history.steps[name]
    values = values[np.isfinite(values)]
    return float(values[0]) if len(values) else float("nan")


def _remedies(history: History, skips: list[Skip]) -> tuple[Remedy, ...]:
    keys = _keys(skips)
    lower = Remedy(
        "Take a tenth of the learning rate, and bound the gradients.",
        {**history.scaled("optim.lr", 0.1), **history.set(optim_clip_norm=1.0)},
    )
    images = Remedy(f"Look at {', '.join(key for key, _ in keys.most_common(3))}; repair or remove what is wrong with them.")
    wide = Remedy("Compute in 32-bit floats, or in bf16 where the machine has it.", history.set(optim_precision="fp32"))
    causes = _causes(history, skips)
    first = {"bad-batch": images, "precision": wide}.get(max(causes, key=lambda cause: cause.weight).name, lower)
    return (first, *(one for one in (lower, wide) if one is not first))
