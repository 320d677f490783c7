"""A channel and traffic of your own: rain that makes every channel worse, and tasks in bursts. In this folder:

python weather.py
partway compare --scenario ocr --schemes constant priced --channel weather:Weather --traffic weather:Bursts
partway compare --scenario ocr --schemes constant priced --channel weather:Weather --set radio.fading.change=0.1
"""

import jax
import jax.numpy as jnp

import partway


class Weather(partway.Channel):
    """Rayleigh fading, ten times weaker in the rain, which starts and ends at random at each device."""

    change: float = 0.02

    def init(self, key, device):
        return jnp.zeros(())

    def step(self, rain, key, device, block):
        starts_or_ends, fading = jax.random.split(key)
        rain = jnp.where(jax.random.uniform(starts_or_ends) < self.change, 1.0 - rain, rain)
        faded = jnp.maximum(jax.random.exponential(fading), 1e-7)  # never 0: no power would be enough
        return rain, device.mean_gain * faded * jnp.where(rain > 0, 0.1, 1.0)


class Bursts(partway.Traffic):
    """Blocks in which tasks come twice as often as the scenario says, and blocks without any."""

    stay: float = 0.9

    def init(self, key, device):
        return jax.random.bernoulli(key, 0.5)

    def step(self, busy, key, device, block):
        stays, slots = jax.random.split(key)
        busy = jnp.where(jax.random.bernoulli(stays, self.stay), busy, ~busy)
        chance = jnp.where(busy, 2.0 * device.arrival_prob, 0.0)
        return busy, jax.random.bernoulli(slots, chance, (device.slots,))


if __name__ == "__main__":
    overrides = {"radio.fading": Weather(change=0.1), "traffic": Bursts()}
    dataset = partway.compare("ocr", overrides=overrides, schemes=["constant", "priced"], blocks=400)
    for scheme in partway.summarise(dataset):
        print(f"{scheme.name}: {scheme.cost.mean:.1f} per block, {scheme.no_gap}")
